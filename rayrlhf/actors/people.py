"""People around a run: what they are asked, shown and told."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from rayrlhf.actors.renderer import Studio
from rayrlhf.config import RunConfig
from rayrlhf.envs.instructions import sentences_of
from rayrlhf.errors import UserError
from rayrlhf.files import write_atomically
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
EXCHANGE_SECONDS = 1.0
"""How often the queue is asked for what people have decided."""
TELL_SECONDS = 2.0
"""How often people are told what training does."""


class People:
    """A run's teacher and studio, and a thread that looks after the studio and talks to the queue.

    Nothing here waits for the network but that thread.
    """

    def __init__(self, run: RunConfig, name: str, queue: QueueAddress, folder: Path) -> None:
        sentence = run.people.sentence or sentences_of(run.env)
        identity = identity_of(folder)
        self._run = Run(name, run.env.task, sentence, run.people.guidelines, run.queue, identity)
        self._client = QueueClient(queue.url, queue.token, patience=PATIENCE)
        self._studio = Studio(run, name, queue, folder / "moments")
        self.teacher = HumanTeacher(self._client, self._run, self._studio.make)
        self.keep, self.showable = self._studio.keep, self._studio.showable
        self._doing: Doing | None = None
        self._curves: list[Curves] = []
        self._closed = threading.Event()
        self._registered = self._complained = False
        with suppress(UnavailableError):  # else when the queue is there
            self._client.register(self._run)
            self._registered = True
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
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return
        rows = zip(queries.ids, left.tolist(), right.tolist(), strict=True)
        self._curves += [Curves(key, version, tuple(one), tuple(other)) for key, one, other in rows]

    def close(self) -> None:
        """Tells people that the run is over, and ends the renderer."""
        self._closed.set()
        self._thread.join(2 * PATIENCE)
        if not self._thread.is_alive():  # else the queue is away
            doing = self._doing or Doing(phase="")
            self._doing = doing.model_copy(update={"phase": "over", "next_questions_at": None})
            self._tell()
        self._studio.close()
        self._client.close()

    def _look_after(self) -> None:
        told = exchanged = time.monotonic() - TELL_SECONDS
        while not self._closed.wait(ROUND_SECONDS):
            try:
                self._studio.tend()
                if self.teacher.waiting or time.monotonic() - exchanged >= EXCHANGE_SECONDS:
                    exchanged = time.monotonic()
                    self.teacher.exchange()
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    self._tell()
            except Exception:  # a mistake of ours: without this thread nobody would be asked any more
                _log.exception("what people are asked and said could not be looked after; it is tried again")
                self._closed.wait(TELL_SECONDS)

    def _tell(self) -> None:
        if not self._registered:
            self._registered = self._reach(lambda: self._client.register(self._run))
        if (doing := self._doing) is not None:
            self._reach(lambda: self._client.note(self._run.name, doing))
        if curves := self._curves:
            self._curves = []
            if not self._reach(lambda: self._client.keep_curves(self._run.name, curves)):
                self._curves = curves + self._curves

    def _reach(self, call: Callable[[], None]) -> bool:
        """Tries once; whether it came to the queue. Whoever asks says where that is away."""
        try:
            call()
        except UnavailableError:
            return False
        except RefusedError:  # its database is another one
            self._registered = False
            return False
        except UserError as error:
            if not self._complained:
                _log.warning("people are not told what training does: %s", error)
            self._complained = True
            return False
        return True


def identity_of(folder: Path) -> str:
    """Drawn once for a run's folder, and copied with it: another run of its name may not ask in the same queue."""
    file = folder / "moments" / "identity"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, secrets.token_hex(16))
    return file.read_text()
