"""Teachers that take their time: no question is lost, whatever answering meets."""

import logging
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import asked

from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers import AsynchronousTeacher

SECONDS = 60.0


class Told(AsynchronousTeacher):
    """Does as it is told for each question."""

    def __init__(self, say: Callable[[str], Choice], **options: float) -> None:
        super().__init__("told", first_rest=0.0, **options)  # type: ignore[arg-type]
        self._say = say
        self.told: Counter[str] = Counter()

    def answer(self, query: Queries) -> Choice:
        assert len(query) == 1
        self.told[query.ids[0]] += 1
        return self._say(query.ids[0])


def queries(count: int) -> Queries:
    return asked(np.zeros((count, 1)), np.ones((count, 1)))


def collected(teacher: AsynchronousTeacher, count: int) -> list[Answer]:
    """All that it says, once there are `count` answers, and in a moment after that."""
    found: list[Answer] = []
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.01)):
        found += teacher.collect()
        if len(found) >= count:
            pause.wait(0.02)
            return found + teacher.collect()
        pause.wait(0.01)
    pytest.fail(f"{len(found)} of {count} answers came")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=30)
def test_each_question_is_answered_once_however_often_it_fails(failures: list[int], at_once: int) -> None:
    asked_for = queries(len(failures))
    left = dict(zip(asked_for.ids, failures, strict=True))

    def say(key: str) -> Choice:
        left[key] -= 1
        if left[key] >= 0:
            raise OSError("no route to host")
        return "right"

    teacher = Told(say, at_once=at_once)
    teacher.ask(asked_for)
    found = collected(teacher, len(failures))
    teacher.close()
    assert sorted(found, key=lambda one: one.query_id) == [Answer(key, "right", "told") for key in asked_for.ids]
    assert [teacher.told[key] for key in asked_for.ids] == [count + 1 for count in failures]


def test_what_is_no_choice_is_asked_again() -> None:
    replies = iter(["maybe", None, "skip"])
    teacher = Told(lambda _: next(replies))  # type: ignore[arg-type, return-value]
    teacher.ask(queries(1))
    assert [one.choice for one in collected(teacher, 1)] == ["skip"]
    teacher.close()


def test_asking_and_collecting_wait_for_nobody_and_as_many_are_under_way_as_allowed() -> None:
    """The barrier opens only if three answers are under way at once."""
    barrier, going, lock, most = threading.Barrier(3), 0, threading.Lock(), 0
    may_begin = threading.Event()

    def say(key: str) -> Choice:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        may_begin.wait(SECONDS)
        barrier.wait(SECONDS)
        with lock:
            going -= 1
        return "left"

    teacher = Told(say, at_once=3)
    teacher.ask(queries(9))
    assert teacher.collect() == [], "nobody can have answered"
    may_begin.set()
    assert len(collected(teacher, 9)) == 9
    assert most == 3
    teacher.close()


def test_a_question_in_hand_is_not_asked_twice_and_one_that_was_handed_out_is_said_again() -> None:
    may_answer = threading.Event()

    def say(key: str) -> Choice:
        may_answer.wait(SECONDS)
        return "equal"

    teacher = Told(say)
    for part in ([0], [0, 1], [1, 2]):
        teacher.ask(queries(3).take(np.array(part)))
    may_answer.set()
    assert len(collected(teacher, 3)) == 3
    assert set(teacher.told.values()) == {1}
    teacher.ask(queries(1))  # the caller may have lost it
    assert len(collected(teacher, 1)) == 1
    teacher.close()


def test_answers_come_in_the_order_of_their_ids() -> None:
    first = queries(6).ids[0]
    others = threading.Semaphore(0)

    def say(key: str) -> Choice:
        if key == first:
            assert all(others.acquire(timeout=SECONDS) for _ in range(5))
        else:
            others.release()
        return "left"

    teacher = Told(say, at_once=6)
    teacher.ask(queries(6))
    while len(teacher._said) < 6:
        threading.Event().wait(0.01)
    assert [one.query_id for one in teacher.collect()] == list(queries(6).ids)
    teacher.close()


def test_one_line_says_that_answers_fail(caplog: pytest.LogCaptureFixture) -> None:
    replies = iter(range(40))

    def say(key: str) -> Choice:
        if next(replies) < 30:
            raise OSError("the service is away\nfor ever")
        return "left"

    teacher = Told(say, at_once=2)
    with caplog.at_level(logging.WARNING, "rayrlhf"):
        teacher.ask(queries(4))
        assert len(collected(teacher, 4)) == 4
    teacher.close()
    [record] = caplog.records
    assert record.getMessage() == (
        "told could not answer: OSError: the service is away; training goes on, and it is asked again"
    )


def test_a_closed_teacher_leaves_no_thread_and_asks_nobody_any_more() -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def say(key: str) -> Choice:
        under_way.set()
        go_on.wait(SECONDS)
        raise OSError("hung up")

    teacher = Told(say, at_once=1)
    teacher.ask(queries(5))
    under_way.wait(SECONDS)
    threading.Timer(0.1, go_on.set).start()
    teacher.close()
    assert not any(thread.is_alive() for thread in teacher._threads)
    assert sum(teacher.told.values()) == 1 and teacher.collect() == []
    teacher.ask(queries(5))
    assert len(teacher._threads) == 1
