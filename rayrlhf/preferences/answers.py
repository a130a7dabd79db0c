"""What teachers say, and the labels that follow from it."""

from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np

from rayrlhf.preferences.fragments import Floats, Integers
from rayrlhf.preferences.segments import Queries, Segments

Choice = Literal["left", "right", "equal", "skip"]
TARGETS: dict[Choice, float] = {"left": 0.0, "equal": 0.5, "right": 1.0}
"""P(right preferred) by choice. A skip makes no label, so it has no target."""

MAX_REPLAYS = 1 << 62
"""What is stored has 64 bits."""


@dataclass(frozen=True)
class Answer:
    """What one annotator said of one query. `seconds` taken and `replays` are 0 for programs."""

    query_id: str
    choice: Choice
    annotator: str
    seconds: float = 0.0
    replays: int = 0

    def __post_init__(self) -> None:
        if self.choice not in get_args(Choice):
            raise ValueError(f"answer to {self.query_id!r}: {self.choice!r} is none of {', '.join(get_args(Choice))}")
        if not isinstance(self.annotator, str) or not self.annotator:
            raise ValueError(f"answer to {self.query_id!r}: its annotator is {self.annotator!r}, wanted a name")
        if not (np.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"answer to {self.query_id!r}: negative or infinite time")
        if not (0 <= self.replays < MAX_REPLAYS and self.replays % 1 == 0):
            raise ValueError(f"answer to {self.query_id!r}: replays are negative, or no number")


@dataclass(frozen=True)
class Labels:
    """What the reward model is fitted to: `target` `[N]` in [0, 1] = P(right preferred).

    instructions: one sentence of each pair, or an empty string; none: of none
    """

    left: Segments
    right: Segments
    target: Floats
    instructions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.target) == len(self.left) == len(self.right):
            raise ValueError(f"{len(self.target)} targets for {len(self.left)} pairs")
        if not ((self.target >= 0) & (self.target <= 1)).all():
            raise ValueError("a label's target lies outside [0, 1]")
        if len(self.instructions) not in (0, len(self.target)):
            raise ValueError(f"{len(self.instructions)} instructions for {len(self.target)} labels")

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: Integers) -> "Labels":
        """The labels at `index` `[K]`, in that order."""
        said = tuple(self.instructions[i] for i in index) if self.instructions else ()
        return Labels(self.left.take(index), self.right.take(index), self.target[index], said)

    @staticmethod
    def concatenate(parts: "list[Labels]") -> "Labels":
        """All labels of `parts`, in order; the parts must share length and widths."""
        said = [part.instructions or ("",) * len(part) for part in parts]
        return Labels(
            Segments.concatenate([part.left for part in parts]),
            Segments.concatenate([part.right for part in parts]),
            np.concatenate([part.target for part in parts]),
            tuple(chain.from_iterable(said)) if any(part.instructions for part in parts) else (),
        )


def labels_from(queries: Queries, answers: list[Answer]) -> Labels:
    """The labels in `answers` to `queries`, in the queries' order; skips and unanswered queries make none.

    Several answers to one query give the mean of their targets.
    """
    said: dict[str, list[float]] = {}
    for answer in answers:
        if answer.choice != "skip":
            said.setdefault(answer.query_id, []).append(TARGETS[answer.choice])
    index = np.array([i for i, key in enumerate(queries.ids) if key in said], dtype=np.int64)
    labelled = queries.take(index)
    target = np.array([np.mean(said[key]) for key in labelled.ids], dtype=np.float32)
    return Labels(labelled.left, labelled.right, target, labelled.instructions)
