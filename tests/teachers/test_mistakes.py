"""Teachers that err by how close two returns are, and by how much they were asked before."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import answers, asked
from scipy import stats

from rayrlhf.config import TeacherOptions
from rayrlhf.preferences.segments import index_in_session, query_id
from rayrlhf.teachers import make_teacher
from rayrlhf.teachers.mistakes import either, misjudged, slips, tiredness

COUNT = 4000
TYPICAL = 20.0


def wrong_at(gap: float, **options: Any) -> int:
    """Wrong answers to `COUNT` questions whose right side is better by `gap`."""
    queries = asked(np.zeros((COUNT, 1)), np.full((COUNT, 1), gap), typical_return=TYPICAL)
    return answers(queries, **options).count("left")


def occurs(count: int, probability: float) -> bool:
    return bool(stats.binomtest(count, COUNT, probability).pvalue > 1e-3)


@pytest.mark.parametrize("gap", [0.5, 2.0, 6.0])
def test_a_blurred_teacher_errs_as_if_it_saw_each_return_with_an_error(gap: float) -> None:
    """Restated: two errors are drawn, and the answer is what then seems larger."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(scale=0.1 * TYPICAL, size=(2, 1_000_000))
    assert occurs(wrong_at(gap, blur=0.1), float((left > right + gap).mean()))


def test_a_blurred_teacher_errs_less_the_farther_apart_returns_are() -> None:
    counts = [wrong_at(gap, blur=0.1) for gap in (0.01, 2.0, 4.0, 20.0)]
    assert counts == sorted(counts, reverse=True)
    assert occurs(counts[0], 0.5 - 0.01 / (0.2 * TYPICAL * math.sqrt(math.pi)))
    assert counts[-1] == 0


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_blur_has_the_task_s_own_unit(scale: float) -> None:
    """A task whose rewards are scaled is judged the same."""
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(2, 300, 3))
    first = asked(left, right, typical_return=TYPICAL)
    second = asked(left * scale, right * scale, typical_return=TYPICAL * scale)
    assert answers(first, blur=0.05) == answers(second, blur=0.05)


def test_without_an_episode_nothing_is_blurred_and_negative_returns_have_a_unit_too() -> None:
    gap = np.array([0.0, 1.0, 5.0])
    assert misjudged(gap, 0.0, 0.5).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(misjudged(gap, -TYPICAL, 0.1), misjudged(gap, TYPICAL, 0.1))
    assert misjudged(gap, TYPICAL, 0.1)[0] == 0.5


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_mistakes_undo_each_other(one: float, other: float) -> None:
    [found] = either(np.array([one]), np.array([other]))
    assert found == pytest.approx(one * (1 - other) + other * (1 - one), abs=1e-12)


@given(st.floats(0, 1), st.lists(st.floats(0, 3), min_size=2, max_size=6))
def test_tiredness_never_helps_and_leaves_chance(mistake: float, tired: list[float]) -> None:
    found = slips(mistake, np.array(sorted(tired)))
    assert (found >= mistake).all() and (np.diff(found) >= 0).all()
    assert (found <= max(mistake, 0.5)).all()


@given(st.from_regex(r"[a-z/~-]{1,12}", fullmatch=True), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_index_in_an_id_is_the_one_that_it_was_made_with(run: str, session: int, index: int) -> None:
    assert index_in_session(query_id(run, session, index)) == index


def test_tiredness_grows_with_questions_and_with_sessions() -> None:
    ids = [query_id("run", 3, index) for index in (0, 7)]
    np.testing.assert_allclose(tiredness(ids, 3, 0.01, 0.0), [0.0, 0.07])
    np.testing.assert_allclose(tiredness(ids, 3, 0.0, 0.02), [0.06, 0.06])
    np.testing.assert_allclose(tiredness(ids, 3, 0.01, 0.02), [0.06, 0.13])


def test_mistakes_of_the_tired_come_at_their_rate() -> None:
    sure = np.zeros((COUNT, 1)), np.ones((COUNT, 1))
    said = answers(asked(*sure), fatigue=1e-4)
    assert occurs(said.count("left"), float(np.minimum(0.5, 1e-4 * np.arange(COUNT)).mean()))
    later = answers(asked(*sure, session=10), fatigue=0.0, session_fatigue=0.02, name="mistake")
    assert occurs(later.count("left"), 0.1 + 0.2)


def test_equal_overrides_the_mistakes_of_the_tired_and_the_blurred() -> None:
    queries = asked(np.zeros((50, 1)), np.ones((50, 1)), typical_return=TYPICAL, session=9)
    assert set(answers(queries, equal=0.1, blur=1.0, fatigue=1.0, session_fatigue=1.0)) == {"equal"}


@given(st.permutations(range(12)), st.integers(0, 12))
def test_who_is_asked_again_is_as_tired_as_before(order: list[int], cut: int) -> None:
    """Whatever was asked together, in which order, and of which teacher of which process."""
    rng = np.random.default_rng(0)
    queries = asked(rng.normal(size=(12, 3)), rng.normal(size=(12, 3)), typical_return=3.0, session=2)
    options = TeacherOptions(fatigue=0.05, session_fatigue=0.05, blur=0.3)
    at_once, in_parts = make_teacher(options, 5), make_teacher(options, 5)
    at_once.ask(queries)
    for part in (order[:cut], order[cut:]):
        in_parts.ask(queries.take(np.array(part, dtype=np.int64)))
    assert {one.query_id: one.choice for one in in_parts.collect()} == {
        one.query_id: one.choice for one in at_once.collect()
    }
