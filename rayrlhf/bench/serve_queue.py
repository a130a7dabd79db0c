"""`bench serve part=queue`: many people at once answer questions over HTTP, and everything they said is counted.

Ours is the queue as `rayrlhf label` starts it, with `replicas` behind Serve, asked by annotators in a process of their
own, each of whom does what the page does: listens to the stream of events, leases a question, fetches both of its
clips, answers it and leases the next. First each takes `pause` seconds for a question, as people do, then none. The
reference is the store alone, called by one thread without HTTP. Afterwards the database is read: no question may have
had more people at a time than its overlap, and every acknowledged answer must be there once.
"""

import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import select

from rayrlhf.bench.data import ray_session
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.config import QueueOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Accounts, Database, PreferenceStore, Question, Run
from rayrlhf.preferences.store.records import clip_name
from rayrlhf.preferences.store.tables import answers, leases
from rayrlhf.serving.clips import Clips
from rayrlhf.serving.deploy import queue_deployment
from rayrlhf.serving.running import serving
from rayrlhf.serving.settings import QueueSettings

HOST, RUN = "127.0.0.1", "bench"


class ServeQueueBench(BenchOptions):
    """Options of `bench serve part=queue`."""

    annotators: Count = 50
    questions: Count = 20_000
    overlap: Count = 2
    """People who are asked each question."""
    seconds: float = 10.0
    """Of each of the two loads."""
    pause: float = 3.0
    """Seconds that people take for a question."""
    clip_bytes: Count = 20_000
    replicas: Count = 1
    database: str | None = None
    """`postgresql://USER@HOST/NAME`, empty; none: an SQLite file."""


@dataclass
class Work:
    """What annotators did: seconds of each call, ids of the answers that were acknowledged, calls that failed.

    news: events that came
    """

    news: int = 0
    lease: list[float] = field(default_factory=list)
    clip: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elapsed: float = 0.0

    def rows(self) -> dict[str, dict[str, float]]:
        """How long the calls took, by kind."""
        return {"lease": _row(self.lease), "clip": _row(self.clip), "answer": _row(self.answer)}


def run(**given: Any) -> dict[str, Any]:
    """Fills a queue, has it answered, and counts."""
    options = options_from(ServeQueueBench, given, "serve part=queue")
    report = Report("serve_queue")
    with tempfile.TemporaryDirectory(prefix="rayrlhf-bench-") as folder:
        settings = QueueSettings(
            database=options.database or f"{folder}/queue.sqlite",
            clips=folder,
            requests_per_second=1e6,
            burst=10**6,
            at_once=4 * options.annotators,
            replicas=options.replicas,
        )
        database = Database(settings.database)
        alone = _store_alone(Database(f"{folder}/alone.sqlite"), options)
        accounts = Accounts(database)
        tokens = [accounts.add(f"annotator {number}", "annotator") for number in range(options.annotators)]
        _fill(database, options, Clips(settings.clips).keep(_clip(options)))
        deployment = queue_deployment(settings)
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
        with ray_session(), serving(deployment, "queue", HOST, 0) as url, pool as process:
            paced = process.submit(annotate, url, tokens, options.seconds, options.pause).result()
            work = process.submit(annotate, url, tokens, options.seconds, 0.0).result()
        report.cases["answers"] = Case(
            len(work.answer) / work.elapsed,
            alone,
            "answers/s",
            f"the store without HTTP in one thread; {options.annotators} annotators",
        )
        report.notes |= {
            **work.rows(),
            "at_peoples_pace": {"answers_per_second": len(paced.answer) / paced.elapsed, **paced.rows()},
            "news": paced.news + work.news,
            "failed_calls": len(paced.failed + work.failed),
            "first_failure": (paced.failed + work.failed + [""])[0],
            **check(database, paced.acknowledged + work.acknowledged, options.overlap),
        }
        return report.as_dict()


def _clip(options: ServeQueueBench) -> bytes:
    """What the queue takes for an MP4 file."""
    return b"\0\0\0\x18ftypisom" + bytes(options.clip_bytes)


def _fill(database: Database, options: ServeQueueBench, clip: str) -> PreferenceStore:
    store = PreferenceStore(database)
    rules = QueueOptions(
        overlap=options.overlap, min_answers=options.overlap, max_answers=options.overlap + 1, settle_seconds=0.0
    )
    store.register(Run(RUN, "bench", "Which is better?", options=rules))
    store.enqueue(RUN, [Question(f"{i:06d}", 0, i, left_clip=clip, right_clip=clip) for i in range(options.questions)])
    return store


def _store_alone(database: Database, options: ServeQueueBench) -> float:
    """Answers a second of one thread that calls the store."""
    store, begin, count = _fill(database, options, clip_name(b"")), time.perf_counter(), 0
    while time.perf_counter() - begin < options.seconds / 2:
        person = f"annotator {count % options.annotators}"
        leased = store.lease(RUN, person)
        if not leased:
            break
        store.answer(person, leased[0].id, "equal", key=f"alone-{count:08d}")
        count += 1
    return count / (time.perf_counter() - begin)


def annotate(url: str, tokens: list[str], seconds: float, pause: float) -> Work:
    """An annotator for each token, in a thread, for so many seconds, `pause` of which each takes for a question."""
    work = Work()
    begin = time.perf_counter()
    for token in tokens:  # these end with the process, or when the server does
        threading.Thread(target=_listener, args=(url, token, work), daemon=True).start()
    threads = [threading.Thread(target=_annotator, args=(url, token, begin + seconds, pause, work)) for token in tokens]
    for thread in threads:
        thread.start()
        time.sleep(pause / len(tokens))  # people do not begin in step
    for thread in threads:
        thread.join()
    work.elapsed = time.perf_counter() - begin
    return work


def _listener(url: str, token: str, work: Work) -> None:
    with QueueClient(url, token) as client, suppress(UserError):
        for _ in client.events(RUN):
            work.news += 1


def _annotator(url: str, token: str, end: float, pause: float, work: Work) -> None:
    with QueueClient(url, token) as client:
        while time.perf_counter() < end:
            try:
                with _timed(work.lease):
                    [question] = client.lease(RUN)
                for clip in (question.left_clip, question.right_clip):
                    with _timed(work.clip):
                        client.clip(str(clip))
                time.sleep(pause)
                with _timed(work.answer):
                    work.acknowledged.append(client.answer(question.lease, "equal").answer)
            except Exception as error:  # counted, whatever it is
                work.failed.append(repr(error))


@contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    into.append(time.perf_counter() - begin)


def check(database: Database, acknowledged: list[int], overlap: int) -> dict[str, int]:
    """Of what must be 0: acknowledged answers that are lost or there twice, questions with too many people.

    All say equal, so that no question wants more than `overlap`.
    """
    with database.reading() as connection:
        stored = set(connection.scalars(select(answers.c.id)))
        by_lease = Counter(connection.scalars(select(answers.c.lease).where(answers.c.undone_at.is_(None))))
        seats = Counter(connection.scalars(select(leases.c.query).where(leases.c.purpose == "vote")))
    return {
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - stored),
        "acknowledged_twice": len(acknowledged) - len(set(acknowledged)),
        "stored_twice": sum(count > 1 for count in by_lease.values()),
        "leased_beyond_overlap": sum(count > overlap for count in seats.values()),
    }


def _row(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    middle, slow = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {"calls": len(seconds), "p50_ms": float(middle), "p99_ms": float(slow)}
