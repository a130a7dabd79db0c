"""Frames of what a teacher of the user's own is asked about: drawn in a process of their own when it looks at them."""

import logging
import os
import threading
from functools import partial
from pathlib import Path

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from rayrlhf.actors.hosts import RendererHost, RoleHandle, start_host
from rayrlhf.actors.moments import Moments, Scene
from rayrlhf.actors.renderer import NICENESS, NotDrawnError
from rayrlhf.algorithms.collector import environment_of, number_of
from rayrlhf.config import RunConfig
from rayrlhf.envs.clips import Stage
from rayrlhf.envs.instructions import sentences_of
from rayrlhf.errors import in_one_line
from rayrlhf.logs import event
from rayrlhf.placement import placement_of
from rayrlhf.teachers import Frames

_log = logging.getLogger(__name__)

TRIES = 3
"""Processes that are started to draw one question, where they die of it."""


class Draughtsman:
    """Draws moments of a run's episodes."""

    def __init__(self, run: RunConfig) -> None:
        os.nice(NICENESS)
        self._stage = Stage(run.env, seed=run.seed)

    def draw(self, scene: Scene) -> Frames:
        """A frame of each moment, `[K, H, W, 3]`."""
        episode, moments = scene
        return np.stack(list(self._stage.frames(environment_of(episode), number_of(episode), moments)))


class Pictures:
    """The driver's side, and `teachers.Clips`: moments in the run's `folder`, and who draws them."""

    def __init__(self, run: RunConfig, name: str, folder: Path) -> None:
        self._run, self._name = run, name
        self._sentence = run.people.sentence or sentences_of(run.env)
        self._moments = Moments(folder / "moments")
        self.keep, self.showable = self._moments.keep, self._moments.showable
        self._lock = threading.Lock()
        self._closed = False
        self._drawing = self._start()

    @property
    def sentence(self) -> str:
        """What the robot is to do."""
        return self._sentence

    def frames(self, query_id: str, count: int) -> tuple[Frames, Frames]:
        """`count` frames of each clip. Raises `NotDrawnError` where the simulator cannot draw them."""
        try:
            left, right = (_few(scene, count) for scene in self._moments.scenes(query_id))
        except KeyError as error:
            raise NotDrawnError(f"{query_id} was not recorded") from error
        return self._drawn(query_id, left), self._drawn(query_id, right)

    def _drawn(self, query_id: str, scene: Scene) -> Frames:
        for _ in range(TRIES):
            drawing = self._drawing
            try:
                frames: Frames = ray.get(drawing("draw", scene))
                return frames
            except RayTaskError as error:
                raise NotDrawnError(f"{query_id} cannot be drawn: {in_one_line(error.cause)}") from error
            except RayActorError as error:
                self._replace(drawing, error)
        raise NotDrawnError(f"{query_id} cannot be drawn: {TRIES} processes died of it")

    def _replace(self, dead: RoleHandle, error: Exception) -> None:
        with self._lock:
            if self._drawing is dead and not self._closed:  # else another thread was here before
                _log.info(
                    "the renderer died; another one goes on", extra=event("lost", who="renderer", error=str(error))
                )
                self._drawing = self._start()

    def _start(self) -> RoleHandle:
        run, roles = self._run, {"renderer": partial(Draughtsman, self._run)}
        marks, cpus = placement_of(run).marks_of("renderer"), run.resources.renderer_cpus
        return start_host(roles, kind=RendererHost, name=f"{self._name}/renderer", cpus=cpus, marks=marks)["renderer"]

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._closed = True
            ray.kill(self._drawing.host)


def _few(scene: Scene, count: int) -> Scene:
    """`count` of the moments, from the first to the last at even distances."""
    episode, moments = scene
    return episode, moments[np.linspace(0, len(moments) - 1, count).round().astype(np.int64)]
