"""Any Gymnasium environment with continuous observations and actions, such as `HalfCheetah-v5`."""

from importlib import import_module
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as EnvSpecification
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box
from gymnasium.wrappers import OrderEnforcing
from numpy.typing import NDArray

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.frames import resize
from rayrlhf.envs.interface import EnvSpec, scaling
from rayrlhf.envs.loop import LoopEnv, Outcome
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Floats

Env = gymnasium.Env[Any, Any]
UNSTABLE = slice(4, 7)
"""MuJoCo's `mjWARN_BADQPOS`, `mjWARN_BADQVEL` and `mjWARN_BADQACC`; it is not imported where no task needs it."""


def task_names() -> list[str]:
    """All registered ids."""
    return sorted(gymnasium.registry)


def describe(options: EnvOptions) -> EnvSpec:
    """Raises `UserError` if the environment cannot be made or is not continuous."""
    env = GymnasiumEnv(_open(options.task), options.task)
    env.close()
    return spec_of(options, env, _registered(options.task).max_episode_steps)


def make(options: EnvOptions, num_envs: int, draws: Draws) -> LoopEnv:
    """`N` environments of one id."""
    envs = [GymnasiumEnv(_open(options.task), options.task) for _ in range(num_envs)]
    spec = spec_of(options, envs[0], _registered(options.task).max_episode_steps)
    return LoopEnv(spec, envs, draws, action_repeat=options.action_repeat)


def spec_of(options: EnvOptions, env: "GymnasiumEnv", limit: int | None) -> EnvSpec:
    """limit: the environment's own, in its steps; it counts where `env.horizon` is none."""
    if options.horizon is None and limit is None:
        raise UserError(f"{options.task} has no time limit of its own: give env.horizon")
    horizon = options.horizon or -(-cast(int, limit) // options.action_repeat)
    return EnvSpec(
        f"{options.suite}/{options.task}",
        env.obs_dim,
        env.action_dim,
        horizon,
        recalls=env.recalls,
        low=env.low,
        high=env.high,
    )


class GymnasiumEnv:
    """One environment: observations flattened, actions scaled from [-1, 1] to the bounds.

    Success is `info["success"]` where the environment has it, otherwise it never succeeds.
    """

    view = None

    def __init__(self, env: Env, name: str) -> None:
        observations, actions = env.observation_space, env.action_space
        if not isinstance(observations, Box) or not isinstance(actions, Box):
            kinds = f"{type(observations).__name__} observations and {type(actions).__name__} actions"
            raise UserError(f"{name} has {kinds}: only Box observations and Box actions are supported")
        if not actions.is_bounded():
            raise UserError(f"{name} has unbounded actions: only bounded ones can be scaled from [-1, 1]")
        self._env = env
        self.obs_dim, self.action_dim = int(np.prod(observations.shape)), int(np.prod(actions.shape))
        self._shape = actions.shape
        self._middle, self._half = scaling(actions.low, actions.high)
        self.low, self.high = (tuple(map(float, np.ravel(bound))) for bound in (actions.low, actions.high))

    def reset(self, seed: int) -> NDArray[Any]:
        obs, _ = self._env.reset(seed=seed)
        return np.ravel(obs)

    def step(self, action: Floats) -> Outcome:
        scaled = self._middle + self._half * action.reshape(self._shape)
        obs, reward, terminated, truncated, info = self._env.step(scaled)
        self._require_stable()
        return np.ravel(obs), float(reward), bool(terminated), bool(truncated), bool(info.get("success", False))

    def _require_stable(self) -> None:
        """MuJoCo begins anew, without a word, where its numbers are no numbers any more; this raises."""
        simulation = self.mujoco()
        warning = getattr(simulation[1], "warning", None) if simulation is not None else None
        if warning is not None and warning.number[UNSTABLE].any():
            raise FloatingPointError("the simulation became unstable")

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        if self._env.render_mode != "rgb_array":
            raise UserError("this environment cannot draw itself")
        try:
            frame: Any = self._env.render()
        except Exception as error:  # drawing needs libraries that stepping does not
            raise UserError(f"cannot render: {error}") from error
        return resize(np.asarray(frame, np.uint8), width, height)

    @property
    def recalls(self) -> bool:
        """Whether moments can be recorded and shown: MuJoCo's environments say how."""
        return self.mujoco() is not None and callable(getattr(self._env.unwrapped, "set_state", None))

    def moment(self) -> NDArray[Any]:
        raw: Any = self._env.unwrapped
        return cast(NDArray[Any], raw.data.qpos.copy())

    def recall(self, moment: Floats) -> None:
        raw: Any = self._env.unwrapped
        raw.set_state(moment.astype(np.float64), np.zeros(raw.model.nv))

    def mujoco(self) -> tuple[Any, Any] | None:
        raw = self._env.unwrapped
        model, data = getattr(raw, "model", None), getattr(raw, "data", None)
        return None if model is None or data is None else (model, data)

    def close(self) -> None:
        self._env.close()  # type: ignore[no-untyped-call]


def _open(task: str) -> Env:
    """The environment without Gymnasium's checks and time limit: the loop around it has its own."""
    try:
        spec = _registered(task)
        modes = _render_modes(spec)
        mode = "rgb_array" if "rgb_array" in modes else None
        drawing = {} if mode is None else {"render_mode": mode}  # not every constructor takes it
        env: Env = gymnasium.make(spec, disable_env_checker=True, max_episode_steps=-1, **drawing)
    except Exception as error:  # missing extras, deprecated versions, wrong arguments: its message says which
        raise UserError(f"Gymnasium cannot make {task}: {error}") from error
    while isinstance(env, OrderEnforcing):
        env = env.env
    return env


def _registered(task: str) -> EnvSpecification:
    """Gymnasium's entry for `Id-v0` or `module:Id-v0`; the module registers its environments when it is imported."""
    module, _, name = task.rpartition(":")
    if module:
        import_module(module)
    return gymnasium.spec(name)


def _render_modes(spec: EnvSpecification) -> list[str]:
    """What the environment's class says it can draw."""
    entry = spec.entry_point
    cls = load_env_creator(entry) if isinstance(entry, str) else entry
    return list(getattr(cls, "metadata", {}).get("render_modes", []))
