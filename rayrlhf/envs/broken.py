"""The error of an environment that failed, and what is checked at each step: such data never reaches the replay."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rayrlhf.preferences.fragments import Floats


class EnvironmentBroken(Exception):  # noqa: N818 - it reads as what happened
    """An environment raised an exception, produced numbers that are not finite, or was to execute such an action.

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
    raise _broken(task, i, indices, episodes, steps, f"its {what} is not finite")


def bounded_actions(
    task: str, indices: Sequence[int], episodes: ArrayLike, steps: ArrayLike, action: Floats, width: int
) -> Floats:
    """`action` `[N, width]` within [-1, 1], for `N` environments of `indices` `[N]`.

    Raises:
        ValueError: another shape.
        EnvironmentBroken: one is not a number. Simulators take it without a word, and may go on from another state.
    """
    bounded: Floats = np.clip(action, -1.0, 1.0, dtype=np.float32)
    if bounded.shape != (len(indices), width):
        raise ValueError(f"actions {bounded.shape} for [{len(indices)}, {width}]")
    if np.isnan(bounded).any():
        i = int(np.argmax(np.isnan(bounded).any(axis=1)))
        raise _broken(
            task,
            i,
            indices,
            episodes,
            steps,
            "the policy's action is not a number: training may have diverged, lower the learning rates",
        )
    return bounded


def _broken(
    task: str, i: int, indices: ArrayLike, episodes: ArrayLike, steps: ArrayLike, reason: str
) -> EnvironmentBroken:
    index, episode, step = (int(np.asarray(numbers)[i]) for numbers in (indices, episodes, steps))
    return EnvironmentBroken(task, index, episode, step, reason)
