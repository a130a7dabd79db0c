"""People as the teacher: through a real queue over HTTP."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from queue_server import Server

from rayrlhf.config import QueueOptions
from rayrlhf.errors import SessionError
from rayrlhf.preferences.answers import Answer, labels_from
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.store import Accounts, Database, Run
from rayrlhf.teachers.human import HumanTeacher

CLIP = "0123456789abcdef" * 2 + ".mp4"


def queries(count: int, session: int = 0) -> Queries:
    def side() -> Segments:
        flat = np.zeros((count, 4), np.float32)
        wide = np.zeros((count, 4, 2), np.float32)
        number = np.arange(count)
        return Segments(wide, wide, flat, flat > 0, number, number)

    return Queries(tuple(f"run/{session:05d}/{i:05d}" for i in range(count)), session, side(), side())


def teacher_of(server: Server, patience: float = 5.0, **options: object) -> HumanTeacher:
    """Of a run whose clips are made at once."""
    run = Run("run", "drawer-open", "open it", options=QueueOptions(settle_seconds=0.0, **options))
    client = server.client("trainer", patience=patience)
    return HumanTeacher(client, run, lambda ids: [client.clips_made("run", key, CLIP, CLIP) for key in ids])


def put(teacher: HumanTeacher, asked: Queries) -> None:
    teacher.ask(asked)
    teacher.exchange()


def collect(teacher: HumanTeacher) -> list[Answer]:
    teacher.exchange()
    return teacher.collect()


def say(client: QueueClient, choice: str, count: int) -> None:
    for lease in client.lease("run", count):
        client.answer(lease.lease, choice)  # type: ignore[arg-type]


def test_answers_come_once_whenever_people_give_them(server: Server) -> None:
    teacher, asked = teacher_of(server), queries(3)
    put(teacher, asked)
    assert collect(teacher) == []
    with server.client() as person:
        say(person, "equal", 2)
        found = [(answer.query_id, answer.choice) for answer in collect(teacher)]
        assert found == [(key, "equal") for key in asked.ids[:2]]
        assert collect(teacher) == []
        say(person, "skip", 1)
    [last] = collect(teacher)
    assert (last.query_id, last.choice, last.annotator) == (asked.ids[2], "skip", "the annotator")


def test_nobody_waits_for_the_network(server: Server) -> None:
    """Questions are kept until the queue is there, and the queue tells its decisions until they are surely logged."""
    teacher, asked = teacher_of(server, patience=0.2), queries(2)
    server.stop()
    teacher.ask(asked)
    assert teacher.waiting and teacher.collect() == []
    server.start()
    teacher.exchange()
    assert not teacher.waiting
    with server.client("trainer") as other, server.client() as person:
        say(person, "equal", 2)
        teacher.exchange()
        teacher.exchange()  # tells the same again
        assert {answer.query_id for answer in teacher.collect()} == set(asked.ids)
        teacher.exchange()
        assert teacher.collect() == []
        assert len(other.decisions("run", [])) == 2, "a crash could still have lost them"
        teacher.exchange()
        assert other.decisions("run", []) == []


def test_a_run_that_the_queue_will_not_have_is_told_so(server: Server) -> None:
    put(teacher_of(server), queries(1))
    other = HumanTeacher(server.client("trainer"), Run("run", "point", "s", identity="another"), lambda ids: None)
    other.exchange()
    for call in (lambda: other.ask(queries(1)), other.collect):
        with pytest.raises(SessionError, match="people cannot be asked"):
            call()


def test_what_a_crash_caught_on_the_way_comes_again(server: Server) -> None:
    asked = queries(2)
    first = teacher_of(server)
    put(first, asked)
    with server.client() as person:
        say(person, "equal", 2)
    assert len(collect(first)) == 2
    second = teacher_of(server)  # of a process that was killed before it logged them
    put(second, asked)
    assert {answer.query_id for answer in collect(second)} == set(asked.ids)


@pytest.mark.parametrize("labels", ["majority", "soft"])
def test_labels_of_several_people(server: Server, labels: str) -> None:
    teacher, asked = teacher_of(server, overlap=3, min_answers=3, labels=labels), queries(1)
    put(teacher, asked)
    for name, choice in (("anna", "equal"), ("ben", "equal"), ("cleo", "left")):
        with QueueClient(server.url, server.accounts.add(name, "annotator")) as person:
            [lease] = person.lease("run")
            person.answer(lease.lease, choice)  # type: ignore[arg-type]
    answers = collect(teacher)
    [target] = labels_from(asked, answers).target
    if labels == "majority":
        assert (target, [answer.annotator for answer in answers]) == (0.5, ["anna, ben, cleo"])
    else:
        assert target in (np.float32(1 / 3), np.float32(2 / 3)), "which side cleo meant depends on what she was shown"


def test_what_people_disagree_about_makes_no_label(server: Server) -> None:
    teacher, asked = teacher_of(server, overlap=2, min_answers=2, max_answers=2, agreement=1.0), queries(1)
    put(teacher, asked)
    for name, choice in (("anna", "equal"), ("ben", "skip")):
        with QueueClient(server.url, server.accounts.add(name, "annotator")) as person:
            say(person, choice, 1)
    assert [answer.choice for answer in collect(teacher)] == ["skip"]


def test_a_queue_that_is_away_holds_nothing_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Questions are put, and answers fetched, when it is back; one line says that it was away."""
    teacher = teacher_of(server, patience=0.2)
    server.stop()
    put(teacher, queries(1, session=0))
    put(teacher, queries(1, session=1))
    assert collect(teacher) == collect(teacher) == []
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1
    server.start()
    assert collect(teacher) == []
    with server.client() as person:
        say(person, "equal", 2)
    server.stop()
    assert collect(teacher) == []
    threading.Timer(0.0, server.start).start()
    found: list[str] = []
    while len(found) < 2:
        found += [answer.query_id for answer in collect(teacher)]
    assert sorted(found) == ["run/00000/00000", "run/00001/00000"]


def test_a_queue_with_another_database_is_asked_everything_anew(server: Server, tmp_path: Path) -> None:
    """But for questions of sessions that are no longer asked about: many of a long run's are never answered."""
    teacher = teacher_of(server, keep_sessions=2)
    for session in range(5):
        put(teacher, queries(2, session))
    server.stop()
    (tmp_path / "queue.sqlite").rename(tmp_path / "old.sqlite")
    for leftover in tmp_path.glob("queue.sqlite-*"):
        leftover.unlink()
    accounts = Accounts(Database(str(tmp_path / "queue.sqlite")))
    for name, role in (("the trainer", "trainer"), ("the annotator", "annotator")):
        accounts.add(name, role, server.tokens[role])
    server.start()
    assert collect(teacher) == collect(teacher) == []
    with server.client() as person:
        say(person, "equal", 10)
    newest = {*queries(2, 3).ids, *queries(2, 4).ids}
    assert {answer.query_id for answer in collect(teacher)} == newest == set(teacher._open) | newest


def test_a_token_that_ended_is_said_once_and_training_goes_on(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    teacher = teacher_of(server)
    server.accounts.disable("the trainer")
    put(teacher, queries(1))
    assert collect(teacher) == collect(teacher) == []
    assert len([record for record in caplog.records if "training goes on without people" in record.message]) == 1


def test_a_question_that_cannot_be_shown_is_answered_by_nobody(server: Server) -> None:
    teacher = teacher_of(server)
    teacher._make_clips = lambda ids: [server.client("trainer").withdraw("run", key) for key in ids[:1]]
    put(teacher, queries(2))
    teacher.exchange()
    assert teacher.collect() == [Answer("run/00000/00000", "skip", "nobody")]
    assert teacher.collect() == []


def test_people_read_what_each_question_is_about(server: Server) -> None:
    teacher = teacher_of(server)
    put(teacher, replace(queries(2), instructions=("open the window", "close the window")))
    with server.client() as annotator:
        assert [lease.instruction for lease in annotator.lease("run", 2)] == ["open the window", "close the window"]
