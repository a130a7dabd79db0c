"""DeepMind Control's suite through shimmy; observations are joined into one vector in the suite's order."""

from typing import Any

import numpy as np
from gymnasium.wrappers import FlattenObservation
from numpy.typing import NDArray

from rayrlhf import seeding
from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.gymnasium import GymnasiumEnv, spec_of
from rayrlhf.envs.interface import EnvSpec
from rayrlhf.envs.loop import LoopEnv
from rayrlhf.envs.scene import Scene, pose_of, strike_pose
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Floats

if not hasattr(np, "in1d"):  # NumPy 2.4 has no such name; dm_control 1.0.28, which goes with this MuJoCo, wants it
    np.in1d = np.isin  # type: ignore[attr-defined]
try:
    from dm_control import suite
    from shimmy.dm_control_compatibility import DmControlCompatibilityV0
except ImportError as error:
    advice = "`pip install rayrlhf[dmc]`, on Python 3.11 or 3.12: its labmaze has no wheel for 3.13"
    raise UserError(f"env.suite dmc needs DeepMind Control: {advice}") from error


def task_names() -> list[str]:
    """`acrobot-swingup` to `walker-walk`: domain and task."""
    return sorted(f"{domain}-{task}" for domain, task in suite.ALL_TASKS)


def describe(options: EnvOptions) -> EnvSpec:
    """Loads each task once to see its spaces. Raises `UserError` where they differ."""
    envs = [DmcEnv(task, model_seed=0) for task in options.tasks]
    for env in envs:
        env.close()
    specs = [spec_of(options, env, env.limit) for env in envs]
    for task, spec in zip(options.tasks, specs, strict=True):
        if spec != specs[0]:
            raise UserError(
                f"{options.tasks[0]} and {task} differ in observations, actions or time limit: take tasks of one kind"
            )
    return specs[0]


def make(options: EnvOptions, num_envs: int, draws: Draws) -> LoopEnv:
    """`N` environments."""
    # of the run alone, so that all its environments have the same: lqr draws its stiffness and damping when it is made
    model_seed = seeding.integer_seed(draws.seed, "model")

    def make_one(task: int) -> DmcEnv:
        return DmcEnv(options.tasks[task], model_seed=model_seed)

    envs = [make_one(draws.task_of(i, 0)) for i in range(num_envs)]
    spec = spec_of(options, envs[0], envs[0].limit)
    return LoopEnv(spec, envs, draws, action_repeat=options.action_repeat, make=make_one)


class DmcEnv(GymnasiumEnv):
    """One environment of the suite; `limit` is its own time limit in steps, none where it has none."""

    def __init__(self, task: str, *, model_seed: int) -> None:
        domain, _, name = task.partition("-")
        self._control = suite.load(domain, name, task_kwargs={"random": model_seed})
        steps = float(getattr(self._control, "_step_limit", np.inf))
        self.limit = int(np.ceil(steps)) if np.isfinite(steps) else None
        self._scene: Scene | None = None
        self._drawn: Any | None = None
        super().__init__(FlattenObservation(DmControlCompatibilityV0(self._control)), task)

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        model, data = self.mujoco()
        if self._drawn is not model:  # some tasks compile a new model at a reset
            self._close_scene()
            self._scene, self._drawn = Scene(model, data, 0 if model.ncam else -1), model
        assert self._scene is not None
        return self._scene.frame(width, height)

    @property
    def recalls(self) -> bool:
        return True

    def moment(self) -> NDArray[Any]:
        return pose_of(self._control.physics.data)

    def recall(self, moment: Floats) -> None:
        strike_pose(*self.mujoco(), moment)

    def mujoco(self) -> tuple[Any, Any]:
        return self._control.physics.model.ptr, self._control.physics.data.ptr

    def close(self) -> None:
        self._close_scene()
        super().close()

    def _close_scene(self) -> None:
        if self._scene is not None:
            self._scene.close()
