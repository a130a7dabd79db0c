"""People around a run: what they are asked, shown and told."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rayrlhf.actors.renderer import Studio
from rayrlhf.config import RunConfig
from rayrlhf.envs.instructions import sentence_of
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.client import QueueAddress, QueueClient
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.store import Curves, RefusedError, Run, UnavailableError
from rayrlhf.preferences.wire import Doing
from rayrlhf.teachers.human import HumanTeacher

_log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a call is tried for; what it was for is tried again with a later one."""
ROUND_SECONDS = 0.25
"""How often the studio is looked after."""
TELL_SECONDS = 2.0
"""How often people are told what training does."""


class People:
    """A run's teacher and studio, and a thread that looks after the studio and talks to the queue.

    Nothing here waits for the network but that thread, and the teacher where it is called.
    """

    def __init__(self, run: RunConfig, name: str, queue: QueueAddress, folder: Path) -> None:
        sentence = run.people.sentence or sentence_of(run.env)
        self._run = Run(name, run.env.task, sentence, run.people.guidelines, run.queue)
        self._client = QueueClient(queue.url, queue.token, patience=PATIENCE)
        self._studio = Studio(run, queue, folder / "moments")
        self.teacher = HumanTeacher(self._client, self._run, self._studio.make)
        self.keep, self.showable = self._studio.keep, self._studio.showable
        self._doing: Doing | None = None
        self._curves: list[Curves] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="people", daemon=True)
        self._thread.start()

    def test(self, queries: Queries, known: Mapping[str, Choice]) -> None:
        """Puts questions whose answers are `known`, to see how people answer them."""
        self.teacher.ask(self.showable(queries), known)

    def tell(self, doing: Doing) -> None:
        """Keeps what training does for the next time that people are told."""
        self._doing = doing

    def draw(self, queries: Queries, version: int, left: Floats, right: Floats) -> None:
        """Keeps the learned reward along both segments `[N, T]` of `queries` for the next time."""
        rows = zip(queries.ids, left.tolist(), right.tolist(), strict=True)
        self._curves += [Curves(key, version, tuple(one), tuple(other)) for key, one, other in rows]

    def close(self) -> None:
        """Tells people that the run is over, and ends the renderer."""
        self._closed.set()
        self._thread.join(2 * PATIENCE)
        self._doing = (self._doing or Doing(phase="")).model_copy(update={"phase": "over", "next_questions_at": None})
        self._tell()
        self._studio.close()
        self._client.close()

    def _look_after(self) -> None:
        self._reach(lambda: self._client.register(self._run))
        told = time.monotonic() - TELL_SECONDS
        while not self._closed.wait(ROUND_SECONDS):
            self._studio.tend()
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        curves, self._curves = self._curves, []
        if self._doing is not None:
            doing = self._doing
            self._reach(lambda: self._client.note(self._run.name, doing))
        if curves:
            self._reach(lambda: self._client.keep_curves(self._run.name, curves))

    def _reach(self, call: Callable[[], None]) -> None:
        """Tries once: what is told later tells more. Whoever asks says where the queue is away."""
        try:
            call()
        except (UnavailableError, RefusedError):
            pass
        except UserError as error:
            _log.warning("%s", error)
