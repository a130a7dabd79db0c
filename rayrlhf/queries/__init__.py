"""Which questions are asked, how many, and when."""

from rayrlhf.queries.acquisition import disagreement, entropy
from rayrlhf.queries.diversity import k_center
from rayrlhf.queries.schedules import session_sizes
from rayrlhf.queries.selection import draw_pairs, select

__all__ = ["disagreement", "draw_pairs", "entropy", "k_center", "select", "session_sizes"]
