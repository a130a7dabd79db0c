"""How a budget of labels is spread over sessions."""

import heapq
import math
from collections.abc import Callable
from typing import Literal

from rayrlhf.errors import UserError, nearest

Schedule = Literal["constant", "linear", "exponential", "hyperbolic"]

FALL = 10.0
"""Christiano et al. (2017), appendix A.2: labels at the rate 5e6 / (t + 5e6) over 5e7 steps, 1 / (1 + 10 u)."""

WEIGHTS: dict[str, Callable[[float], float]] = {
    "constant": lambda u: 1.0,
    "linear": lambda u: 1.0 - u,  # B-Pref's "decay"
    "exponential": lambda u: (1.0 + FALL) ** -u,  # falls as far as the hyperbola, evenly in the logarithm
    "hyperbolic": lambda u: 1.0 / (1.0 + FALL * u),  # Christiano et al. (2017)
}
"""A session's share of the budget by `u` = s / S, the part of the `S` sessions that lies before session `s`."""


def session_sizes(budget: int, per_session: int, schedule: Schedule | str = "constant") -> list[int]:
    """Labels to ask for in each session; they sum to `budget` exactly and each is at least 1.

    There are `ceil(budget / per_session)` sessions under every schedule, so `per_session` is the mean size: a decaying
    schedule asks more in its first sessions and fewer in its last. Constant: `per_session` each, the remainder last.
    The others: proportional to their weights, rounded by largest remainder (earlier session first on ties), never
    increasing.

    Raises:
        UserError: the budget or the session is not positive, or the schedule is unknown.
    """
    if schedule not in WEIGHTS:
        known = ", ".join(WEIGHTS)
        raise UserError(f"unknown query schedule {schedule!r}: use one of {known}{nearest(schedule, WEIGHTS)}")
    if budget <= 0 or per_session <= 0:
        raise UserError(f"queries.budget ({budget}) and queries.per_session ({per_session}) must be above zero")
    sessions = math.ceil(budget / per_session)
    if schedule == "constant":
        return [per_session] * (sessions - 1) + [budget - per_session * (sessions - 1)]
    weights = [WEIGHTS[schedule](session / sessions) for session in range(sessions)]
    return _at_least_one(_largest_remainder(budget, weights))


def _largest_remainder(total: int, weights: list[float]) -> list[int]:
    """Integers near `total * weight / sum(weights)` that sum to `total`."""
    scale = math.fsum(weights)
    quotas = [total * weight / scale for weight in weights]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda i: sizes[i] - quotas[i])  # stable: earlier first on ties
    for i in by_remainder[: total - sum(sizes)]:
        sizes[i] += 1
    return sizes


def _at_least_one(sizes: list[int]) -> list[int]:
    """Fills empty sessions, last ones by construction, from the largest; needs as many labels as sessions."""
    filled = [max(size, 1) for size in sizes]
    heap = [(-size, -session) for session, size in enumerate(filled)]  # the largest, the last of them, comes first
    heapq.heapify(heap)
    for _ in range(sum(filled) - sum(sizes)):
        size, session = heap[0]
        filled[-session] -= 1
        heapq.heapreplace(heap, (size + 1, session))  # taking from the last of the largest keeps the order falling
    return filled
