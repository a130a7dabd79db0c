"""What the preference store takes and gives."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from rayrlhf.config import QueueOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store.tables import NAME_LENGTH
from rayrlhf.preferences.store.voting import Status

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Of a run or a query. These bounds are checked where records come over the network."""
CLIP_PATTERN = r"^[0-9a-f]{32}\.mp4$"
Clip = Annotated[str, StringConstraints(pattern=CLIP_PATTERN)]
"""A clip's file, named by the hash of its content."""
_ONE_PART = r"^[^/\\.\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$"
RunName = Annotated[str, StringConstraints(max_length=NAME_LENGTH, pattern=_ONE_PART)]
"""A run's name is one part of a path, too."""
NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's texts hold none."""
Text = Annotated[str, StringConstraints(max_length=20_000, pattern=NO_NUL)]
Number = Annotated[int, Field(ge=0, lt=2**31)]
Steps = Annotated[tuple[float, ...], Field(max_length=10_000)]
_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
Role = Literal["annotator", "trainer", "admin"]
Purpose = Literal["vote", "gold", "repeat"]
"""Why an annotator is shown a question: for its label, to test them, or to see whether they say the same again."""


def clip_name(content: bytes) -> str:
    """The name of the MP4 file `content`: the same again when it is stored again."""
    return f"{hashlib.blake2b(content, digest_size=16).hexdigest()}.mp4"


class RefusedError(UserError):
    """A call that cannot be carried out as things are; nothing was changed.

    why: `unknown` (there is no such thing, or it is not the caller's), `conflict` (it was done otherwise), `late`,
    `elsewhere` (it is another queue's)
    """

    def __init__(self, why: Literal["unknown", "conflict", "late", "elsewhere"], message: str) -> None:
        super().__init__(message)
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions come out of actors as they went in."""
        return type(self), (self.why, str(self))


def unknown_run(run: str) -> RefusedError:
    """What is said of a run that is not in the store."""
    return RefusedError("unknown", f"there is no run {run!r} in the preference store")


@dataclass(frozen=True)
class Run:
    """Whatever asks: a training run, or a file of pairs.

    sentence: what the robot is to do, as the annotators read it
    identity: drawn by whoever asks; another one may not ask under the same name
    """

    __pydantic_config__ = _CHECKED

    name: RunName
    task: Text
    sentence: Text
    guidelines: Text = ""
    options: QueueOptions = field(default_factory=QueueOptions)
    identity: Annotated[str, StringConstraints(max_length=NAME_LENGTH, pattern=NO_NUL)] = ""


@dataclass(frozen=True)
class Question:
    """One query as the queue holds it; its segments are in the run's dataset, by its id.

    position:               its place among those of its session
    gold:                   the known answer, of one that tests annotators and makes no label
    left_clip, right_clip:  names of its clips
    ready:                  it may be shown
    instruction:            what the robot is to do, where that is not the run's sentence
    """

    __pydantic_config__ = _CHECKED

    id: Name
    session: Number
    position: Number
    gold: Choice | None = None
    left_clip: Clip | None = None
    right_clip: Clip | None = None
    ready: bool = True
    instruction: Text | None = None


@dataclass(frozen=True)
class Curves:
    """The learned reward along a query's two segments, a number a step, by the reward model of `version`."""

    __pydantic_config__ = _CHECKED

    query_id: Name
    version: Number
    left: Steps
    right: Steps


@dataclass(frozen=True)
class Lease:
    """A question that is `annotator`'s until `expires_at`; clips as they are to be shown.

    fresh: it was not theirs yet
    instruction: what the robot is to do, where that is not the run's sentence
    """

    id: int
    query_id: str
    run: str
    left_clip: str | None
    right_clip: str | None
    expires_at: float
    fresh: bool = False
    instruction: str | None = None


@dataclass(frozen=True)
class Receipt:
    """An answer that is stored, to a question of `run`'s.

    counted: it was a vote, and came while votes were wanted   took: seconds since the lease; none of a repeated call
    """

    answer_id: int
    query_id: str
    run: str
    counted: bool
    took: float | None = field(compare=False)


@dataclass(frozen=True)
class Vote:
    """What one annotator said of a query, of its own left and right.

    flipped: they were shown its left segment on the right
    """

    annotator: str
    choice: Choice
    seconds: float
    replays: int
    flipped: bool = False


@dataclass(frozen=True)
class Decision:
    """A query that is decided. `choice` and `target` are those of its label, if it has one."""

    query_id: str
    session: int
    status: Status
    choice: Choice | None
    target: float | None
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Annotator:
    """Who a token belongs to."""

    name: str
    role: Role
