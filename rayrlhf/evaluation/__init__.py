"""How good a policy and its reward model are, and how sure we may be of it."""

from rayrlhf.evaluation.metrics import Alignment, EpisodeResult, Summary, alignment, pair_accuracy, summarize
from rayrlhf.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    iqm,
    mann_whitney_greater,
    mann_whitney_less,
    performance_profile,
)

__all__ = [
    "Alignment",
    "EpisodeResult",
    "Interval",
    "Summary",
    "alignment",
    "bootstrap_interval",
    "iqm",
    "mann_whitney_greater",
    "mann_whitney_less",
    "pair_accuracy",
    "performance_profile",
    "summarize",
]
