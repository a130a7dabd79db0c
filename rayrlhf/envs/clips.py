"""Clips of what happened in training, drawn afterwards from recorded moments."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.make import draws_of, make_env
from rayrlhf.envs.video import write_video
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Floats

CLIP_SECONDS = 2.0
"""People want one to two seconds (Christiano et al. 2017, appendix A.2)."""
SIZE = 256
_FPS = (5.0, 30.0)


def clip_fps(steps: int) -> float:
    """Frames a second of a clip of `steps`: it lasts `CLIP_SECONDS`, unless that were a slide show or a blur."""
    return float(np.clip(steps / CLIP_SECONDS, *_FPS))


class Stage:
    """An environment of each task, in which moments of a run's training episodes are shown again.

    The run's `options` and `seed` name its episodes, so that nothing but the moments need be kept of them.
    """

    def __init__(self, options: EnvOptions, *, seed: int, size: int = SIZE) -> None:
        """Raises `UserError` where the environment cannot show recorded moments."""
        self._options, self._seed, self._size = options, seed, size
        self._envs: dict[int, VectorEnv] = {}
        spec = self._of_task(0).spec
        if not spec.recalls:
            raise UserError(f"{spec.name} ({options.backend}) cannot show recorded moments: people would see nothing")

    def frames(self, environment: int, episode: int, moments: Floats) -> Iterator[NDArray[np.uint8]]:
        """A frame `[H, W, 3]` of each of `moments` `[T, M]` of the `episode`-th episode of an environment."""
        draws = draws_of(self._options, self._seed, (environment,))
        start, env = draws.seed_of(0, episode), self._of_task(draws.task_of(0, episode))
        for moment in moments:
            env.recall(0, start, moment)
            yield env.render(0, width=self._size, height=self._size)

    def clip(self, environment: int, episode: int, moments: Floats) -> bytes:
        """The moments as an MP4 file: H.264, yuv420p, index first."""
        with TemporaryDirectory() as folder:  # the index goes first when the rest is there: that wants a file
            path = Path(folder) / "clip.mp4"
            write_video(path, self.frames(environment, episode, moments), clip_fps(len(moments)))
            return path.read_bytes()

    def close(self) -> None:
        """Frees the simulators."""
        for env in self._envs.values():
            env.close()

    def _of_task(self, number: int) -> VectorEnv:
        if number not in self._envs:
            self._envs[number] = make_env(self._options.only(number), 1, seed=self._seed)
        return self._envs[number]
