"""Clients with one connection each that is kept, in a process of their own: what a server is measured with.

Only the standard library is used, so that the process starts at once and takes little of the machine.
"""

import http.client
import multiprocessing
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

MOST_BODIES = 1000
HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Load:
    """What `clients` do for `seconds`: the same request again and again, each as soon as the last one is answered."""

    host: str
    port: int
    path: str
    body: bytes
    clients: int
    seconds: float
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answers:
    """Seconds from request to answer, of those with status 200; how many others there were, and what the first was.

    bodies: the different good answers, at most `MOST_BODIES`
    """

    seconds: tuple[float, ...]
    failed: int
    first_failure: str
    bodies: frozenset[bytes]
    elapsed: float

    @property
    def per_second(self) -> float:
        """Good answers."""
        return len(self.seconds) / self.elapsed

    def milliseconds(self, share: float) -> float:
        """Within which `share` of the good answers came."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def row(self) -> Mapping[str, float]:
        """Numbers for a report."""
        found = {"requests": len(self.seconds), "failed": self.failed, "per_second": self.per_second}
        if self.seconds:
            found |= {"p50_ms": self.milliseconds(0.5), "p99_ms": self.milliseconds(0.99)}
        return found


class Clients:
    """The process; `run` blocks, `start` does not. Use it in a `with`."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def start(self, load: Load) -> "Future[Answers]":
        """What comes of `load`, later."""
        return self._pool.submit(put, load)

    def run(self, load: Load) -> Answers:
        """What comes of `load`."""
        return self.start(load).result()


def put(load: Load) -> Answers:
    """Puts `load` from threads of this process."""
    good: list[float] = []
    bad: list[str] = []
    bodies: set[bytes] = set()
    begin = time.perf_counter()
    rest = load, begin + load.seconds, good, bad, bodies
    threads = [threading.Thread(target=_client, args=rest) for _ in range(load.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Answers(tuple(good), len(bad), bad[0] if bad else "", frozenset(bodies), time.perf_counter() - begin)


def _client(load: Load, end: float, good: list[float], bad: list[str], bodies: set[bytes]) -> None:
    connection = http.client.HTTPConnection(load.host, load.port, timeout=60)
    while (sent := time.perf_counter()) < end:
        try:
            connection.request("POST", load.path, load.body, {**HEADERS, **dict(load.headers)})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            bad.append(repr(error))
            connection.close()
            continue
        if answer.status == 200:
            good.append(time.perf_counter() - sent)
            if len(bodies) < MOST_BODIES:
                bodies.add(content)
        else:
            bad.append(f"{answer.status} {content[:200]!r}")
    connection.close()
