"""The queue on Ray Serve: several replicas, one of them killed."""

import os
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from ray import serve

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Accounts, Database, Question, Run
from rayrlhf.serving.deploy import queue_deployment
from rayrlhf.serving.settings import QueueSettings

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE, OVERLAP = 8, 2
PER_KILL = 40
"""Questions that are answered for each kill."""


@pytest.fixture
def settings(tmp_path: Path) -> QueueSettings:
    (tmp_path / "clips").mkdir()
    database, clips = str(tmp_path / "queue.sqlite"), str(tmp_path / "clips")
    return QueueSettings(database=database, clips=clips, requests_per_second=1e6, burst=10**6)


@pytest.fixture
def url(settings: QueueSettings) -> Iterator[str]:
    """Two replicas behind Serve's proxy, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(queue_deployment(settings.model_copy(update={"replicas": 2})), name="queue", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_the_page_is_served_to_all(url: str) -> None:
    for path in ("/", "/page/main.js"):
        found = httpx.get(url + path)
        assert (found.status_code, found.headers["x-frame-options"]) == (200, "DENY")
    assert httpx.get(f"{url}/v1/me").status_code == 401


def replicas() -> list[int]:
    """Process ids of the queue's replicas."""
    ours = psutil.Process().children(recursive=True)
    return [process.pid for process in ours if process.is_running() and "ServeReplica:queue" in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_replicas_killed_in_the_middle_of_answers(url: str, settings: QueueSettings, kills: int) -> None:
    """People go on with what is left of the queue; every acknowledged answer is there once, no seat is taken twice."""
    questions = PER_KILL * kills
    accounts = Accounts(Database(settings.database))
    names = [f"annotator {number}" for number in range(PEOPLE)]
    tokens = [accounts.add(name, "annotator") for name in names]
    with QueueClient(url, accounts.add("trainer", "trainer"), patience=60) as trainer:
        options = QueueOptions(overlap=OVERLAP, min_answers=OVERLAP, settle_seconds=0, lease_seconds=60)
        trainer.register(Run("run", "t", "s", options=options))
        trainer.enqueue("run", [Question(f"q{i}", 0, i) for i in range(questions)])
    acknowledged: list[int] = []
    people = [threading.Thread(target=_answer_all, args=(url, token, acknowledged)) for token in tokens]
    for person in people:
        person.start()
    killed = 0
    while killed < kills:
        while len(acknowledged) < (killed + 0.5) * PER_KILL * OVERLAP:
            time.sleep(0.01)
        if victims := replicas():
            os.kill(victims[0], signal.SIGKILL)
            killed += 1
    for person in people:
        person.join()
    with QueueClient(url, accounts.add("reader", "trainer"), patience=60) as reader:
        answered = list(reader.answered("run"))
    assert len(answered) == questions
    assert {len({vote.annotator for vote in item.votes}) for item in answered} == {OVERLAP}
    assert Counter(acknowledged).most_common(1)[0][1] == 1
    assert len(acknowledged) == questions * OVERLAP


def _answer_all(url: str, token: str, acknowledged: list[int]) -> None:
    with QueueClient(url, token, patience=120) as client:
        while leased := client.lease("run"):
            acknowledged.append(client.answer(leased[0].lease, "equal", key=uuid.uuid4().hex).answer)
