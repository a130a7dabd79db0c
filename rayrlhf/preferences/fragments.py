"""What a rollout actor returns: columns over `T` steps of `N` environments."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Fragment:
    """Consecutive transitions of `N` environments, `T` steps each.

    obs:        `[T, N, O]` what the policy saw
    action:     `[T, N, A]` what the environment executed, inside [-1, 1]
    next_obs:   `[T, N, O]` the successor; at an episode's end its last observation, not the next reset's
    reward:     `[T, N]` the environment's own reward: evaluation, scripted teachers and oracle mode only
    terminated: `[T, N]` the task ended; the value of what follows is zero
    truncated:  `[T, N]` the time ran out
    success:    `[T, N]` success at this step
    episode:    `[T, N]` id of the episode, unique over the run
    step:       `[T, N]` index of the transition within its episode
    moment:     `[T, N, M]` what it takes to draw the environment as it was before the step; where people answer
    raw_action: `[T, N, A]` the policy's action before it was clamped, and
    log_prob:   `[T, N]` its log-probability; where a policy learns from its own steps only
    standard:   `[2, O]` mean and deviation that the policy standardised observations by; where it does
    """

    obs: Floats
    action: Floats
    next_obs: Floats
    reward: Floats
    terminated: Bools
    truncated: Bools
    success: Bools
    episode: Integers
    step: Integers
    moment: Floats | None = None
    raw_action: Floats | None = None
    log_prob: Floats | None = None
    standard: Floats | None = None

    def __post_init__(self) -> None:
        steps, envs = self.reward.shape
        for field in fields(self):
            column = getattr(self, field.name)
            if column is None or field.name == "standard":
                continue
            wide = field.name in ("obs", "action", "next_obs", "moment", "raw_action")
            if column.ndim != (3 if wide else 2) or column.shape[:2] != (steps, envs):
                raise ValueError(f"fragment column {field.name!r} has shape {column.shape}, not [{steps}, {envs}, ...]")

    @property
    def num_transitions(self) -> int:
        """Transitions over all environments."""
        return int(self.reward.size)
