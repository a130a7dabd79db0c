"""The error of an environment that failed: its data never reaches the replay."""

import numpy as np
from numpy.typing import ArrayLike

from rayrlhf.preferences.fragments import Floats


class EnvironmentBroken(Exception):  # noqa: N818 - it reads as what happened
    """An environment raised an exception or produced numbers that are not finite.

    task: the environment's name
    index: its global index
    episode, step: where it happened, both counted from zero
    reason: what happened, one line
    """

    def __init__(self, task: str, index: int, episode: int, step: int, reason: str) -> None:
        super().__init__(task, index, episode, step, reason)  # all arguments, so that it survives pickling
        self.task, self.index, self.episode, self.step, self.reason = task, index, episode, step, reason

    def __str__(self) -> str:
        return f"{self.task}: environment {self.index} broke in episode {self.episode}, step {self.step}: {self.reason}"


def require_finite(
    task: str, indices: ArrayLike, episodes: ArrayLike, steps: ArrayLike, obs: Floats, reward: Floats
) -> None:
    """Raises `EnvironmentBroken` for the first of `N` environments whose obs `[N, O]` or reward `[N]` is not finite."""
    if np.isfinite(obs).all() and np.isfinite(reward).all():
        return
    healthy = np.isfinite(obs).all(axis=1) & np.isfinite(reward)
    i = int(np.argmin(healthy))
    what = "reward" if np.isfinite(obs[i]).all() else "observation"
    index, episode, step = (int(np.asarray(numbers)[i]) for numbers in (indices, episodes, steps))
    raise EnvironmentBroken(task, index, episode, step, f"its {what} is not finite")
