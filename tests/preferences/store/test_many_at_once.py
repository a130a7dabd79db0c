"""Several processes and people at one store, some of them killed: nothing is asked too often, nothing is lost."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from postgres import Postgres
from sqlalchemy import func, select

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.store import Database, PreferenceStore, Question, Run, UnavailableError
from rayrlhf.preferences.store.tables import answers, leases

PROGRAM = Path(__file__).with_name("answering.py")
OVERLAP = 3


def filled(url: str, questions: int, lease_seconds: float = 2.0) -> PreferenceStore:
    """A store in which each question is asked of three people."""
    store = PreferenceStore(Database(url))
    options = QueueOptions(overlap=OVERLAP, min_answers=OVERLAP, lease_seconds=lease_seconds, settle_seconds=0.0)
    store.register(Run("run", "t", "s", options=options))
    store.enqueue("run", [Question(f"q{i}", 0, i) for i in range(questions)])
    return store


def start(url: str, folder: Path, process: int, people: int) -> subprocess.Popen[bytes]:
    """A process with `people` of its own who answer."""
    arguments = [url, str(folder / f"acknowledged{process}"), str(process * people), str(people)]
    return subprocess.Popen([sys.executable, str(PROGRAM), *arguments])


def check(url: str, folder: Path, questions: int) -> None:
    """All was answered, by as many as wanted, and each acknowledged answer is there once."""
    database = Database(url)
    with database.reading() as connection:
        stored = connection.execute(
            select(answers.c.key, answers.c.counted, leases.c.annotator, leases.c.query).join_from(answers, leases)
        ).all()
    there = Counter((row.key, row.annotator, row.query) for row in stored)
    acknowledged = [
        tuple(line.split()) for file in folder.glob("acknowledged*") for line in file.read_text().splitlines()
    ]
    assert len(acknowledged) > 0
    assert all(there[one] == 1 for one in acknowledged)
    # one whose lease ran out while the machine was busy may answer late: it is kept, and no vote too many counts
    by_question = Counter(row.query for row in stored if row.counted)
    assert set(by_question) == {f"q{i}" for i in range(questions)}
    assert set(by_question.values()) == {OVERLAP}
    store, decisions = PreferenceStore(database), []
    while page := store.decisions("run", [decision.query_id for decision in decisions]):
        decisions += page
    assert len(decisions) == questions
    assert all(len({vote.annotator for vote in decision.votes}) == OVERLAP for decision in decisions)


def test_two_processes_of_five_people_each(url: str, tmp_path: Path) -> None:
    """No seat is taken twice: no lease ends while they answer, so there is not one answer too many."""
    filled(url, 60, lease_seconds=600.0)
    for process in [start(url, tmp_path, number, 5) for number in range(2)]:
        assert process.wait(120) == 0
    check(url, tmp_path, 60)
    with Database(url).reading() as connection:
        assert connection.scalar(select(func.count()).select_from(answers)) == 60 * OVERLAP
        assert connection.scalar(select(func.count()).select_from(leases)) == 60 * OVERLAP


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_process_killed_in_the_middle_of_answers(url: str, tmp_path: Path, kills: int) -> None:
    """The people of a killed process come back under their names; what they had not answered is asked anew."""
    rng = random.Random(0)
    questions = 60 * kills
    filled(url, questions)
    bystander = start(url, tmp_path, 1, 3)
    for _ in range(kills):
        victim = start(url, tmp_path, 0, 3)
        acknowledged = tmp_path / "acknowledged0"
        before = acknowledged.stat().st_size if acknowledged.exists() else 0
        while victim.poll() is None and (not acknowledged.exists() or acknowledged.stat().st_size == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        victim.kill()
        victim.wait()
    time.sleep(2.1)  # until the leases of the killed end
    for process in (start(url, tmp_path, 0, 3), bystander, start(url, tmp_path, 2, 3)):
        assert process.wait(300) == 0
    check(url, tmp_path, questions)


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_postgresql_killed_in_the_middle_of_answers(postgres: Postgres, tmp_path: Path, kills: int) -> None:
    url = postgres.new_database()
    questions = 60 * kills
    store = filled(url, questions)
    process = start(url, tmp_path, 0, 5)
    acknowledged = tmp_path / "acknowledged0"
    for _ in range(kills):
        before = acknowledged.stat().st_size if acknowledged.exists() else 0
        while process.poll() is None and (not acknowledged.exists() or acknowledged.stat().st_size == before):
            time.sleep(0.01)
        postgres.kill()
        with pytest.raises(UnavailableError, match="postgresql"):
            store.lease("run", "anna")
        postgres.start()
    assert process.wait(300) == 0
    check(url, tmp_path, questions)


def test_each_verdict_arrives_once_while_people_answer(url: str) -> None:
    """Whoever asks sees each verdict once, whatever the moment it asks."""
    store = filled(url, 40)
    people = [
        threading.Thread(target=_answer_everything, args=(store, f"annotator{number}")) for number in range(OVERLAP)
    ]
    for person in people:
        person.start()
    seen: list[str] = []
    received: list[str] = []
    while len(seen) < 40:
        received = [decision.query_id for decision in store.decisions("run", received)]
        seen += received
    for person in people:
        person.join()
    assert sorted(seen) == sorted(f"q{i}" for i in range(40))


def _answer_everything(store: PreferenceStore, annotator: str) -> None:
    while leased := store.lease("run", annotator):
        store.answer(annotator, leased[0].id, "right", key=f"{annotator}/{leased[0].query_id}")
