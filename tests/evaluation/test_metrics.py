"""Episode results, their summary and reward alignment, against slow restatements and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rayrlhf.evaluation.metrics import (
    EpisodeResult,
    action_change,
    alignment,
    pair_accuracy,
    summarize,
    wilson_interval,
)


def episode(success: list[int], reward: list[float], action: list[list[float]]) -> EpisodeResult:
    return EpisodeResult.from_steps(np.array(reward), np.array(success, bool), np.array(action))


def test_summary_of_three_episodes() -> None:
    result = EpisodeResult.concatenate(
        [
            episode([0, 0, 1, 0], [1, 2, 3, 4], [[0.0, 0.0]] * 4),  # first success after three steps, lost again
            episode([1, 1, 1], [0.5, 0.5, 0.5], [[0.0, 1.0], [0.0, -1.0], [0.0, 1.0]]),  # changes 4 and 0: mean 2
            episode([0, 0], [-1, -1], [[0.5, 0.5], [0.0, 0.5]]),  # changes 1/4 and 0: mean 1/8
        ]
    )
    summary = summarize(result)
    assert result.length.tolist() == [4, 3, 2]
    assert result.smoothness.tolist() == [0.0, 2.0, 0.125]
    assert summary.episodes == 3
    assert summary.success_rate == pytest.approx(2 / 3)
    assert summary.true_return_mean == pytest.approx((10 + 1.5 - 2) / 3)
    assert summary.true_return_std == pytest.approx(np.std([10, 1.5, -2]))
    assert summary.time_to_success_mean == 2.0  # (3 + 1) / 2
    assert summary.smoothness_mean == pytest.approx(2.125 / 3)


def test_without_success_there_is_no_time_to_it() -> None:
    summary = summarize(episode([0, 0], [1, 1], [[0.0], [0.0]]))
    assert (summary.success_rate, summary.success_low, summary.time_to_success_mean) == (0.0, 0.0, None)


def test_no_episodes_and_contradictory_columns_are_refused() -> None:
    one = episode([1], [1], [[0.0]])
    with pytest.raises(ValueError, match="no evaluation episodes"):
        summarize(EpisodeResult(*(getattr(one, name)[:0] for name in EpisodeResult.__dataclass_fields__)))
    with pytest.raises(ValueError, match="exactly if it succeeded"):
        EpisodeResult(np.array([False]), one.true_return, one.length, one.time_to_success, one.smoothness)


def test_independent_uniform_actions_change_by_two_thirds() -> None:
    action = np.random.default_rng(0).uniform(-1, 1, (20_000, 3)).astype(np.float32)
    assert action_change(action) == pytest.approx(2 / 3, abs=0.02)
    assert action_change(action[:1]) == 0.0


@given(st.integers(1, 400), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_interval_equals_scipys(trials: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, trials))
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(successes, trials, confidence=confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def slow_accuracy(true: list[int], predicted: list[int]) -> float | None:
    points = [
        0.5 if predicted[i] == predicted[j] else float((true[i] < true[j]) == (predicted[i] < predicted[j]))
        for i in range(len(true))
        for j in range(i)
        if true[i] != true[j]
    ]
    return sum(points) / len(points) if points else None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
@settings(deadline=None)
def test_pair_accuracy_of_few_values_compares_every_pair(values: list[tuple[int, int]]) -> None:
    true, predicted = [t for t, _ in values], [p for _, p in values]
    got = pair_accuracy(np.array(true, float), np.array(predicted, float), np.random.default_rng(0))
    assert got == pytest.approx(slow_accuracy(true, predicted))


def test_pair_accuracy_of_many_values_estimates_that_of_every_pair() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=400)
    predicted = true + rng.normal(size=400)
    exact = pair_accuracy(true, predicted, rng, pairs=400 * 399 // 2)
    assert exact is not None
    drawn = pair_accuracy(true, predicted, rng, pairs=20_000)
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 20_000))
    assert pair_accuracy(true, true, rng, pairs=1000) == 1.0
    assert pair_accuracy(true, -true, rng, pairs=1000) == 0.0


def test_drawn_pairs_never_compare_a_value_with_itself() -> None:
    # equal predictions count half and equal truths are left out: only pairs of one value with itself could change this
    true = np.array([0.0, 1.0])
    assert pair_accuracy(true, true, np.random.default_rng(0), pairs=0) is None
    three = np.array([0.0, 1.0, 2.0])
    assert pair_accuracy(three, three, np.random.default_rng(0), pairs=2) == 1.0


def test_alignment_equals_scipy_and_ignores_scale() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=200)
    predicted = np.exp(3 * true)
    found = alignment(true, predicted, rng)
    assert found.pair_accuracy == 1.0
    assert found.spearman == pytest.approx(1.0)
    assert found.pearson == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    moved = alignment(5 * true + 1, predicted / 7 - 3, rng)
    assert (moved.pearson, moved.spearman) == pytest.approx((found.pearson, found.spearman))


def test_constant_values_have_no_alignment() -> None:
    rng, ramp = np.random.default_rng(0), np.arange(5.0)
    nothing = alignment(np.ones(5), ramp, rng)
    assert (nothing.pair_accuracy, nothing.pearson, nothing.spearman) == (None, None, None)
    blind = alignment(ramp, np.ones(5), rng)
    assert (blind.pair_accuracy, blind.pearson, blind.spearman) == (0.5, None, None)
    assert alignment(ramp[:0], ramp[:0], rng).pair_accuracy is None
