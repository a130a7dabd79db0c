"""The queue's server lives while its PostgreSQL is stopped and started."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import numpy as np
import pytest
from postgres import Postgres, running
from queue_server import Server

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.store import Question, Run, UnavailableError
from rayrlhf.teachers.human import HumanTeacher

CLIP = "0123456789abcdef" * 2 + ".mp4"


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that others do not use: it is stopped here."""
    with running() as server:
        yield server


def queries(session: int) -> Queries:
    flat, wide, number = np.zeros((2, 4), np.float32), np.zeros((2, 4, 2), np.float32), np.arange(2)
    ids = tuple(f"run/{session}/{i}" for i in range(2))
    return Queries(ids, session, *(Segments(wide, wide, flat, flat > 0, number, number) for _ in range(2)))


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_postgresql_is_away_behind_a_living_server(
    own_postgres: Postgres, make_server: Callable[..., Server], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Calls are told to come again, questions wait, answers that were acknowledged arrive once."""
    server = make_server(database=own_postgres.new_database())
    clips_made: list[str] = []
    trainer = server.client("trainer", patience=0.2)

    def make_clips(ids: list[str]) -> None:
        for key in ids:
            clips_made.append(key)
            trainer.clips_made("run", key, CLIP, CLIP)

    teacher = HumanTeacher(
        trainer, Run("run", "point", "go there", options=QueueOptions(settle_seconds=0.0)), make_clips
    )
    teacher.ask(queries(0))
    teacher.exchange()
    with server.client() as person:
        [lease] = person.lease("run")
        person.answer(lease.lease, "equal", key="key-before")

    own_postgres.stop(mode)
    headers = {"Authorization": f"Bearer {server.tokens['trainer']}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as plain:
        for method, path in (
            ("GET", "/v1/ready"),
            ("GET", "/v1/me"),
            ("GET", "/v1/runs"),
            ("POST", "/v1/runs/run/decisions"),
            ("GET", "/v1/runs/run/events"),
            ("GET", f"/v1/clips/{CLIP}"),
        ):
            answer = plain.request(method, path, json={"received": []} if method == "POST" else None)
            assert (answer.status_code, answer.json()["why"]) == (503, "unavailable"), path
            assert int(answer.headers["retry-after"]) >= 1
            assert "tester" not in answer.text, "where the database is is nobody's business"
    assert httpx.get(server.url).status_code == 200, "the page says what is the matter"
    teacher.exchange()
    teacher.ask(queries(1))
    teacher.exchange()
    assert teacher.collect() == []
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1

    own_postgres.start()
    teacher.exchange()
    [first] = teacher.collect()
    assert first.choice == "equal" and first.query_id in queries(0).ids
    assert clips_made == [*queries(0).ids, *queries(1).ids], "nothing is asked twice"
    with server.client() as person, server.client("trainer") as other:
        assert person.answer(lease.lease, "equal", key="key-before"), (
            "an answer that was not sure to arrive is sent again"
        )
        assert other.progress("run").open == 3
        waiting = person.lease("run", 10)
        for one in waiting:
            person.answer(one.lease, "skip")
        assert len(waiting) == 3
        teacher.exchange()
        said = teacher.collect()
        assert {answer.query_id for answer in said} | {first.query_id} == {*queries(0).ids, *queries(1).ids}
        assert len(said) == 3 and {answer.choice for answer in said} == {"skip"}
        assert teacher.collect() == []
        assert len(list(other.answered("run"))) == 4
    trainer.close()


def test_the_disk_of_postgresql_is_full(make_server: Callable[..., Server]) -> None:
    """Answers are told to come again, and once there is room they are stored; none that was acknowledged is lost."""
    with running(mib=128) as small:
        server = make_server(database=small.new_database())
        with server.client("trainer") as trainer, server.client(patience=0.5) as person:
            trainer.register(Run("run", "point", "go there", options=QueueOptions(settle_seconds=0.0)))
            trainer.enqueue("run", [Question(f"q{i:04d}", 0, i) for i in range(2000)])
            ballast = small.sockets / "ballast"
            with suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(4096))
            os.truncate(ballast, ballast.stat().st_size - 200_000)  # for some answers
            acknowledged = 0
            with pytest.raises(UnavailableError, match="does not answer"):
                while acknowledged < 2000:
                    [lease] = person.lease("run")
                    person.answer(lease.lease, "equal", key=f"the-key-{lease.lease}")
                    acknowledged += 1
            assert httpx.get(server.url).status_code == 200
            ballast.unlink()
            if not small.alive():  # it ends itself where its log of changes cannot be written
                small.start()
        with server.client("trainer", patience=30) as trainer, server.client(patience=30) as person:
            assert 0 < acknowledged <= sum(info.answers for info in trainer.people("run")) <= acknowledged + 1
            [lease] = person.lease("run")
            person.answer(lease.lease, "equal", key=f"the-key-{lease.lease}")
            stored = list(trainer.answered("run"))
            assert len({item.query_id for item in stored}) == len(stored) == acknowledged + 1
