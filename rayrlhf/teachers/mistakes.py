"""Answers that come out the wrong way round: more of them where returns are close, and where a teacher is tired.

Kinds of mistakes are independent of each other; two in one answer undo each other. `[N]` is one number per query.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from rayrlhf.preferences.segments import index_in_session

Doubles = NDArray[np.float64]
CHANCE = 0.5
"""Where every other answer is wrong a teacher says nothing, and tiredness makes it no worse."""


def misjudged(gap: Doubles, typical_return: float, blur: float) -> Doubles:
    """Probability `[N]` that two sums which differ by `gap` `[N]` seem to be in the other order.

    Each seems to be what it is plus an error of its own, normal, with `blur` times the typical return as its standard
    deviation: the law of comparative judgement, case V (Thurstone 1927). Bradley-Terry's has the logistic function in
    the normal's place. Here the unit is the task's own, so that one number serves all tasks.
    """
    width = sqrt(2.0) * blur * abs(typical_return)
    if width == 0:
        return np.zeros(len(gap))
    probability: Doubles = ndtr(-np.abs(gap) / width)
    return probability


def tiredness(ids: Sequence[str], session: int, fatigue: float, session_fatigue: float) -> Doubles:
    """What is added `[N]` to the probability of a mistake for what was asked before: in this session, and sessions.

    It follows from the query's id alone, so that whoever is asked again after a resume is as tired as before.
    """
    if not fatigue and not session_fatigue:
        return np.zeros(len(ids))
    index = np.array([index_in_session(key) for key in ids], dtype=np.float64)
    return fatigue * index + session_fatigue * session


def slips(mistake: float, tired: Doubles) -> Doubles:
    """Probability `[N]` of a mistake whatever the clips show: `mistake`, and more of them for the `tired` `[N]`."""
    return np.maximum(mistake, np.minimum(CHANCE, mistake + tired))


def either(one: Doubles, other: Doubles) -> Doubles:
    """Probability `[N]` that exactly one of two independent mistakes is made."""
    return one + other - 2.0 * one * other
