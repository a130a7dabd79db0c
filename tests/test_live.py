"""A run with its own queue and page: killed again and again while somebody answers."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import addresses_of
from postgres import Postgres
from sqlalchemy import select
from support import SMALL

from rayrlhf.bench.truth import Annotator
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.store import Database
from rayrlhf.preferences.store.tables import answers
from rayrlhf.serving.address import lasting_port
from rayrlhf.tracking import RunDirectory

ENDLESS = ["--total_steps=1000000", "--queries.budget=3000", "--queries.interval=100", "--checkpoint.interval=200"]


def anything() -> Choice:
    return random.choice(("left", "right", "equal"))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the test, whatever becomes of it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()


def train(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "rayrlhf", "train", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def kill(training: subprocess.Popen[bytes]) -> None:
    training.send_signal(signal.SIGKILL)
    training.wait()


def answered(person: Annotator, more: int, training: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits until `person` has answered so many more questions."""
    wanted = len(person.acknowledged) + more
    while len(person.acknowledged) < wanted:
        assert training.poll() is None, (folder / "log").read_text()[-2000:]
        time.sleep(0.02)


def logged_answers(run: RunDirectory) -> list[Answer]:
    """What training has learnt from, or will."""
    return [answer for _, said in PreferenceDataset(run.preferences).read() for answer in said]


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_a_run_that_is_killed_while_somebody_answers_loses_and_doubles_nothing(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], kills: int
) -> None:
    """Every answer that was acknowledged is in the store once, and in the run's log as often as it was learnt from."""
    run, port = RunDirectory(tmp_path / "run"), lasting_port("127.0.0.1")
    start = ["toy", *SMALL, *ENDLESS, "--teacher=human", "--queue.settle_seconds=0", "--name=run"]
    start += [f"--storage_path={tmp_path}", f"--people.port={port}"]
    person = Annotator(run, f"http://127.0.0.1:{port}", choose=anything, at_once=3)
    person.start()
    started.append(training := train(tmp_path, start))
    for killed in range(kills + 1):
        answered(person, 4, training, tmp_path)
        time.sleep(random.uniform(0, 0.5))
        if killed == kills:
            break
        if killed == 0:  # later the server of a run that was killed may answer while the next one starts
            assert addresses_of(training.pid) == {"127.0.0.1"}
        kill(training)
        started.append(training := train(tmp_path, ["--resume", str(run.path)]))
    person.enough.set()
    person.join()
    with Database(str(run.queue_file)).reading() as store:
        said = store.scalar(select(answers.c.id).order_by(answers.c.id.desc()).limit(1))
    patience = time.monotonic() + 120
    while len(logged_answers(run)) < said and time.monotonic() < patience:
        assert training.poll() is None, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.5)  # a driver that has just come back fetches what was said meanwhile
    training.send_signal(signal.SIGINT)
    training.wait(120)
    assert len(person.acknowledged) == len(set(person.acknowledged)) > 4 * kills
    with Database(str(run.queue_file)).reading() as store:
        stored = Counter(store.scalars(select(answers.c.id)))
        by_lease = Counter(store.scalars(select(answers.c.lease).where(answers.c.undone_at.is_(None))))
    assert set(person.acknowledged) <= set(stored)
    assert by_lease.most_common(1)[0][1] == 1
    logged = logged_answers(run)
    assert len(logged) == len({answer.query_id for answer in logged}), "a question is learnt from once"
    assert len(logged) == said, "each answer decided a question, and came to the log"


@pytest.mark.timeout(280)
def test_a_run_whose_machine_is_lost_goes_on_with_its_questions_at_another(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], postgres: Postgres
) -> None:
    """The queue's database is elsewhere; its clips and tokens are lost with the machine."""
    here, there, port = (
        RunDirectory(tmp_path / "a" / "run"),
        RunDirectory(tmp_path / "b" / "run"),
        lasting_port("127.0.0.1"),
    )
    storage, database = tmp_path / "storage", postgres.new_database()
    storage.mkdir()
    start = ["toy", *SMALL, *ENDLESS, "--teacher=human", "--queue.settle_seconds=0", "--name=run"]
    start += [f"--storage_path=file://{storage}", f"--work_path={here.path.parent}", f"--people.port={port}"]
    person = Annotator(here, f"http://127.0.0.1:{port}", choose=anything)
    person.start()
    started.append(training := train(tmp_path, [*start, f"--people.database={database}"]))
    answered(person, 4, training, tmp_path)
    while not list((storage / "run" / "checkpoints").glob("*/manifest.json")):
        time.sleep(0.1)
    kill(training)
    here.path.parent.rename(tmp_path / "lost")  # processes that have not ended yet write there
    lease = json.loads((storage / "run" / "running.json").read_text())
    (storage / "run" / "running.json").write_text(json.dumps(lease | {"renewed": lease["renewed"] - 1000}))

    resume = ["--resume", f"file://{storage}/run", f"--work_path={there.path.parent}"]
    started.append(training := train(tmp_path, resume))
    answered(person, 8, training, tmp_path)
    assert list(there.clips.glob("*.mp4"))
    assert "keeps the link" in (tmp_path / "log").read_text()
    person.enough.set()
    person.join()
    with Database(database).reading() as store:
        said = store.scalar(select(answers.c.id).order_by(answers.c.id.desc()).limit(1))
    patience = time.monotonic() + 60
    while len(logged_answers(there)) < said and time.monotonic() < patience:
        time.sleep(0.5)
    training.send_signal(signal.SIGINT)
    training.wait(120)
    logged = logged_answers(there)
    assert len(logged) == len({answer.query_id for answer in logged}) == said >= 12


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_prefppo_learns_what_somebody_prefers(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    run, port = RunDirectory(tmp_path / "run"), lasting_port("127.0.0.1")
    start = ["toy_ppo", "--teacher=human", "--teacher.wait=true", "--queue.settle_seconds=0"]
    start += ["--name=run", f"--storage_path={tmp_path}", f"--people.port={port}"]
    start += ["--queries.budget=60", "--queries.per_session=15"]
    person = Annotator(run, f"http://127.0.0.1:{port}", at_once=5)
    person.start()
    started.append(training := train(tmp_path, start))
    assert training.wait(360) == 0, (tmp_path / "log").read_text()[-2000:]
    person.enough.set()  # it ends by itself: the queue it asks is gone
    summary = run.summary()
    assert summary is not None and summary["labels"] == 60 == len(logged_answers(run))
    assert summary["success_rate"] >= 0.75, summary
