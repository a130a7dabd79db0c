"""What goes over the network between the queue, the programs that ask and the people who answer.

Bodies of requests; answers are the store's own records. The server and the client in Python share them.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rayrlhf.config.options import AccountName
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store.records import Clip, Curves, Name, Question, Role

MOST_AT_ONCE = 1000
"""Questions, or ids, in one request."""
MOST_CURVES = 100
MOST_LEASES = 10
REFUSAL_STATUS = {"unknown": 404, "conflict": 409, "late": 410, "elsewhere": 409}
"""HTTP's status by why a call is refused."""
QUEUE_HEADER = "Rayrlhf-Queue"
"""Names the queue that a call of whoever answers is meant for, as `Me` does: another one refuses it."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
"""Drawn by whoever answers, so that a call that is repeated answers once."""


class Body(BaseModel):
    """A request's body: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Asked(Body):
    """Questions to put to people."""

    questions: Annotated[list[Question], Field(max_length=MOST_AT_ONCE)]


class ClipsMade(Body):
    """The clips of a question, which can be shown now."""

    query_id: Name
    left_clip: Clip
    right_clip: Clip


class Withdrawn(Body):
    """A question that cannot be shown."""

    query_id: Name


class Drawn(Body):
    """The learned reward along segments."""

    curves: Annotated[list[Curves], Field(max_length=MOST_CURVES)]


class Received(Body):
    """Ids of queries whose verdicts have arrived."""

    received: Annotated[list[Name], Field(max_length=MOST_AT_ONCE)] = []


class Wanted(Body):
    """How many questions to hold at the same time: the one that is shown, and those that come next."""

    count: Annotated[int, Field(ge=1, le=MOST_LEASES)] = 1


class Said(Body):
    """One answer, of the clips as they were shown."""

    lease: Annotated[int, Field(ge=1, lt=2**31)]
    choice: Choice
    key: Key
    seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    replays: Annotated[int, Field(ge=0, le=100_000)] = 0


class Doing(Body):
    """What a training run does just now, for whoever waits for questions."""

    phase: Annotated[str, StringConstraints(max_length=100)]
    env_steps: Count = 0
    total_steps: Count = 0
    labels: Count = 0
    budget: Count = 0
    next_questions_at: Count | None = None
    """Environment steps at which the next ones are due."""


@dataclass(frozen=True)
class Shown:
    """A question as an annotator gets it: nothing in it tells what it is asked for."""

    lease: int
    left_clip: str | None
    right_clip: str | None
    seconds_left: float
    instruction: str | None = None
    """What the robot is to do, where that is not the run's sentence."""


@dataclass(frozen=True)
class Stored:
    """An answer that is stored, by the number with which it can be taken back."""

    answer: int


class NewAccount(Body):
    """Who is to get a token."""

    name: AccountName
    role: Role


@dataclass(frozen=True)
class Me:
    """Who calls, and which queue this is. queue: its database's identity; empty from servers that have none."""

    name: str
    role: Role
    queue: str = ""


@dataclass(frozen=True)
class Account:
    """An account as admins see it; `usable` unless its token was ended."""

    name: str
    role: Role
    usable: bool


@dataclass(frozen=True)
class Agreement:
    """How far people agree; none where nobody answered what others did."""

    krippendorff_alpha: float | None


@dataclass(frozen=True)
class Health:
    """That a queue answers, and of which version it is."""

    status: str
    version: str


@dataclass(frozen=True)
class Token:
    """Of a new account; it is shown this once."""

    token: str


@dataclass(frozen=True)
class Problem:
    """What went wrong, in one line, and of which kind."""

    detail: str
    why: str
