"""The trajectory store: what it holds does not depend on how experience was cut, and segments are uniform."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.preferences.segments import Segments
from rayrlhf.preferences.trajectories import TrajectoryStore

OBS, ACTION = 3, 2


def experience(lengths: list[list[int]], steps: int, *, seed: int = 0) -> Fragment:
    """`steps` steps of `len(lengths)` environments, whose episodes have the given lengths, the last one endless."""
    rng = np.random.default_rng(seed)
    envs = len(lengths)
    episode, step = np.zeros((steps, envs), np.int64), np.zeros((steps, envs), np.int64)
    truncated = np.zeros((steps, envs), bool)
    for env, wanted in enumerate(lengths):
        ends = np.cumsum(wanted, dtype=np.int64)
        index = np.searchsorted(ends, np.arange(steps), side="right")
        begins = np.concatenate([[0], ends])
        episode[:, env], step[:, env] = env * 1000 + index, np.arange(steps) - begins[index]
        truncated[ends[ends <= steps] - 1, env] = True
    terminated = truncated & (rng.random((steps, envs)) < 0.5)
    return Fragment(
        obs=rng.normal(size=(steps, envs, OBS)).astype(np.float32),
        action=rng.uniform(-1, 1, size=(steps, envs, ACTION)).astype(np.float32),
        next_obs=np.zeros((steps, envs, OBS), np.float32),
        reward=rng.normal(size=(steps, envs)).astype(np.float32),
        terminated=terminated,
        truncated=truncated & ~terminated,
        success=rng.random((steps, envs)) < 0.3,
        episode=episode,
        step=step,
    )


COLUMNS = [field.name for field in fields(Fragment) if field.default is not None]
"""Those that every fragment has."""


def cut(fragment: Fragment, begin: int, end: int) -> Fragment:
    return Fragment(*(getattr(fragment, name)[begin:end] for name in COLUMNS))


def store_of(*parts: Fragment, capacity: int = 100) -> TrajectoryStore:
    store = TrajectoryStore(capacity, obs_dim=OBS, action_dim=ACTION)
    for part in parts:
        store.add(part)
    return store


def assert_equal_states(one: TrajectoryStore, other: TrajectoryStore) -> None:
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def assert_true_segments(segments: Segments, fragment: Fragment) -> None:
    """Each segment is, value for value, what one environment did from `start` on in `episode`."""
    for i in range(len(segments)):
        where = np.argwhere((fragment.episode == segments.episode[i]) & (fragment.step == segments.start[i]))
        assert len(where) == 1
        begin, env = where[0]
        span = slice(begin, begin + segments.length)
        assert (fragment.episode[span, env] == segments.episode[i]).all(), "the segment crosses an episode's border"
        for name in ("obs", "action", "reward", "success"):
            np.testing.assert_array_equal(getattr(segments, name)[i], getattr(fragment, name)[span, env])


episodes = st.lists(st.lists(st.integers(1, 12), min_size=0, max_size=6), min_size=1, max_size=4)


@given(episodes, st.integers(1, 40), st.lists(st.integers(0, 40), max_size=8), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_the_store_does_not_depend_on_the_cuts(
    lengths: list[list[int]], steps: int, cuts: list[int], capacity: int
) -> None:
    whole = experience(lengths, steps)
    borders = sorted({0, steps, *(c for c in cuts if c < steps)})
    parts = [cut(whole, begin, end) for begin, end in pairwise(borders)]
    assert_equal_states(store_of(*parts, capacity=capacity), store_of(whole, capacity=capacity))


@given(episodes, st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_segments_are_real_and_cross_no_border(lengths: list[list[int]], steps: int, length: int, seed: int) -> None:
    whole = experience(lengths, steps)
    store = store_of(whole)
    _, sizes = np.unique(whole.episode, return_counts=True)
    assert store.legal_starts(length) == sum(max(0, size - length + 1) for size in sizes)
    if store.legal_starts(length) == 0:
        with pytest.raises(UserError, match="segment_length"):
            store.sample_segments(1, length, np.random.default_rng(seed))
        return
    segments = store.sample_segments(20, length, np.random.default_rng(seed))
    assert (len(segments), segments.length, segments.margin) == (20, length, 0)
    assert_true_segments(segments, whole)
    wide = store.sample_segments(20, length, np.random.default_rng(seed), margin=3)
    assert (wide.start == segments.start).all() and (wide.obs == segments.obs).all(), "the same are asked about"
    assert wide.context is not None and wide.context.shape == (20, 6, 5)
    rows = np.concatenate([whole.obs, whole.action], axis=2)
    for i, (episode, start) in enumerate(zip(wide.episode, wide.start, strict=True)):
        steps_around = [*range(start - 3, start), *range(start + length, start + length + 3)]
        for place, step in enumerate(steps_around):
            here = (whole.episode == episode) & (whole.step == step)
            wanted = rows[here][0] if here.any() else np.full(5, np.nan)
            np.testing.assert_array_equal(wide.context[i, place], wanted)


def test_the_table_is_all_steps_episode_after_episode() -> None:
    whole = experience([[5, 4], [9]], 9)
    rows, lengths = store_of(whole).table()
    assert sorted(lengths.tolist()) == [4, 5, 9] and len(rows) == 18
    first = np.flatnonzero(lengths == 9)[0]
    begin = int(lengths[:first].sum())
    np.testing.assert_array_equal(rows[begin : begin + 9], np.concatenate([whole.obs, whole.action], axis=2)[:, 1])


def test_starts_are_uniform_and_the_last_one_is_drawn() -> None:
    whole = experience([[9, 6], [4, 5, 11]], 20)
    segments = store_of(whole).sample_segments(9000, 4, np.random.default_rng(1))
    counts: dict[tuple[int, int], int] = {}
    for key in zip(segments.episode.tolist(), segments.start.tolist(), strict=True):
        counts[key] = counts.get(key, 0) + 1
    _, sizes = np.unique(whole.episode, return_counts=True)
    assert len(counts) == sum(max(0, size - 3) for size in sizes), "some legal start was never drawn"
    assert (0, 5) in counts, "the last legal start of a nine-step episode"
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_the_oldest_ended_episodes_are_dropped_and_running_ones_stay() -> None:
    whole = experience([[5, 5, 5, 5], [20]], 19)
    store = store_of(whole, capacity=2)
    assert store.num_episodes == 4  # two ended, two running
    drawn = store.sample_segments(200, 4, np.random.default_rng(0)).episode
    assert set(drawn.tolist()) == {1, 2, 3, 1000}


def test_buffers_are_used_again() -> None:
    """The store's memory stops growing once it is full, and old rows do not shine through."""
    long = experience([[150] * 40], 6000)
    store = store_of(*(cut(long, i, i + 50) for i in range(0, 6000, 50)), capacity=3)
    tail = experience([[150] * 40], 6000)
    assert_true_segments(store.sample_segments(50, 50, np.random.default_rng(0)), tail)
    buffers = [part.rows for part in store._parts()] + store._spare
    assert len(buffers) <= 5
    assert sum(len(rows) for rows in buffers) <= 5 * 256


def test_a_lost_fragment_splits_an_episode() -> None:
    whole = experience([[30]], 30)
    store = store_of(cut(whole, 0, 10), cut(whole, 20, 30))
    assert store.legal_starts(10) == 2
    assert_true_segments(store.sample_segments(30, 6, np.random.default_rng(0)), whole)
    assert store.recent_returns() == [], "the return of an episode with a hole is unknown"


def test_an_environment_that_was_replaced_leaves_its_episode_unfinished() -> None:
    one, other = experience([[30]], 5), experience([[], [3]], 6, seed=1)
    other = Fragment(*(getattr(other, name)[:, 1:] for name in COLUMNS))
    joined = Fragment(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in COLUMNS))
    store = store_of(joined)
    assert store.recent_lengths() == [3]
    assert store.state()["running"].tolist() == [0, 0, 1]


def test_returns_of_the_newest_episodes_newest_last() -> None:
    whole = experience([[4] * 12 + [2]], 50)
    store = store_of(whole)
    sums = [whole.reward[whole.episode == i].sum(dtype=np.float64) for i in range(13)]
    np.testing.assert_allclose(store.recent_returns(10), sums[-10:], rtol=1e-12)
    np.testing.assert_allclose(store.recent_returns(3), sums[-3:], rtol=1e-12)
    assert store.recent_lengths(3) == [4, 4, 2]


def test_typical_return_is_bprefs_for_episodes_of_one_length() -> None:
    whole = experience([[20] * 12], 240)
    sums = [whole.reward[whole.episode == i].sum(dtype=np.float64) for i in range(2, 12)]
    assert store_of(whole).typical_return(5) == pytest.approx(np.mean(sums) * 5 / 20)
    assert store_of(cut(whole, 0, 10)).typical_return(5) == 0.0


@given(episodes, st.integers(1, 40), st.integers(0, 40), st.booleans())
@settings(max_examples=80, deadline=None)
def test_state_round_trip_is_exact_and_goes_on_alike(
    lengths: list[list[int]], steps: int, at: int, close: bool
) -> None:
    whole, at = experience(lengths, steps), min(at, steps)
    original = store_of(cut(whole, 0, at), capacity=4)
    if close:
        original.close_open_episodes()
    copy = TrajectoryStore(4, obs_dim=OBS, action_dim=ACTION)
    copy.add(whole)
    copy.load_state(original.state())
    assert_equal_states(original, copy)
    for store in (original, copy):
        store.add(cut(whole, at, steps))
    assert_equal_states(original, copy)
    one, other = (store.sample_segments(9, 1, np.random.default_rng(3)) for store in (original, copy))
    for field in fields(Segments):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_smaller_store_keeps_the_newest_of_a_state() -> None:
    store = TrajectoryStore(2, obs_dim=OBS, action_dim=ACTION)
    store.load_state(store_of(experience([[5] * 6], 30)).state())
    assert store.state()["episode"].tolist() == [4, 5]


def test_closing_open_episodes_keeps_their_segments() -> None:
    whole = experience([[30], [30]], 20)
    store = store_of(cut(whole, 0, 10))
    store.close_open_episodes()
    store.add(cut(whole, 10, 20))
    assert store.legal_starts(10) == 4
    assert store.legal_starts(11) == 0


def test_state_of_another_environment_is_refused() -> None:
    with pytest.raises(UserError, match="environment"):
        TrajectoryStore(2, obs_dim=OBS + 1, action_dim=ACTION).load_state(store_of().state())


def test_fragment_of_another_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="widths"):
        TrajectoryStore(2, obs_dim=OBS + 1, action_dim=ACTION).add(experience([[]], 3))


@given(episodes, st.integers(5, 40), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_any_stretch_of_an_episode_is_found_again(lengths: list[list[int]], steps: int, length: int) -> None:
    fragment = experience(lengths, steps)
    store = store_of(fragment)
    if store.legal_starts(length):
        segments = store.sample_segments(20, length, np.random.default_rng(0))
        for i in range(20):
            found = store.observed(int(segments.episode[i]), int(segments.start[i]), length)
            np.testing.assert_array_equal(found, segments.obs[i])
    assert store.observed(999, 0, length) is None, "no such episode"
    assert store.observed(0, steps - length + 1, length) is None, "not all of it is stored"
    assert TrajectoryStore.obs_dim_of(store.state(), ACTION) == OBS
