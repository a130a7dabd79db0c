"""Segments and the questions made of them.

A segment is `T` consecutive transitions of one episode; a query is an ordered pair of segments. Both are kept in
columns: one object holds many.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np

from rayrlhf.preferences.fragments import Bools, Floats, Integers

_COLUMN_RANK = {"obs": 3, "action": 3, "reward": 2, "success": 2, "episode": 1, "start": 1, "context": 3}


@dataclass(frozen=True)
class Segments:
    """`N` segments of `T` transitions.

    obs: `[N, T, O]`   action: `[N, T, A]`   reward: `[N, T]` true reward, NaN throughout where nobody knows it
    success: `[N, T]`
    episode: `[N]` episode id   start: `[N]` index of the first transition in its episode
    context: `[N, 2 C, O + A]` observations and actions of the `C` transitions before and the `C` after, NaN where the
             episode has none; no teacher is asked about them
    """

    obs: Floats
    action: Floats
    reward: Floats
    success: Bools
    episode: Integers
    start: Integers
    context: Floats | None = None

    def __post_init__(self) -> None:
        count = len(self.episode)
        for name, column in self._columns().items():
            if column.ndim != _COLUMN_RANK[name] or len(column) != count:
                raise ValueError(f"segment column {name!r} has shape {column.shape} for {count} segments")
        lengths = {column.shape[1] for column in (self.obs, self.action, self.reward, self.success)}
        if len(lengths) > 1:
            raise ValueError(f"segment columns disagree about the length: {sorted(lengths)}")
        if self.context is not None and (self.context.shape[1] % 2 or self.context.shape[2] != self._width):
            raise ValueError(f"a context of shape {self.context.shape} for rows of {self._width} numbers")

    def _columns(self) -> dict[str, np.ndarray]:
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in present.items() if column is not None}

    @property
    def _width(self) -> int:
        return int(self.obs.shape[2] + self.action.shape[2])

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def length(self) -> int:
        """Transitions per segment."""
        return int(self.reward.shape[1])

    def shown(self) -> list[bytes]:
        """A hash of what each shows: observations and actions."""
        return [_hash(obs.tobytes() + action.tobytes()) for obs, action in zip(self.obs, self.action, strict=True)]

    def rewarded(self) -> Bools:
        """Which of them have a true reward, `[N]`: of others' data there may be none, and no teacher may judge it."""
        known: Bools = np.logical_and.reduce(np.isfinite(self.reward), axis=1)
        return known

    def take(self, index: Integers) -> "Segments":
        """The segments at `index` `[K]`, in that order."""
        return Segments(**{name: column[index] for name, column in self._columns().items()})

    @staticmethod
    def concatenate(parts: "list[Segments]") -> "Segments":
        """All segments of `parts`, in order; the parts must share length and widths."""
        names = [name for name in _COLUMN_RANK if name != "context"]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        margin = max(part.margin for part in parts)
        context = np.concatenate([part.with_margin(margin) for part in parts]) if margin else None
        return Segments(**joined, context=context)

    @property
    def margin(self) -> int:
        """Transitions of context on either side."""
        return 0 if self.context is None else self.context.shape[1] // 2

    def with_margin(self, margin: int) -> Floats:
        """The context with `margin` transitions on either side, NaN beyond what there is, `[N, 2 margin, O + A]`."""
        wide = np.full((len(self), 2 * margin, self._width), np.nan, np.float32)
        if self.context is not None:
            common = min(margin, self.margin)
            middle = slice(self.margin - common, self.margin + common)
            wide[:, margin - common : margin + common] = self.context[:, middle]
        return wide


@dataclass(frozen=True)
class Queries:
    """`N` ordered pairs of segments put to a teacher.

    ids:            deterministic, `query_id(run, session, index)`
    session:        the round they were asked in
    typical_return: mean true return of the newest episodes (at most 10), scaled to a segment's length: the unit of
                    the scripted teachers' thresholds (B-Pref, section 3)
    instructions:   what the robot was to do, of each query one sentence, or an empty string; none: of none
    """

    ids: tuple[str, ...]
    session: int
    left: Segments
    right: Segments
    typical_return: float = 0.0
    instructions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.instructions) not in (0, len(self.ids)):
            raise ValueError(f"{len(self.instructions)} instructions for {len(self.ids)} queries")
        if not len(self.ids) == len(self.left) == len(self.right):
            raise ValueError(f"{len(self.ids)} ids for {len(self.left)} left and {len(self.right)} right segments")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("query ids repeat")
        if self.left.length != self.right.length:
            raise ValueError(f"left segments have {self.left.length} steps, right ones {self.right.length}")

    def __len__(self) -> int:
        return len(self.ids)

    def contents(self) -> list[str]:
        """A hash of what each query shows, whatever it is called: observations and actions of both, the instruction."""
        columns = [column for side in (self.left, self.right) for column in (side.obs, side.action)]
        shown = (b"".join(column[i].tobytes() for column in columns) for i in range(len(self)))
        said = (sentence.encode() for sentence in self.instructions or ("",) * len(self))
        return [_hash(a + b).hex() for a, b in zip(shown, said, strict=True)]

    def pairs(self) -> list[str]:
        """A hash of the two segments of each query, whichever is on the left and whatever was asked of them: who has
        learnt from one answer to a pair knows something of all others."""
        sides = zip(self.left.shown(), self.right.shown(), strict=True)
        return [_hash(b"".join(sorted(both))).hex() for both in sides]

    def among(self, ids: Collection[str]) -> "Queries":
        """The queries whose ids are in `ids`, in their own order."""
        return self.take(np.array([i for i, key in enumerate(self.ids) if key in ids], dtype=np.int64))

    def take(self, index: Integers) -> "Queries":
        """The queries at `index` `[K]`, in that order."""
        ids = tuple(self.ids[i] for i in index)
        said = tuple(self.instructions[i] for i in index) if self.instructions else ()
        return Queries(ids, self.session, self.left.take(index), self.right.take(index), self.typical_return, said)


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def query_id(run: str, session: int, index: int) -> str:
    """The id of one query: the same after every resume, so that nobody is asked twice."""
    return f"{run}/{session:05d}/{index:05d}"


def index_in_session(key: str) -> int:
    """The `index` in an id that `query_id` made; ValueError for another one."""
    return int(key.rpartition("/")[2])
