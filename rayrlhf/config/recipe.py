"""Options of preference data over many tasks; the numbers are the paper's (arXiv 2212.03363, appendix B)."""

import hashlib
import json
from typing import Self

from pydantic import model_validator

from rayrlhf.config.options import NonNegative, NonNegativeFloat, Options, Positive

KINDS = ("expert", "within", "cross", "random")
"""Of episodes."""


class Episodes(Options):
    """How many episodes of each kind one draw gets."""

    expert: NonNegative = 15
    """Episodes of the task's own scripted expert in each draw."""
    within: NonNegative = 25
    """Of its expert for another draw."""
    cross: NonNegative = 10
    """Of the expert of another of the tasks."""
    random: NonNegative = 2
    """Of random actions."""
    noise: NonNegativeFloat = 0.1
    """Deviation of the noise on the experts' actions."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.kinds():
            raise ValueError(f"one of {', '.join(KINDS)} must be above 0")
        return self

    def kinds(self) -> list[str]:
        """The kind of each episode."""
        return [kind for kind in KINDS for _ in range(getattr(self, kind))]


class Recipe(Options):
    """What is generated; the data are a function of it and of nothing else."""

    tasks: str = "ml10-train"
    """One, several with commas between them, or a set: mt10, ml10-train, ml10-test."""
    without: str = ""
    """Tasks to leave out of these, such as those to be learnt later."""
    draws: Positive = 25
    """Of objects and goal, of each task."""
    episodes: Episodes = Episodes()
    pairs: Positive = 1000
    """Questions about each draw."""
    segment_length: Positive = 25
    """Steps of the clips."""
    horizon: Positive = 500
    """Steps after which an episode ends, if nobody has succeeded."""
    show_goal: bool = False
    """Leave the goal in the observations."""
    teacher: str = "oracle"
    """A scripted one."""
    wordings: Positive = 6
    """Ways to say each instruction, of which every question draws one."""
    seed: NonNegative = 0
    """All of it follows from this."""

    @model_validator(mode="after")
    def _clips_fit(self) -> Self:
        if self.segment_length > self.horizon:
            raise ValueError(f"segment_length {self.segment_length} is longer than horizon {self.horizon}")
        return self

    @property
    def name(self) -> str:
        """How its questions' ids begin."""
        return f"generated-{hashlib.blake2b(json.dumps(self.model_dump()).encode(), digest_size=4).hexdigest()}"
