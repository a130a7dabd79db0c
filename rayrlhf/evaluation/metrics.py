"""What evaluation episodes say about a policy, and how well the reward model agrees with the true reward."""

import math
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rayrlhf.preferences.fragments import Bools, Integers

Doubles = NDArray[np.float64]
MAX_PAIRS = 10_000
"""Pairs compared by `pair_accuracy` when there are more."""


@dataclass(frozen=True)
class EpisodeResult:
    """Columns over `N` evaluation episodes.

    success: `[N]` success at any step
    true_return: `[N]` undiscounted sum of the environment's own reward
    length: `[N]` steps
    time_to_success: `[N]` steps until the first success, that step included; NaN without success
    smoothness: `[N]` see `action_change`
    """

    success: Bools
    true_return: Doubles
    length: Integers
    time_to_success: Doubles
    smoothness: Doubles

    def __post_init__(self) -> None:
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        if set(shapes.values()) != {(len(self),)}:
            raise ValueError(f"columns of episodes differ in shape: {shapes}")
        if (np.isnan(self.time_to_success) == self.success).any():
            raise ValueError("an episode has a time to success exactly if it succeeded")

    def __len__(self) -> int:
        return len(self.success)

    @staticmethod
    def from_steps(reward: NDArray[Any], success: NDArray[Any], action: NDArray[Any]) -> "EpisodeResult":
        """The result of one episode from its steps: `reward` `[T]`, `success` `[T]`, `action` `[T, A]` in [-1, 1]."""
        steps = np.flatnonzero(success)
        return EpisodeResult(
            success=np.array([len(steps) > 0]),
            true_return=np.array([np.sum(reward, dtype=np.float64)]),
            length=np.array([len(reward)], dtype=np.int64),
            time_to_success=np.array([steps[0] + 1.0 if len(steps) else np.nan]),
            smoothness=np.array([action_change(action)]),
        )

    @staticmethod
    def concatenate(parts: "list[EpisodeResult]") -> "EpisodeResult":
        """All episodes of `parts`, in order."""
        names = [field.name for field in fields(EpisodeResult)]
        return EpisodeResult(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Summary:
    """What `N` episodes amount to. None where no episode defines the number."""

    episodes: int
    success_rate: float
    success_low: float
    """Wilson's interval around `success_rate`."""
    success_high: float
    true_return_mean: float
    true_return_std: float
    """Population standard deviation over episodes."""
    time_to_success_mean: float | None
    """Steps, over the successful episodes only."""
    smoothness_mean: float


@dataclass(frozen=True)
class Alignment:
    """How a reward model's predictions follow the true reward. None where either does not vary."""

    pair_accuracy: float | None
    pearson: float | None
    spearman: float | None


def summarize(result: EpisodeResult, *, confidence: float = 0.95) -> Summary:
    """Means over episodes, with Wilson's interval for the success rate. Raises ValueError on no episodes."""
    if not len(result):
        raise ValueError("no evaluation episodes to summarize")
    low, high = wilson_interval(int(result.success.sum()), len(result), confidence=confidence)
    return Summary(
        episodes=len(result),
        success_rate=float(result.success.mean()),
        success_low=low,
        success_high=high,
        true_return_mean=float(result.true_return.mean()),
        true_return_std=float(result.true_return.std()),
        time_to_success_mean=float(np.nanmean(result.time_to_success)) if result.success.any() else None,
        smoothness_mean=float(result.smoothness.mean()),
    )


def action_change(action: NDArray[Any]) -> float:
    """Mean over steps and action dimensions of `(a[t] - a[t-1])^2`, for `action` `[T, A]` in [-1, 1].

    Smaller is smoother: 0 for a constant action, 2/3 for independent uniform ones, at most 4. An episode of fewer than
    two steps counts as 0.
    """
    if len(action) < 2:
        return 0.0
    return float(np.square(np.diff(action.astype(np.float64), axis=0)).mean())


def wilson_interval(successes: float, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a rate (1927): sensible at 0 and 1 and for few trials, unlike the normal one.

    Half a success is what a tie counts.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    # At the ends the bound is the rate itself; rounding must not push it past.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def pair_accuracy(
    true: NDArray[Any], predicted: NDArray[Any], rng: np.random.Generator, *, pairs: int = MAX_PAIRS
) -> float | None:
    """Part of pairs that the prediction orders as the true value does; what a preference would ask of it.

    Pairs equal in truth have no order and are left out; pairs equal in prediction count half.

    Args:
        true: `[N]` true rewards of steps, or sums over segments.
        predicted: `[N]` the model's values of the same.
        rng: draws the pairs where there are more than `pairs`; else all are compared.
        pairs: the most that are compared.

    Returns:
        Between 0 and 1, or None when no compared pair differs in truth.
    """
    true, predicted = _columns(true, predicted)
    count = len(true)
    if count * (count - 1) // 2 <= pairs:
        left, right = np.triu_indices(count, k=1)
    else:
        left = rng.integers(count, size=pairs)
        right = (left + rng.integers(1, count, size=pairs)) % count  # uniform over the others
    truth = np.sign(true[right] - true[left])
    said = np.sign(predicted[right] - predicted[left])
    ordered = truth != 0
    if not ordered.any():
        return None
    return float(((1.0 + truth * said) / 2.0)[ordered].mean())


def alignment(true: NDArray[Any], predicted: NDArray[Any], rng: np.random.Generator) -> Alignment:
    """Pair accuracy and both correlations of `predicted` `[N]` with `true` `[N]`."""
    accuracy = pair_accuracy(true, predicted, rng)
    true, predicted = _columns(true, predicted)
    if len(true) < 2 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return Alignment(accuracy, None, None)
    pearson, spearman = stats.pearsonr(true, predicted), stats.spearmanr(true, predicted)
    return Alignment(accuracy, float(pearson.statistic), float(spearman.statistic))


def _columns(true: NDArray[Any], predicted: NDArray[Any]) -> tuple[Doubles, Doubles]:
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(f"true {true.shape} and predicted {predicted.shape} must both be [N]")
    return true.astype(np.float64), predicted.astype(np.float64)
