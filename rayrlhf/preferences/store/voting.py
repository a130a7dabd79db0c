"""From what several people say of one question to its label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.answers import TARGETS, Choice

_ORDER: tuple[Choice, ...] = ("left", "right", "equal", "skip")
Status = Literal["open", "label", "skip", "disputed", "expired"]
"""Of a query: still asked, decided with a label, decided as not decidable, given up, or too old to be asked."""


@dataclass(frozen=True)
class Verdict:
    """What the votes so far come to.

    wanted: how many votes it takes, so far as anyone knows
    choice: what most said, where that is decided
    target: the label, P(right preferred)
    """

    status: Status
    wanted: int
    choice: Choice | None = None
    target: float | None = None


def decide(votes: Sequence[Choice], options: QueueOptions) -> Verdict:
    """The verdict of `votes`, which does not depend on their order.

    Decided is a question with `min_answers` votes of which a share of at least `agreement` say the same; a tie says
    nothing, unless labels are soft. Else one person more is asked, up to `max_answers`.
    """
    count = len(votes)
    if count < options.min_answers:
        return Verdict("open", options.overlap)
    said = Counter(votes)
    most = max(said.values())
    winners: list[Choice] = [choice for choice in _ORDER if said[choice] == most]
    if most / count >= options.agreement and (len(winners) == 1 or options.labels == "soft"):
        return _decided(votes, winners[0], count, options)
    if count < options.max_answers:
        return Verdict("open", max(options.overlap, count + 1))
    return Verdict("disputed", count)


def _decided(votes: Sequence[Choice], winner: Choice, count: int, options: QueueOptions) -> Verdict:
    """`winner` is what most said, and no skip where anything else was said as often."""
    if winner == "skip":
        return Verdict("skip", count, "skip")
    targets = [TARGETS[vote] for vote in votes if vote != "skip"]
    target = TARGETS[winner] if options.labels == "majority" else sum(targets) / len(targets)
    return Verdict("label", count, winner, target)
