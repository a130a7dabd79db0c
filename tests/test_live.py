"""A run with its own queue and page: killed again and again while somebody answers."""

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
        before = len(person.acknowledged)
        while len(person.acknowledged) < before + 4:
            assert training.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        if killed == kills:
            break
        assert addresses_of(training.pid) == {"127.0.0.1"}
        training.send_signal(signal.SIGKILL)
        training.wait()
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
