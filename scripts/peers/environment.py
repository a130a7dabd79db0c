"""The task that all programs learn: MetaWorld v3's handle-press-side, from the plain `metaworld` package.

The protocol is the preset `quickstart`'s: the goal is shown, objects are drawn anew at each reset, the reward is V2, an
action lasts five steps of the simulator whose rewards are summed, an episode has 20 actions and ends by truncation
alone, and it is solved if any step was a success. Nothing of rayrlhf is imported, and Gymnasium may be 0.29 or 1.x.
"""

import pickle
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

if "AutoresetMode" not in vars(gymnasium.vector):
    # Gymnasium 0.29, which imitation wants: MetaWorld needs the name to be imported, and the value for nothing here.
    vars(gymnasium.vector)["AutoresetMode"] = SimpleNamespace(SAME_STEP=None, NEXT_STEP=None, DISABLED=None)

from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

NAME = "handle-press-side-v3"
OBS_DIM, ACTION_DIM = 39, 4
HORIZON, ACTION_REPEAT = 20, 5
EVALUATION = 1_000_000
"""Seeds of evaluation's episodes begin here, far from training's."""

Array = NDArray[np.float32]


class HandlePressSide(gymnasium.Env[Array, Array]):
    """Observations `[39]` and actions `[4]` in [-1, 1]; `info["success"]` holds for the step, all its repeats."""

    def __init__(self, config: Any = None) -> None:
        """RLlib gives each environment a `config`; there is nothing to configure."""
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._env = ALL_V3_ENVIRONMENTS[NAME]()
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Draws where the handle stands, from a generator that `seed` seeds, and starts an episode there."""
        super().reset(seed=seed)
        space = self._env._random_reset_space
        assert space is not None
        self._env.set_task(task_at(self.np_random.uniform(space.low, space.high)))
        obs, _ = self._env.reset()
        self._step = 0
        return obs.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One action, repeated."""
        reward, success = 0.0, False
        for _ in range(ACTION_REPEAT):
            obs, more, _, _, info = self._env.step(action)
            reward += float(more)
            success = success or bool(info["success"])
        self._step += 1
        return obs.astype(np.float32), reward, False, self._step >= HORIZON, {"success": success}

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()  # type: ignore[no-untyped-call]


def task_at(place: NDArray[np.float64]) -> Task:
    """MetaWorld's task whose objects stand at `place`, in the form in which its benchmarks hold theirs."""
    data = {"env_cls": ALL_V3_ENVIRONMENTS[NAME], "rand_vec": place, "partially_observable": False}
    return Task(env_name=NAME, data=pickle.dumps(data))
