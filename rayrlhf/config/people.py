"""Options for people who answer: how many of them, by which rules, and where."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayrlhf.config.options import AccountName, Few, Fraction, Options


class QueueOptions(Options):
    """How people's answers become labels, and how long a question is theirs."""

    overlap: Few = 1
    """Different people who are asked each question."""
    min_answers: Few = 1
    """Answers without which a question makes no label; at most `overlap`."""
    agreement: Fraction = 0.6
    """Share of the answers that must say the same; where fewer do, more people are asked."""
    max_answers: Few = 5
    """People who are asked at most; a question they still disagree about makes no label."""
    labels: Literal["majority", "soft"] = "majority"
    """A label is what most said, or the mean of what all said (left 0, equal 0.5, right 1)."""
    lease_seconds: Annotated[float, Field(gt=0.0, le=1e7)] = 300.0
    """A question is kept for whoever was shown it for so long; then others are asked."""
    settle_seconds: Annotated[float, Field(ge=0.0, le=1e7)] = 10.0
    """An answer can be taken back for so long; then training learns from it."""
    gold_every: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Every so many-th question of each annotator is one whose answer is known; 0: none."""
    repeat_every: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Every so many-th question of each annotator is one that they answered before; 0: none."""
    keep_sessions: Annotated[int, Field(gt=0, le=10**6)] = 3
    """Sessions whose questions are asked, the newest first; open questions of older ones are dropped."""
    play_once: bool = False
    """The page takes an answer only after both clips have been played once."""

    @model_validator(mode="after")
    def _in_order(self) -> "QueueOptions":
        if not self.min_answers <= self.overlap <= self.max_answers:
            raise ValueError(
                f"queue.min_answers ({self.min_answers}) must not be above queue.overlap ({self.overlap}), nor that "
                f"above queue.max_answers ({self.max_answers})"
            )
        return self


class PeopleOptions(Options):
    """Where people answer, when the teacher is `human`."""

    url: str | None = None
    """A queue that runs already, as `rayrlhf label` prints it; its token is read from RAYRLHF_TOKEN. None: the run
    starts one of its own."""
    host: str = "127.0.0.1"
    """Address that the run's own queue listens on; beyond this machine only behind TLS."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8421
    """Its port; 0: a free one."""
    database: str | None = None
    """Its store: an SQLite file or `postgresql://USER@HOST/NAME`; none: a file in the run's folder."""
    names: tuple[AccountName, ...] = ("me",)
    """Who answers; each gets a link of their own."""
    sentence: str | None = None
    """What the robot is to do, as they read it; none: the task's own sentence."""
    guidelines: str = ""
    """What they are told besides."""
