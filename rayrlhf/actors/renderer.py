"""Clips of what people are asked about: drawn in a process of their own from recorded moments, and uploaded."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayError

from rayrlhf.actors.hosts import RendererHost, RoleHandle, start_host
from rayrlhf.actors.moments import Moments, Scene
from rayrlhf.algorithms.collector import environment_of, number_of
from rayrlhf.algorithms.files import Damaged
from rayrlhf.algorithms.roles import Ref
from rayrlhf.config import RunConfig
from rayrlhf.envs.clips import Stage
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.logs import event
from rayrlhf.placement import placement_of
from rayrlhf.preferences.client import QueueAddress, QueueClient, is_loopback
from rayrlhf.preferences.store import RefusedError

_log = logging.getLogger(__name__)

NICENESS = 5
"""How far drawing stands back behind training."""
AT_ONCE = 4
"""Questions whose clips are on their way."""
REST_SECONDS = 2.0
"""Pause after a clip that could not be made or stored."""
TRIES = 5
"""Of a clip that cannot be drawn; then its question is withdrawn."""
PATIENCE = 20.0
"""Seconds that an upload is tried for before the next try waits."""


class NotDrawnError(Exception):
    """A question's clips cannot be drawn."""


class Renderer:
    """Draws both clips of a question of the run `name`'s and hands them to the queue."""

    def __init__(self, run: RunConfig, name: str, queue: QueueAddress) -> None:
        os.nice(NICENESS)
        self._name = name
        self._stage = Stage(run.env, seed=run.seed)
        self._client = QueueClient(queue.url, queue.token, patience=PATIENCE)

    def show(self, question: str, left: Scene, right: Scene) -> str:
        """Makes the clips and says that the question can be shown; its id. May be called again."""
        try:
            clips = [
                self._stage.clip(environment_of(episode), number_of(episode), moments)
                for episode, moments in (left, right)
            ]
        except Exception as error:  # whatever the simulator or the encoder raises
            raise NotDrawnError(f"{question} cannot be drawn: {in_one_line(error)}") from error
        self._client.clips_made(self._name, question, *[self._client.store_clip(clip) for clip in clips])
        return question

    def withdraw(self, question: str) -> str:
        """Says that the question cannot be shown; its id. May be called again."""
        self._client.withdraw(self._name, question)
        return question


class Studio:
    """The driver's side: which clips are to be made, and by whom. For threads.

    Moments are read each time that clips are drawn: a queue whose database is another one wants them once more.
    """

    def __init__(self, run: RunConfig, name: str, queue: QueueAddress, folder: Path) -> None:
        self._moments = Moments(folder)
        self.keep, self.showable = self._moments.keep, self._moments.showable
        self._start = partial(_start_renderer, run, name, queue)
        self._renderer = self._start()
        self._lock = threading.Lock()
        self._closed = False
        self._wanted: list[str] = []
        self._tries: dict[str, int] = {}
        self._on_their_way: dict[Ref, str] = {}
        self._rest_until = 0.0
        self._complained = False

    def make(self, questions: Sequence[str]) -> None:
        """Sees to the clips of `questions`, those asked last first; returns at once."""
        with self._lock:
            known = {*self._wanted, *self._on_their_way.values()}
            self._wanted = [key for key in questions if key in self._moments and key not in known] + self._wanted
            for key in questions:
                self._tries.pop(key, None)

    def tend(self) -> None:
        """Takes note of what is done and sends off what comes next; returns at once, and is to be called often."""
        with self._lock:
            for reference in _finished(self._on_their_way):
                if reference in self._on_their_way:  # else it was lost with the renderer
                    self._take(reference, self._on_their_way.pop(reference))
            if self._closed or time.monotonic() < self._rest_until:
                return
            while self._wanted and len(self._on_their_way) < AT_ONCE:
                question = self._wanted.pop(0)
                try:
                    self._on_their_way[self._send_off(question)] = question
                except (Damaged, KeyError) as error:  # the file is not what it was
                    self._put_off(question, error, in_vain=True)
                    return

    def _send_off(self, question: str) -> Ref:
        if self._tries.get(question, 0) >= TRIES:
            return self._renderer("withdraw", question)
        return self._renderer("show", question, *self._moments.scenes(question))

    def _take(self, reference: Ref, question: str) -> None:
        try:
            ray.get(reference)
        except RayActorError as error:  # it holds nothing: another one does what it was at
            self._wanted = [question, *self._on_their_way.values(), *self._wanted]
            self._on_their_way = {}
            _log.info("the renderer died; another one goes on", extra=event("lost", who="renderer", error=str(error)))
            self._rest(error)
            self._renderer = self._start()
        except (UserError, RayError) as error:
            # none that the queue does not know is waited for
            self._put_off(question, error, in_vain=isinstance(error, NotDrawnError | RefusedError))
        else:
            self._complained = False
            if self._tries.pop(question, 0) == TRIES:
                _log.warning("%s was not asked: its clips could not be made", question)

    def _put_off(self, question: str, error: Exception, *, in_vain: bool) -> None:
        """It is tried again later; `in_vain`, a few times."""
        self._tries[question] = self._tries.get(question, 0) + in_vain
        self._wanted.append(question)
        self._rest(error)

    def _rest(self, error: Exception) -> None:
        if not self._complained:
            reason = str(getattr(error, "cause", None) or error).splitlines()[0]
            _log.warning("clips cannot be made or stored: %s; training goes on, and it is tried again", reason)
        self._complained = True
        self._rest_until = time.monotonic() + REST_SECONDS

    def close(self) -> None:
        """Ends the renderer."""
        with self._lock:
            self._closed = True
            ray.kill(self._renderer.host)


def _start_renderer(run: RunConfig, name: str, queue: QueueAddress) -> RoleHandle:
    """On this node where only this machine reaches the queue."""
    node = ray.get_runtime_context().get_node_id() if is_loopback(queue.host) else None
    roles = {"renderer": partial(Renderer, run, name, queue)}
    marks, cpus = placement_of(run).marks_of("renderer"), run.resources.renderer_cpus
    hosts = start_host(roles, kind=RendererHost, name=f"{name}/renderer", cpus=cpus, marks=marks, node=node)
    return hosts["renderer"]


def _finished(references: Iterable[Ref]) -> list[Ref]:
    waiting = list(references)
    if not waiting:
        return []
    done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
    return list(done)
