"""What clips of questions are drawn from: in the run's folder (`moments/00003.safetensors`, a file per session).

It lies there before anybody is asked, so that a clip that a crash kept from being made is made after it.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from rayrlhf.algorithms.files import Arrays, read_arrays, write_arrays
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Queries

Scene = tuple[int, Floats]
"""An episode's id and moments of it `[T, M]`."""


@dataclass(frozen=True)
class Place:
    """Where a question's moments are, and the episodes that they are of."""

    session: int
    left: int
    right: int


class Moments:
    """The moments of a run's questions, by these' ids. For threads.

    They are read each time that they are wanted: a long run has many.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}

    def keep(self, queries: Queries, moments: Arrays) -> None:
        """Writes the moments of a session's questions, before these are asked."""
        write_arrays(self.file(queries.session), moments)

    def showable(self, queries: Queries) -> Queries:
        """Those of one session's questions whose clips can be made; from now on their scenes are known."""
        file = self.file(queries.session)
        moments = read_arrays(file) if len(queries) and file.is_file() else {}
        rows = zip(queries.ids, queries.left.episode.tolist(), queries.right.episode.tolist(), strict=True)
        found = {
            key: Place(queries.session, left, right)
            for key, left, right in rows
            if f"{key}/left" in moments and f"{key}/right" in moments
        }
        with self._lock:
            self._places |= found
        return queries.among(found.keys())

    def __contains__(self, question: str) -> bool:
        """Whether it was found to be showable."""
        with self._lock:
            return question in self._places

    def scenes(self, question: str) -> tuple[Scene, Scene]:
        """The left and the right one. Raises `Damaged` and `KeyError` where the file is not what it was."""
        with self._lock:
            place = self._places[question]
        moments = read_arrays(self.file(place.session))
        return (place.left, moments[f"{question}/left"]), (place.right, moments[f"{question}/right"])

    def file(self, session: int) -> Path:
        """Where the moments of a session's questions are."""
        return self._folder / f"{session:05d}.safetensors"
