"""Calibration against scikit-learn and slow restatements."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from rayrlhf.evaluation.calibration import calibration

PROBABILITIES = st.floats(0, 1, width=32)
TARGETS = st.sampled_from([0.0, 1 / 3, 0.5, 1.0])


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=2, max_size=80))
def test_of_hard_targets_equals_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    said, target = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    found = calibration(said, target)
    assert found.brier == pytest.approx(brier_score_loss(target, said), abs=1e-12)
    assert found.log_likelihood == pytest.approx(log_loss(target, said, labels=[0, 1]), abs=1e-9)


def test_bins_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=500)
    target = (rng.uniform(size=500) < said**2).astype(float)
    observed, predicted = calibration_curve(target, said, n_bins=10)
    found = calibration(said, target)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.count.sum() == found.pairs == 500


def slow_error(pairs: list[tuple[float, float]], bins: int) -> float:
    total = 0.0
    for k in range(bins):
        inside = [p for p in pairs if sum(p[0] >= edge for edge in np.linspace(0, 1, bins + 1)[1:-1]) == k]
        if inside:
            gap = math.fsum(p[0] for p in inside) / len(inside) - math.fsum(p[1] for p in inside) / len(inside)
            total += len(inside) / len(pairs) * abs(gap)
    return total


@given(st.lists(st.tuples(PROBABILITIES, TARGETS), min_size=1, max_size=40), st.integers(1, 12))
def test_soft_targets_equal_the_slow_restatement(pairs: list[tuple[float, float]], bins: int) -> None:
    said, target = (np.array(column) for column in zip(*pairs, strict=True))
    found = calibration(said, target, bins=bins)
    assert found.expected_error == pytest.approx(slow_error(pairs, bins), abs=1e-12)
    assert found.brier == pytest.approx(math.fsum((p - t) ** 2 for p, t in pairs) / len(pairs), abs=1e-12)
    sure = [(min(max(p, 1e-12), 1.0), min(max(1 - p, 1e-12), 1.0), t) for p, t in pairs]
    likelihood = math.fsum(t * math.log(right) + (1 - t) * math.log(left) for right, left, t in sure)
    assert found.log_likelihood == pytest.approx(-likelihood / len(pairs), abs=1e-9)


def test_a_coin_is_calibrated_and_says_nothing() -> None:
    found = calibration(np.full(4, 0.5), np.array([0.0, 1.0, 0.5, 0.5]))
    assert found.expected_error == 0
    assert found.brier == pytest.approx(0.125)
    assert found.log_likelihood == pytest.approx(math.log(2))
    assert found.row()["bins"]["predicted"] == [None] * 5 + [0.5] + [None] * 4


def test_favouring_one_side_is_seen() -> None:
    # by the confidence in the preferred side these two would cancel: it is 0.8 everywhere, and right in 16 of 20
    said = np.array([0.8] * 10 + [0.2] * 10)
    target = np.array([1.0] * 10 + [1.0] * 4 + [0.0] * 6)
    assert calibration(said, target).expected_error == pytest.approx(0.2)


def test_a_certain_mistake_has_a_finite_likelihood() -> None:
    assert math.isfinite(calibration(np.array([0.0]), np.array([1.0])).log_likelihood)


@pytest.mark.parametrize(
    ("said", "target"), [([], []), ([0.5], [0.5, 0.5]), ([1.1], [1.0]), ([0.5], [-0.1]), ([float("nan")], [1.0])]
)
def test_what_is_no_probability_is_refused(said: list[float], target: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[N\]|outside"):
        calibration(np.array(said), np.array(target))
