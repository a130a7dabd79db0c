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


def both_orders(said: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([said, 1 - said]), np.concatenate([target, 1 - target])


def test_bins_equal_scikit_learns_of_both_orders() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=500)
    target = (rng.uniform(size=500) < said**2).astype(float)
    mirrored, wanted = both_orders(said, target)
    observed, predicted = calibration_curve(wanted, mirrored, n_bins=10)
    found = calibration(said, target)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.count.sum() == 2 * found.pairs == 1000


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
    both = list(zip(*both_orders(said, target), strict=True))
    assert found.expected_error == pytest.approx(slow_error(both, bins), abs=1e-12)
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


def test_which_side_is_listed_first_has_no_say() -> None:
    """A calibrated model of pairs whose preferred side is always the left one: seven in ten are right at 0.7."""
    rng = np.random.default_rng(0)
    said = rng.uniform(0.01, 0.99, 20_000)
    target = (rng.uniform(size=20_000) < said).astype(float)
    mixed = calibration(said, target)
    first = calibration(np.where(target == 1, 1 - said, said), np.zeros(20_000))
    assert mixed.expected_error < 0.01
    for name in ("expected_error", "brier", "log_likelihood"):
        assert getattr(first, name) == pytest.approx(getattr(mixed, name), abs=1e-9)


def test_too_sure_is_seen() -> None:
    said = np.array([0.9] * 10 + [0.1] * 10)
    target = np.array([1.0] * 7 + [0.0] * 3 + [0.0] * 7 + [1.0] * 3)
    assert calibration(said, target).expected_error == pytest.approx(0.2)


def test_a_certain_mistake_has_a_finite_likelihood() -> None:
    assert math.isfinite(calibration(np.array([0.0]), np.array([1.0])).log_likelihood)


@pytest.mark.parametrize(
    ("said", "target"), [([], []), ([0.5], [0.5, 0.5]), ([1.1], [1.0]), ([0.5], [-0.1]), ([float("nan")], [1.0])]
)
def test_what_is_no_probability_is_refused(said: list[float], target: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[N\]|outside"):
        calibration(np.array(said), np.array(target))
