"""How training talks to whoever answers: a program, or people through a queue."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries


class Teacher(Protocol):
    """Asks at once, collects whenever answers have come. Training decides whether it waits in between."""

    def ask(self, queries: Queries) -> None:
        """Puts `queries` to the teacher and returns at once. An id asked before is not asked again."""
        ...

    def collect(self) -> list[Answer]:
        """The answers that have come since the last call, possibly none."""
        ...


Frames = NDArray[np.uint8]
"""Pictures `[K, H, W, 3]`."""


class Clips(Protocol):
    """What people would see of the questions, for teachers that look at pictures."""

    @property
    def sentence(self) -> str:
        """What the robot is to do."""
        ...

    def frames(self, query_id: str, count: int) -> tuple[Frames, Frames]:
        """`count` frames of the left and of the right clip, from the first to the last at even distances.

        Waits until they are drawn; may be called from any thread, of any question that was asked.
        """
        ...


@runtime_checkable
class Sees(Protocol):
    """A teacher that looks at clips; `teacher.clips` must be set, so that what they are drawn from is recorded."""

    def see(self, clips: Clips) -> None:
        """Called once, before anything is asked."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A teacher that holds something, such as threads or connections."""

    def close(self) -> None:
        """Called once, at the end of the run: nothing is asked or collected any more."""
        ...
