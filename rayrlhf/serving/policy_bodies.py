"""What is sent to the policy's server, and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.wire import Body


def _numbers(value: Any) -> Floats:
    try:
        found = np.array(value, dtype=object)  # as they are: NumPy makes room for its longest string in each element
        kinds = set(map(type, found.ravel()))
        if list in kinds:
            raise ValueError("wanted lists of numbers, all of one length")
        if not kinds <= {int, float}:
            raise ValueError("wanted numbers and nothing else")
        with np.errstate(over="ignore"):
            narrow: Floats = found.astype(np.float64).astype(np.float32)
    except (OverflowError, RecursionError) as error:
        raise ValueError("wanted lists of numbers that 32 bits can hold") from error
    if not np.isfinite(narrow).all():
        raise ValueError("wanted finite numbers: no NaN, no infinity, nothing beyond 32 bits")
    return narrow


_SCHEMA = {"type": "array", "items": {}, "description": "numbers, in lists of equal length"}
Numbers = Annotated[Any, BeforeValidator(_numbers), WithJsonSchema(_SCHEMA)]
"""A float32 array of any rank, finite."""
Name = Annotated[str, Field(max_length=100)]
Sentence = Annotated[str, Field(min_length=1, max_length=300)]
"""What the robot is to do, for a policy of several tasks."""


class ActBody(Body):
    """One observation `[O]` or several `[B, O]`; `task` may be left out where one policy is served."""

    obs: Numbers
    task: Name | None = None
    instruction: Sentence | None = None
    deterministic: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the noise where `deterministic` is false; the same body is answered by the same action then."""

    @model_validator(mode="after")
    def _seed_is_for_samples(self) -> "ActBody":
        if self.deterministic and self.seed is not None:
            raise ValueError("a seed is for sampled actions: give deterministic false with it")
        return self


class RewardBody(Body):
    """A segment `[T, O]` with its actions `[T, A]`, in the simulator's units, or several: `[B, T, O]`, `[B, T, A]`."""

    obs: Numbers
    action: Numbers
    task: Name | None = None
    instruction: Sentence | None = None


@dataclass(frozen=True)
class Acted:
    """`action` has the rank of the observations."""

    action: Sequence[Any]
    task: str
    version: str


@dataclass(frozen=True)
class Rewarded:
    """Per step `[T]` or `[B, T]`, and of the sums over steps: the members' mean and standard deviation (ddof 0)."""

    reward: Sequence[Any]
    disagreement: Sequence[Any]
    sum: Any
    sum_disagreement: Any
    task: str
    version: str
