"""Statistics over few runs (Agarwal et al. 2021, arXiv 2108.13264).

Scores come as a list of strata, one array `[n, ...]` per task with a row per run (seed). Axes after the first, such as
the evaluation points of a curve, are kept: a resample takes whole runs. Tasks may have different numbers of runs; each
run then weighs alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Doubles = NDArray[np.float64]
Statistic = Callable[[Doubles], Doubles]
"""From `[n, ...]` to `[...]`: reduces the first axis."""

RESAMPLES = 2000
SCORES_PER_BLOCK = 1 << 22
"""Resampled scores held at once (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its confidence interval, each `[...]`."""

    value: Doubles
    low: Doubles
    high: Doubles


def iqm(scores: NDArray[Any]) -> Doubles:
    """Interquartile mean over the first axis of `[n, ...]`: the mean without the lowest and highest quarter.

    As rliable has it: `floor(n / 4)` scores go at either end (`scipy.stats.trim_mean(scores, 0.25)`).
    """
    count = len(scores)
    if count == 0:
        raise ValueError("no scores")
    cut = count // 4
    middle: Doubles = np.sort(scores.astype(np.float64), axis=0)[cut : count - cut]
    return np.asarray(middle.mean(axis=0))


def mean(scores: NDArray[Any]) -> Doubles:
    """Mean over the first axis of `[n, ...]`."""
    return np.asarray(scores.mean(axis=0, dtype=np.float64))


def bootstrap_interval(
    strata: Sequence[NDArray[Any]],
    rng: np.random.Generator,
    *,
    statistic: Statistic = iqm,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """`statistic` over all runs, with a stratified percentile bootstrap: runs are redrawn within their own task.

    With fewer than about five runs a task the interval is too narrow; a single run gives none at all (both bounds are
    its score).

    Args:
        strata: one `[n, ...]` per task; all axes but the first alike.
        rng: draws the resamples.
        statistic: reduces the first axis.
        confidence: coverage, between 0 and 1.
        resamples: bootstrap samples.
    """
    if not strata or any(len(stratum) == 0 for stratum in strata) or len({s.shape[1:] for s in strata}) != 1:
        raise ValueError(f"strata must hold runs and share a shape, not {[stratum.shape for stratum in strata]}")
    pooled = np.concatenate([stratum.astype(np.float64) for stratum in strata])  # [n, ...]
    index = _resampled_rows([len(stratum) for stratum in strata], resamples, rng)  # [R, n]
    block = max(1, SCORES_PER_BLOCK // pooled.size)
    parts = [
        statistic(np.swapaxes(pooled[index[first : first + block]], 0, 1))  # [R, n, ...] -> [n, R, ...]
        for first in range(0, resamples, block)
    ]
    return _percentile_interval(statistic(pooled), np.concatenate(parts), confidence)


def performance_profile(
    strata: Sequence[NDArray[Any]],
    thresholds: NDArray[Any],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The part of runs that score above each of `thresholds` `[P]`, with pointwise intervals; each bound is `[P]`.

    Args:
        strata: one `[n]` per task: the final score of each run.
        thresholds: `[P]`
        rng: draws the resamples.
        confidence: coverage of the interval at each threshold.
        resamples: bootstrap samples.
    """
    above = [(stratum[:, None] > thresholds).astype(np.float64) for stratum in strata]
    return bootstrap_interval(above, rng, statistic=mean, confidence=confidence, resamples=resamples)


def difference_interval(
    first: Sequence[NDArray[Any]],
    second: Sequence[NDArray[Any]],
    rng: np.random.Generator,
    *,
    statistic: Statistic = iqm,
    confidence: float = 0.9,
    resamples: int = RESAMPLES,
) -> Interval:
    """`statistic` of `first` less that of `second`, runs of either redrawn within their own task; scalars.

    Args:
        first: one `[n]` per task.
        second: one `[m]` per task.
        rng: draws the resamples.
        statistic: reduces the first axis.
        confidence: coverage, between 0 and 1.
        resamples: bootstrap samples.
    """
    values, samples = [], []
    for strata in (first, second):
        pooled = np.concatenate([stratum.astype(np.float64) for stratum in strata])
        index = _resampled_rows([len(stratum) for stratum in strata], resamples, rng)
        values.append(statistic(pooled))
        samples.append(statistic(pooled[index].T))
    return _percentile_interval(values[0] - values[1], samples[0] - samples[1], confidence)


def probability_of_improvement(first: NDArray[Any], second: NDArray[Any]) -> float:
    """That a run of `first` `[n]` is better than one of `second` `[m]`; half of where they are equal (section 4.3)."""
    return float(_improvement(first, second))


def improvement_interval(
    first: Sequence[NDArray[Any]],
    second: Sequence[NDArray[Any]],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """`probability_of_improvement` averaged over tasks, runs of either redrawn within their own task; scalars.

    Args:
        first: one `[n]` per task.
        second: one `[m]` for each of the same tasks.
        rng: draws the resamples.
        confidence: coverage, between 0 and 1.
        resamples: bootstrap samples.
    """
    values, samples = [], []
    for ours, theirs in zip(first, second, strict=True):
        redrawn = [runs[rng.integers(len(runs), size=(resamples, len(runs)))] for runs in (ours, theirs)]
        values.append(_improvement(ours, theirs))
        samples.append(_improvement(*redrawn))
    return _percentile_interval(np.mean(values, axis=0), np.mean(samples, axis=0), confidence)


def mann_whitney(first: NDArray[Any], second: NDArray[Any], rng: np.random.Generator) -> float:
    """Two-sided Mann-Whitney U: the p-value of "neither is greater", twice the smaller one-sided one."""
    return min(1.0, 2.0 * min(mann_whitney_less(first, second, rng), mann_whitney_greater(first, second, rng)))


def mann_whitney_greater(first: NDArray[Any], second: NDArray[Any], rng: np.random.Generator) -> float:
    """One-sided Mann-Whitney U: the p-value of "`first` is not greater than `second`". See `mann_whitney_less`."""
    return _mann_whitney(first, second, "greater", rng)


def mann_whitney_less(first: NDArray[Any], second: NDArray[Any], rng: np.random.Generator) -> float:
    """One-sided Mann-Whitney U: the p-value of "`first` `[n]` is not less than `second` `[m]`".

    Exact without ties. Success rates tie often; then the null distribution comes from permutations, all of them where
    they are at most 9999, else as many drawn by `rng`, so that p is at least 1e-4.
    """
    return _mann_whitney(first, second, "less", rng)


def _mann_whitney(
    first: NDArray[Any], second: NDArray[Any], alternative: Literal["less", "greater"], rng: np.random.Generator
) -> float:
    if first.ndim != 1 or second.ndim != 1 or min(first.size, second.size) < 2:
        raise ValueError(f"samples must be [n] and [m] with at least two runs, not {first.shape} and {second.shape}")
    both = np.concatenate([first, second])
    tied = len(np.unique(both)) < len(both)
    method = stats.PermutationMethod(n_resamples=9999, rng=rng) if tied else "exact"
    return float(stats.mannwhitneyu(first, second, alternative=alternative, method=method).pvalue)


def _improvement(first: NDArray[Any], second: NDArray[Any]) -> Doubles:
    """`[...]` for runs `[..., n]` and `[..., m]`."""
    ours, theirs = first[..., :, None], second[..., None, :]
    better: Doubles = ((ours > theirs) + 0.5 * (ours == theirs)).mean(axis=(-2, -1))
    return better


def _percentile_interval(value: Doubles, samples: Doubles, confidence: float) -> Interval:
    """`value` with the bounds between which that share of `samples` `[R, ...]` lies."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return Interval(value, np.asarray(low), np.asarray(high))


def _resampled_rows(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of the pooled scores, `[R, n]`: each column is redrawn from its own stratum."""
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    rows: NDArray[np.int64] = starts + rng.integers(np.repeat(sizes, sizes), size=(resamples, sum(sizes)))
    return rows
