"""Segments and the questions made of them.

A segment is `T` consecutive transitions of one episode; a query is an ordered pair of segments. Both are kept in
columns: one object holds many.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np

from rayrlhf.preferences.fragments import Bools, Floats, Integers

_COLUMN_RANK = {"obs": 3, "action": 3, "reward": 2, "success": 2, "episode": 1, "start": 1}


@dataclass(frozen=True)
class Segments:
    """`N` segments of `T` transitions.

    obs: `[N, T, O]`   action: `[N, T, A]`   reward: `[N, T]` true reward   success: `[N, T]`
    episode: `[N]` episode id   start: `[N]` index of the first transition in its episode
    """

    obs: Floats
    action: Floats
    reward: Floats
    success: Bools
    episode: Integers
    start: Integers

    def __post_init__(self) -> None:
        count = len(self.episode)
        for field in fields(self):
            column = getattr(self, field.name)
            if column.ndim != _COLUMN_RANK[field.name] or len(column) != count:
                raise ValueError(f"segment column {field.name!r} has shape {column.shape} for {count} segments")
        lengths = {column.shape[1] for column in (self.obs, self.action, self.reward, self.success)}
        if len(lengths) > 1:
            raise ValueError(f"segment columns disagree about the length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def length(self) -> int:
        """Transitions per segment."""
        return int(self.reward.shape[1])

    def take(self, index: Integers) -> "Segments":
        """The segments at `index` `[K]`, in that order."""
        return Segments(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def concatenate(parts: "list[Segments]") -> "Segments":
        """All segments of `parts`, in order; the parts must share length and widths."""
        return Segments(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Segments)}
        )


@dataclass(frozen=True)
class Queries:
    """`N` ordered pairs of segments put to a teacher.

    ids:            deterministic, `query_id(run, session, index)`
    session:        the round they were asked in
    typical_return: mean true return of the newest episodes (at most 10), scaled to a segment's length: the unit of
                    the scripted teachers' thresholds (B-Pref, section 3)
    """

    ids: tuple[str, ...]
    session: int
    left: Segments
    right: Segments
    typical_return: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.left) == len(self.right):
            raise ValueError(f"{len(self.ids)} ids for {len(self.left)} left and {len(self.right)} right segments")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("query ids repeat")
        if self.left.length != self.right.length:
            raise ValueError(f"left segments have {self.left.length} steps, right ones {self.right.length}")

    def __len__(self) -> int:
        return len(self.ids)

    def contents(self) -> list[str]:
        """A hash of what each query shows, whatever it is called: observations and actions of both segments."""
        columns = [column for side in (self.left, self.right) for column in (side.obs, side.action)]
        shown = (b"".join(column[i].tobytes() for column in columns) for i in range(len(self)))
        return [hashlib.blake2b(bytes_of_one, digest_size=8).hexdigest() for bytes_of_one in shown]

    def among(self, ids: Collection[str]) -> "Queries":
        """The queries whose ids are in `ids`, in their own order."""
        return self.take(np.array([i for i, key in enumerate(self.ids) if key in ids], dtype=np.int64))

    def take(self, index: Integers) -> "Queries":
        """The queries at `index` `[K]`, in that order."""
        ids = tuple(self.ids[i] for i in index)
        return Queries(ids, self.session, self.left.take(index), self.right.take(index), self.typical_return)


def query_id(run: str, session: int, index: int) -> str:
    """The id of one query: the same after every resume, so that nobody is asked twice."""
    return f"{run}/{session:05d}/{index:05d}"
