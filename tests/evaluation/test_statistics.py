"""Statistics over runs, against scipy, slow restatements and known coverage."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rayrlhf.evaluation import statistics
from rayrlhf.evaluation.statistics import (
    bootstrap_interval,
    difference_interval,
    iqm,
    mann_whitney_greater,
    mann_whitney_less,
    mean,
    performance_profile,
    probability_of_improvement,
)


@given(st.integers(1, 30), st.integers(0, 1000))
def test_iqm_equals_rliables_definition(count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(count, 3))
    np.testing.assert_allclose(iqm(scores), stats.trim_mean(scores, 0.25, axis=0))


def test_iqm_ignores_a_lucky_quarter() -> None:
    assert iqm(np.array([0.0, 0.5, 0.5, 1000.0])) == 0.5
    with pytest.raises(ValueError, match="no scores"):
        iqm(np.zeros(0))


def test_bootstrap_equals_a_slow_one_with_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    strata = [rng.normal(size=4), 10 + rng.normal(size=7)]
    found = bootstrap_interval(strata, np.random.default_rng(5), resamples=300, confidence=0.9)
    draws = np.random.default_rng(5).integers([4] * 4 + [7] * 7, size=(300, 11))
    values = []
    for row in draws:
        resample = [strata[0][i] for i in row[:4]] + [strata[1][i] for i in row[4:]]  # each task from its own runs
        values.append(stats.trim_mean(resample, 0.25))
    assert float(found.value) == pytest.approx(stats.trim_mean(np.concatenate(strata), 0.25))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])))


def test_bootstrap_agrees_with_scipys() -> None:
    scores = np.random.default_rng(1).normal(size=30)
    ours = bootstrap_interval([scores], np.random.default_rng(2), statistic=mean, resamples=9999)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_differences_between_tasks_do_not_widen_the_interval() -> None:
    far_apart = [np.full(5, 0.0), np.full(5, 100.0)]
    found = bootstrap_interval(far_apart, np.random.default_rng(0), statistic=mean)
    assert (found.value, found.low, found.high) == (50.0, 50.0, 50.0)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        found = bootstrap_interval([rng.normal(size=40)], rng, statistic=mean, confidence=0.9, resamples=200)
        covered += bool(found.low <= 0.0 <= found.high)
    assert 0.82 < covered / 300 < 0.95  # the percentile bootstrap is slightly narrow at n = 40


def test_curves_resample_whole_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = np.linspace(0, 1, 6)
    runs = np.random.default_rng(0).normal(size=(8, 1)) + curve  # each run is the curve plus its own constant
    found = bootstrap_interval([runs[:3], runs[3:]], np.random.default_rng(1), resamples=500)
    assert found.value.shape == found.low.shape == found.high.shape == (6,)
    np.testing.assert_allclose(found.high - found.low, (found.high - found.low)[0])
    monkeypatch.setattr(statistics, "SCORES_PER_BLOCK", 1000)  # in many blocks: the same numbers
    again = bootstrap_interval([runs[:3], runs[3:]], np.random.default_rng(1), resamples=500)
    np.testing.assert_array_equal(found.low, again.low)


@pytest.mark.parametrize("strata", [[], [np.zeros(0)], [np.zeros(2), np.zeros((2, 3))]])
def test_strata_without_runs_or_of_different_shapes_are_refused(strata: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="strata"):
        bootstrap_interval(strata, np.random.default_rng(0))


def test_profile_counts_runs_above_each_threshold() -> None:
    strata = [np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.9])]
    profile = performance_profile(strata, np.array([-1.0, 0.0, 0.5, 0.95, 1.0]), np.random.default_rng(0))
    assert profile.value.tolist() == pytest.approx([1.0, 0.8, 0.4, 0.2, 0.0])
    assert (profile.low <= profile.value).all() and (profile.value <= profile.high).all()
    assert (profile.low[0], profile.high[0], profile.low[-1], profile.high[-1]) == (1.0, 1.0, 0.0, 0.0)


def slow_p_greater(first: list[float], second: list[float]) -> float:
    """The definition: the part of all ways to split the pooled scores whose U is at least the one seen."""
    pooled = first + second

    def u(chosen: tuple[int, ...]) -> float:
        rest = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return sum((pooled[i] > b) + 0.5 * (pooled[i] == b) for i in chosen for b in rest)

    seen = u(tuple(range(len(first))))
    splits = list(combinations(range(len(pooled)), len(first)))
    return sum(u(split) >= seen for split in splits) / len(splits)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=5), st.lists(st.integers(0, 5), min_size=2, max_size=5))
@settings(deadline=None)
def test_mann_whitney_equals_all_permutations_with_and_without_ties(first: list[int], second: list[int]) -> None:
    a, b, rng = np.array(first, float), np.array(second, float), np.random.default_rng(0)
    assert mann_whitney_greater(a, b, rng) == pytest.approx(slow_p_greater(a.tolist(), b.tolist()))
    assert mann_whitney_less(b, a, rng) == pytest.approx(mann_whitney_greater(a, b, rng))


def test_ten_successes_against_ten_failures_are_significant() -> None:
    assert mann_whitney_greater(np.ones(10), np.zeros(10), np.random.default_rng(0)) < 0.001
    assert mann_whitney_less(np.ones(10), np.zeros(10), np.random.default_rng(0)) > 0.99
    with pytest.raises(ValueError, match="samples"):
        mann_whitney_less(np.ones(1), np.ones(3), np.random.default_rng(0))


def test_the_difference_of_two_iqms_covers_as_often_as_it_says() -> None:
    """Of samples whose true difference is known; each interval is of draws of its own."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        first, second = rng.normal(1.0, 1.0, 20), rng.normal(0.4, 2.0, 20)
        found = difference_interval([first], [second], rng, resamples=400)
        assert found.value == iqm(first) - iqm(second)
        hits += found.low <= 0.6 <= found.high
    assert 0.8 < hits / 200 < 0.96


def test_the_difference_is_stratified_by_task() -> None:
    first, second = [np.full(5, 0.0), np.full(5, 100.0)], [np.full(5, 1.0), np.full(5, 101.0)]
    found = difference_interval(first, second, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (-1.0, -1.0, -1.0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_the_probability_of_improvement_counts_pairs(first: list[int], second: list[int]) -> None:
    pairs = [(x > y) + 0.5 * (x == y) for x in first for y in second]
    assert probability_of_improvement(np.array(first), np.array(second)) == pytest.approx(sum(pairs) / len(pairs))


@given(st.integers(0, 300))
def test_the_interval_of_improvement_lies_around_its_mean_over_tasks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = ([rng.integers(0, 4, size=n).astype(float) for n in sizes] for sizes in ((3, 5), (4, 2)))
    found = statistics.improvement_interval(first, second, rng, resamples=200)
    each = [probability_of_improvement(ours, theirs) for ours, theirs in zip(first, second, strict=True)]
    assert float(found.value) == pytest.approx(np.mean(each))
    assert 0 <= float(found.low) <= float(found.high) <= 1


def test_the_interval_of_improvement_covers() -> None:
    rng = np.random.default_rng(0)
    truth = float(stats.norm.cdf(0.5 / np.sqrt(2)))  # of normals half a deviation apart
    hits = 0
    for _ in range(200):
        found = statistics.improvement_interval(
            [rng.normal(0.5, 1, 20)], [rng.normal(0, 1, 20)], rng, confidence=0.9, resamples=300
        )
        hits += bool(found.low <= truth <= found.high)
    assert 0.82 <= hits / 200 <= 0.97


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 100))
def test_two_sided_mann_whitney_equals_scipys_without_ties(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=n), rng.normal(size=m)
    expected = stats.mannwhitneyu(first, second, method="exact").pvalue
    assert statistics.mann_whitney(first, second, rng) == pytest.approx(expected)
