"""Teachers whose answers take a while: the base of those that ask a service over the network."""

import heapq
import itertools
import logging
import threading
import time
from abc import ABC, abstractmethod

import numpy as np

from rayrlhf.errors import in_one_line
from rayrlhf.logs import event
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.segments import Queries

_log = logging.getLogger(__name__)

COMPLAINT_SECONDS = 60.0
"""At most so often is it said that answers fail."""
LEAVE_SECONDS = 5.0
"""How long `close` waits for what is under way."""


class AsynchronousTeacher(ABC):
    """Answers in threads of its own, several questions at once; a subclass says how in `answer`.

    No question is lost: one whose `answer` raises is asked again, after a rest that doubles each time, until there is
    an answer or the run is over. Training goes on meanwhile, or waits with `teacher.wait`; a line says so, at most once
    a minute. After a resume a fresh teacher is asked again what was open. So that it says the same, `answer` should
    depend on the query alone: a generator made from the query's id gives randomness that does.
    """

    def __init__(
        self, annotator: str, *, at_once: int = 4, first_rest: float = 1.0, longest_rest: float = 60.0
    ) -> None:
        """at_once: questions under way; first_rest, longest_rest: seconds after a failure."""
        self.annotator = annotator
        self._at_once, self._first_rest, self._longest_rest = at_once, first_rest, longest_rest
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Queries]] = []  # a heap; the number keeps the order of asking
        self._numbers = itertools.count()
        self._in_hand: set[str] = set()
        self._failures: dict[str, int] = {}
        self._said: list[Answer] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._complain_at = 0.0

    @abstractmethod
    def answer(self, query: Queries) -> Choice:
        """What the teacher says of the one question in `query`. May take its time; is called in several threads."""

    def ask(self, queries: Queries) -> None:
        """Puts the queries in line that are not there already; returns at once."""
        with self._changed:
            for i, key in enumerate(queries.ids):
                if key not in self._in_hand:
                    self._in_hand.add(key)
                    self._put(queries.take(np.array([i])), time.monotonic())
            # daemons: a service that never answers must not keep the process
            while len(self._threads) < self._at_once and not self._closed:
                self._threads.append(threading.Thread(target=self._work, name=self.annotator, daemon=True))
                self._threads[-1].start()

    def collect(self) -> list[Answer]:
        """The answers since the last call, in the order of their ids."""
        with self._changed:
            answers, self._said = self._said, []
            self._in_hand.difference_update(answer.query_id for answer in answers)
        return sorted(answers, key=lambda answer: answer.query_id)

    def close(self) -> None:
        """Begins no answer any more, and waits a little for those under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _put(self, query: Queries, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), query))
        self._changed.notify()

    def _work(self) -> None:
        while (query := self._next()) is not None:
            try:
                answer = Answer(query.ids[0], self.answer(query), self.annotator)
            except Exception as error:  # whatever it is: the question stays open
                self._put_off(query, error)
            else:
                self._take(answer)

    def _next(self) -> Queries | None:
        """Waits for the next question that is due; none once the teacher is closed."""
        with self._changed:
            while not self._closed:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[-1]
                self._changed.wait(wait)
        return None

    def _take(self, answer: Answer) -> None:
        with self._changed:
            self._failures.pop(answer.query_id, None)
            self._said.append(answer)

    def _put_off(self, query: Queries, error: Exception) -> None:
        with self._changed:
            if self._closed:
                return
            failures = self._failures[query.ids[0]] = self._failures.get(query.ids[0], 0) + 1
            now = time.monotonic()
            # the power is bounded: it would be too large for a float after a day
            self._put(query, now + min(self._longest_rest, self._first_rest * 2.0 ** min(failures - 1, 60)))
            complain, waiting = now >= self._complain_at, len(self._failures)
            if complain:
                self._complain_at = now + COMPLAINT_SECONDS
        if complain:
            _log.warning(
                "%s could not answer: %s; training goes on, and %s asked again",
                self.annotator, in_one_line(error), "it is" if waiting == 1 else f"{waiting} questions are",
                extra=event("teacher-fails", error=in_one_line(error), questions=waiting),
            )  # fmt: skip
