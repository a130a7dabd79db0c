"""Whether a reward model's probabilities mean what they say: of pairs at 0.7, seven in ten should prefer the right.

Targets may be soft: equal is 0.5, and of several annotators who differ the label is their mean. Each pair counts in
both orders, as P(right) and as its complement: which one was on the right is an accident, or nothing at all where a
dataset lists the preferred one first, and of targets that are all equal the observed share of a bin says nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.preferences.fragments import Integers

Doubles = NDArray[np.float64]
BINS = 10
LEAST_PROBABILITY = 1e-12
"""A certain model that is wrong would have an infinite likelihood."""


@dataclass(frozen=True)
class Calibration:
    """How far P(right) agrees with the targets of `N` pairs. Each score is a mean over pairs, 0 the best.

    expected_error: the distance of predicted from observed, bin by bin, weighted by the pairs in each
    brier:          squared distance (Brier 1950, for two classes, of the one: 0.25 is a coin's)
    log_likelihood: negative, in nats: ln 2 is a coin's. Soft targets have an entropy of their own, so 0 is not reached
    edges:          `[K + 1]` of the bins, from 0 to 1
    count:          `[K]` pairs in each bin; they are `2 N`, each of them in both orders
    predicted:      `[K]` mean P(right) of each bin; NaN where it is empty
    observed:       `[K]` mean target of each bin; NaN where it is empty
    """

    pairs: int
    expected_error: float
    brier: float
    log_likelihood: float
    edges: Doubles
    count: Integers
    predicted: Doubles
    observed: Doubles

    def row(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON; empty bins are none."""
        return {
            "pairs": self.pairs,
            "expected_calibration_error": self.expected_error,
            "brier_score": self.brier,
            "negative_log_likelihood": self.log_likelihood,
            "bins": {
                "edges": self.edges.tolist(),
                "count": self.count.tolist(),
                "predicted": [None if np.isnan(x) else x for x in self.predicted.tolist()],
                "observed": [None if np.isnan(x) else x for x in self.observed.tolist()],
            },
        }


def calibration(probability: NDArray[Any], target: NDArray[Any], *, bins: int = BINS) -> Calibration:
    """Reliability bins, expected calibration error, Brier score and log-likelihood of P(right).

    Bins are of equal width and closed below, the last one on both sides. Sources: Niculescu-Mizil and Caruana 2005 (the
    reliability diagram); Naeini et al. 2015 and Guo et al. 2017, arXiv 1706.04599, equation 3, for the error. Both
    orders of a pair count, which hides nothing: a model of rewards cannot favour a side. Brier score and likelihood
    are what they are of one order. With few pairs the error is biased upwards: a bin's mean target scatters by up
    to 0.5 over the square root of its pairs, even of a perfect model.

    Args:
        probability: `[N]` the model's P(right), in [0, 1].
        target: `[N]` P(right) of the labels, in [0, 1]; equal is 0.5.
        bins: how many.

    Raises:
        ValueError: there are no pairs, shapes differ, or a number lies outside [0, 1].
    """
    if probability.ndim != 1 or probability.shape != target.shape or not len(target):
        raise ValueError(f"probability {probability.shape} and target {target.shape} must both be [N], N above 0")
    said, wanted = probability.astype(np.float64), target.astype(np.float64)
    if not all(((column >= 0) & (column <= 1)).all() for column in (said, wanted)):
        raise ValueError("a probability lies outside [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    both = [np.concatenate([column, 1.0 - column]) for column in (said, wanted)]  # [N] -> [2 N]
    place = np.searchsorted(edges[1:-1], both[0], side="right")
    count = np.bincount(place, minlength=bins)
    predicted, observed = (_means(column, place, count) for column in both)
    return Calibration(
        pairs=len(said),
        expected_error=float(np.nansum(count * np.abs(predicted - observed)) / count.sum()),
        brier=float(np.square(said - wanted).mean()),
        log_likelihood=_negative_log_likelihood(said, wanted),
        edges=edges,
        count=count,
        predicted=predicted,
        observed=observed,
    )


def _means(values: Doubles, place: Integers, count: Integers) -> Doubles:
    """Of `values` `[N]` in each bin `[K]`."""
    sums = np.bincount(place, weights=values, minlength=len(count))
    means: Doubles = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return means


def _negative_log_likelihood(said: Doubles, wanted: Doubles) -> float:
    right, left = (np.log(np.clip(side, LEAST_PROBABILITY, 1.0)) for side in (said, 1.0 - said))
    return float(-(wanted * right + (1.0 - wanted) * left).mean())
