"""The scripted teachers against a slow restatement of the paper's section 3, one query at a time."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from questions import answers, asked
from scipy import stats

from rayrlhf.config import TeacherOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.teachers import PRESETS, Parameters, ScriptedTeacher, make_teacher
from rayrlhf.teachers.scripted import judge

Rewards = np.ndarray


def restated(
    left: list[float],
    right: list[float],
    p: Parameters,
    typical_return: float,
    uniform: tuple[float, float],
    times: int,
    tired: float = 0.0,
) -> str:
    """The teacher of the paper's section 3.2 for one query: what B-Pref's `get_label` does, step by step.

    Blurred and tired ones make mistakes of those kinds, too.
    """
    threshold_skip, threshold_equal = typical_return, typical_return
    for _ in range(times):
        threshold_skip, threshold_equal = threshold_skip * p.skip, threshold_equal * p.equal
    if threshold_skip > 0 and max(math.fsum(left), math.fsum(right)) <= threshold_skip:
        return "skip"
    horizon = len(left)
    weighted = [
        math.fsum(p.gamma ** (horizon - 1 - t) * reward for t, reward in enumerate(side)) for side in (left, right)
    ]
    if p.beta > 0:
        high = max(weighted)
        exponential = [math.exp(p.beta * (value - high)) for value in weighted]
        goes_right = uniform[0] < exponential[1] / sum(exponential)
    else:
        goes_right = weighted[0] < weighted[1]
    if uniform[1] < probability_of_a_mistake(weighted, p, typical_return, tired):
        goes_right = not goes_right
    if abs(math.fsum(left) - math.fsum(right)) < threshold_equal:
        return "equal"
    return "right" if goes_right else "left"


def probability_of_a_mistake(sums: list[float], p: Parameters, typical_return: float, tired: float) -> float:
    slip = p.mistake if p.mistake > 0.5 else min(0.5, p.mistake + tired)
    seen_apart = math.sqrt(2.0) * p.blur * abs(typical_return)  # of the difference of two sums, each seen with an error
    swapped = stats.norm.sf(abs(sums[0] - sums[1]), scale=seen_apart) if seen_apart > 0 else 0.0
    return slip * (1 - swapped) + (1 - slip) * swapped


# Multiples of 1/4 have exact sums, so that ties and values on a threshold are true ones; powers of 1/2 keep them exact.
rewards = hnp.arrays(np.float32, (3, 4), elements=st.integers(-8, 8).map(lambda n: n / 4))
parameters = st.builds(
    Parameters,
    beta=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 20.0]),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
    mistake=st.sampled_from([0.0, 0.25, 1.0]),
    skip=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    equal=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    blur=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
)
uniforms = hnp.arrays(np.float64, (3, 2), elements=st.integers(0, 99).map(lambda n: (n + 0.3) / 100))


tirednesses = hnp.arrays(np.float64, 3, elements=st.sampled_from([0.0, 0.1, 0.45, 3.0]))


@given(rewards, rewards, parameters, st.integers(-8, 32).map(lambda n: n / 4), uniforms, tirednesses, st.booleans())
@settings(max_examples=400, deadline=None)
def test_judge_equals_the_paper_restated(
    left: Rewards, right: Rewards, p: Parameters, typical: float, uniform: Rewards, tired: Rewards, repeated: bool
) -> None:
    times = 2 if repeated else 1
    expected = [
        restated(left[i].tolist(), right[i].tolist(), p, typical, tuple(uniform[i]), times, tired[i]) for i in range(3)
    ]
    assert judge(left, right, p, typical, uniform, tired, repeated=repeated) == expected


def test_the_six_teachers_are_the_papers() -> None:
    ours = {"blur": 0.0, "fatigue": 0.0, "session_fatigue": 0.0}
    oracle = {"beta": -1.0, "gamma": 1.0, "mistake": 0.0, "skip": 0.0, "equal": 0.0, **ours}
    changes = {
        "oracle": {},
        "mistake": {"mistake": 0.1},
        "noisy": {"beta": 1.0},
        "skip": {"skip": 0.1},
        "myopic": {"gamma": 0.9},
        "equal": {"equal": 0.1},
    }
    assert {name: vars(preset) for name, preset in PRESETS.items()} == {
        name: oracle | change for name, change in changes.items()
    }


ONE_STEP = np.array([[0.0]]), np.array([[1.0]])


def test_the_oracle_takes_the_larger_sum_and_left_on_a_tie() -> None:
    left, right = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 0.0]]), np.array([[2.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    assert answers(asked(left, right, typical_return=100.0)) == ["right", "left", "left"]


def test_the_myopic_teacher_weighs_the_last_step_most() -> None:
    early, late = np.array([[1.05, 0.0]]), np.array([[0.0, 1.0]])
    assert answers(asked(early, late), name="oracle") == ["left"]
    assert answers(asked(early, late), name="myopic") == ["right"]


def test_a_sum_on_the_threshold_is_skipped_and_a_difference_on_it_is_not_equal() -> None:
    left, right = np.array([[1.0], [1.0], [1.125]]), np.array([[0.5], [1.25], [1.0]])
    assert answers(asked(left, right, typical_return=4.0), name="skip", skip=0.25) == ["skip", "right", "left"]
    assert answers(asked(left, right, typical_return=2.0), name="equal", equal=0.125) == ["left", "right", "equal"]


def test_equal_overrides_the_mistake_and_skip_overrides_equal() -> None:
    queries = asked(*ONE_STEP, typical_return=20.0)
    assert answers(queries, name="mistake", mistake=1.0) == ["left"]
    assert answers(queries, name="mistake", mistake=1.0, equal=0.1) == ["equal"]
    assert answers(queries, name="mistake", mistake=1.0, equal=0.1, skip=0.1) == ["skip"]


@pytest.mark.parametrize("typical_return", [0.0, -50.0])
def test_without_a_positive_typical_return_nothing_is_skipped_or_equal(typical_return: float) -> None:
    reward = np.array([[-100.0]])
    assert answers(asked(reward, reward, typical_return=typical_return), skip=0.1, equal=0.1) == ["left"]


@pytest.mark.parametrize(
    ("compatible", "session", "expected"), [(False, 1, "equal"), (True, 0, "equal"), (True, 1, "right")]
)
def test_bpref_compat_multiplies_thresholds_again_after_the_first_session(
    compatible: bool, session: int, expected: str
) -> None:
    # thresholds at eps 0.1 and a typical return of 20: 2, and 0.2 in B-Pref's later sessions
    queries = asked(*ONE_STEP, typical_return=20.0, session=session)
    assert answers(queries, name="equal", bpref_compat=compatible) == [expected]


def test_bpref_compat_spares_later_sessions_from_skipping() -> None:
    queries = asked(*ONE_STEP, typical_return=20.0, session=3)
    assert answers(queries, name="skip") == ["skip"]
    assert answers(queries, name="skip", bpref_compat=True) == ["right"]


@pytest.mark.parametrize("difference", [0.0, 0.7, -1.5])
def test_the_noisy_teacher_samples_from_bradley_terry(difference: float) -> None:
    count = 4000
    queries = asked(np.zeros((count, 1)), np.full((count, 1), difference))
    right = answers(queries, name="noisy").count("right")
    assert stats.binomtest(right, count, 1 / (1 + math.exp(-difference))).pvalue > 1e-3


def test_the_noisy_teacher_survives_huge_sums() -> None:
    assert answers(asked(np.array([[1e30], [-1e30]]), np.array([[-1e30], [1e30]])), name="noisy") == ["left", "right"]


def test_mistakes_come_at_their_rate_and_independently_of_the_noise() -> None:
    count = 4000
    queries = asked(np.zeros((count, 1)), np.full((count, 1), 0.5))
    wrong = answers(queries, name="mistake").count("left")
    assert stats.binomtest(wrong, count, 0.1).pvalue > 1e-3
    probability = 1 / (1 + math.exp(-0.5))
    flipped = answers(queries, name="noisy", mistake=0.3).count("right")
    assert stats.binomtest(flipped, count, 0.7 * probability + 0.3 * (1 - probability)).pvalue > 1e-3


@given(st.permutations(range(12)), st.integers(0, 12), st.sampled_from(["noisy", "mistake", "random"]))
@settings(max_examples=40, deadline=None)
def test_an_answer_depends_on_seed_and_query_alone(order: list[int], cut: int, name: str) -> None:
    rng = np.random.default_rng(0)
    queries = asked(rng.normal(size=(12, 3)), rng.normal(size=(12, 3)), typical_return=3.0)
    at_once = dict(zip(queries.ids, answers(queries, name=name, seed=5), strict=True))
    teacher = make_teacher(TeacherOptions(name=name), 5)
    for part in (order[:cut], order[cut:]):
        teacher.ask(queries.take(np.array(part, dtype=np.int64)))
    assert {answer.query_id: answer.choice for answer in teacher.collect()} == at_once


@pytest.mark.parametrize("name", ["noisy", "mistake", "random"])
def test_another_seed_gives_other_randomness(name: str) -> None:
    queries = asked(np.zeros((200, 1)), np.full((200, 1), 0.1))
    assert answers(queries, name=name, seed=1) != answers(queries, name=name, seed=2)


def test_a_query_is_answered_once_and_collected_once() -> None:
    queries = asked(np.zeros((3, 1)), np.ones((3, 1)))
    teacher = ScriptedTeacher(TeacherOptions(), seed=0)
    teacher.ask(queries.take(np.array([0, 1])))
    teacher.ask(queries)
    assert teacher.collect() == [Answer(key, "right", "oracle") for key in queries.ids]
    teacher.ask(queries)
    assert teacher.collect() == []


def test_options_override_the_name() -> None:
    teacher = ScriptedTeacher(TeacherOptions(name="myopic", mistake=0.2), seed=0)
    assert teacher.parameters == Parameters(gamma=0.9, mistake=0.2)


def test_the_random_teacher_is_fair_and_blind() -> None:
    queries = asked(np.zeros((2000, 1)), np.ones((2000, 1)))
    said = answers(queries, name="random")
    assert set(said) == {"left", "right"}
    assert stats.binomtest(said.count("right"), 2000, 0.5).pvalue > 1e-3


def test_the_silent_teacher_says_nothing() -> None:
    teacher = make_teacher(TeacherOptions(name="silent"), 0)
    teacher.ask(asked(*ONE_STEP))
    assert teacher.collect() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "random", "mistake": 0.1}, "teacher.mistake"),
        ({"name": "random", "fatigue": 0.1}, "teacher.fatigue"),
        ({"name": "silent", "bpref_compat": True}, "teacher.bpref_compat"),
        ({"name": "silent", "wait": True}, "for ever"),
    ],
)
def test_meaningless_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_teacher(TeacherOptions(**options), 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_without_a_true_reward_it_says_so_instead_of_left(side: str) -> None:
    queries = asked(np.ones((2, 3)), np.zeros((2, 3)))
    segments = getattr(queries, side)
    reward = segments.reward.copy()
    reward[1] = np.nan
    unknown = replace(queries, **{side: replace(segments, reward=reward)})
    with pytest.raises(UserError, match="oracle goes by the true reward, which a segment lacks"):
        make_teacher(TeacherOptions(), seed=0).ask(unknown)
