"""MetaWorld's 50 v3 tasks through the `metaworld` package: the reference backend.

The protocol is B-Pref's by default: goal hidden, objects and goal drawn anew at each reset from the environment's own
generator. A fixed start is one draw for the whole run. Success of a step is MetaWorld's; it never
ends an episode.
"""

from functools import partial
from typing import Any, cast

import numpy as np
from metaworld.env_dict import ENV_CLS_MAP
from numpy.typing import NDArray

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.interface import EnvSpec
from rayrlhf.envs.loop import LoopEnv, Outcome
from rayrlhf.envs.sawyer import lean
from rayrlhf.envs.scene import Scene, View, pose_of, strike_pose
from rayrlhf.preferences.fragments import Floats

OBS_DIM, ACTION_DIM, LIMIT = 39, 4, 500
_VERSION = "-v3"
_MOMENT_WIDTH = 25
"""The largest of all tasks (tests/envs/test_clips.py)."""
# The model's own corner cameras hang upside down; a free camera on the same side of the table is upright.
_VIEW = View(lookat=(0.0, 0.62, 0.13), distance=1.35, azimuth=145.0, elevation=-28.0)


def task_names() -> list[str]:
    """`assembly` to `window-close`, without the version."""
    return sorted(name.removesuffix(_VERSION) for name in ENV_CLS_MAP)


def plain_name(task: str) -> str:
    """The task's name without the version that users may write."""
    return task.removesuffix(_VERSION)


def describe(options: EnvOptions) -> EnvSpec:
    """The same for all tasks but for the name and the horizon; 500 simulator steps are MetaWorld's own limit."""
    horizon = options.horizon or -(-LIMIT // options.action_repeat)
    return EnvSpec(f"metaworld/{', '.join(options.tasks)}", OBS_DIM, ACTION_DIM, horizon, recalls=True)


def make(options: EnvOptions, num_envs: int, draws: Draws) -> LoopEnv:
    """`N` environments."""
    make_one = partial(_make_one, options)
    envs = [make_one(draws.task_of(i, 0)) for i in range(num_envs)]
    several = _MOMENT_WIDTH if len(options.tasks) > 1 else None
    repeat = options.action_repeat
    return LoopEnv(describe(options), envs, draws, action_repeat=repeat, make=make_one, moment_width=several)


def _make_one(options: EnvOptions, task: int) -> "MetaWorldEnv":
    return MetaWorldEnv(options.only(task))


class MetaWorldEnv:
    """One environment of a task."""

    view = _VIEW

    def __init__(self, options: EnvOptions) -> None:
        cls = lean(ENV_CLS_MAP[plain_name(options.task) + _VERSION])
        self._env = cls(reward_version=options.reward_version, goal_hidden=options.goal_hidden)
        self._scene = Scene(self._env.model, self._env.data, _VIEW)

    def reset(self, seed: int) -> NDArray[Any]:
        return cast(NDArray[Any], self._env.lean_reset(seed))

    def step(self, action: Floats) -> Outcome:
        obs, reward, info = self._env.lean_step(action)
        return obs, reward, False, False, bool(info["success"])

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        return self._scene.frame(width, height)

    def moment(self) -> NDArray[Any]:
        return pose_of(self._env.data)

    def recall(self, moment: Floats) -> None:
        strike_pose(self._env.model, self._env.data, moment)

    def mujoco(self) -> tuple[Any, Any]:
        return self._env.model, self._env.data

    def close(self) -> None:
        self._scene.close()
