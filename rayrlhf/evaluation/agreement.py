"""Whether a reward model, and a policy, side with answers that neither was trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf.evaluation.metrics import wilson_interval
from rayrlhf.policies import Actor
from rayrlhf.policies.likelihood import log_probability
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How often a judge prefers the side that the labels prefer.

    decisive: pairs whose label prefers a side; `equal` ones, or where annotators are of two minds, have no right side
    tied:     decisive pairs between which the judge sees no difference; each counts as half right
    agreed:   share of the decisive pairs; None without any
    low, high: Wilson's 95% interval, of pairs drawn independently
    """

    decisive: int
    equal: int
    tied: int
    agreed: float | None
    low: float | None
    high: float | None


def agreement(preference: NDArray[Any], target: NDArray[Any]) -> Agreement:
    """Of a judge's `preference` `[N]`, above 0 for the right side, with the labels' `target` `[N]` = P(right)."""
    if preference.ndim != 1 or preference.shape != target.shape:
        raise ValueError(f"preference {preference.shape} and target {target.shape} must both be [N]")
    if np.isnan(preference).any():
        raise ValueError("a preference is not a number")
    decisive = target != 0.5
    said, wanted = np.sign(preference[decisive]), np.sign(target[decisive] - 0.5)
    count, right = len(said), float(((1.0 + said * wanted) / 2.0).sum())
    low, high = wilson_interval(right, count) if count else (None, None)
    return Agreement(
        decisive=count,
        equal=int((~decisive).sum()),
        tied=int((said == 0).sum()),
        agreed=right / count if count else None,
        low=low,
        high=high,
    )


def policy_preference(actor: Actor, labels: Labels, *, gamma: float) -> Doubles:
    """By how much a policy prefers the right segment, `[N]`: `follows` of it less that of the left one.

    Preferences follow the advantage, the regret model says (Knox et al. 2022, arXiv 2206.02231), and of the policy that
    is optimal with an entropy bonus the advantage is proportional to the log-probability of the action (Hejna et al.
    2023, Contrastive Preference Learning, arXiv 2310.13639, equation 5). So a policy that wants what the annotators
    want finds the actions of the segments they prefer more probable.

    Limits: it asks which actions the policy would take, state by state, and not where they began or led. Annotators who
    go by the sum of rewards, as scripted teachers do, prefer whichever segment began in the better place: with them
    even an optimal policy may agree by half. Of two segments that the policy would never show the sign is a matter of
    tails, and a policy that is good in another way than the annotators' favourite disagrees.
    """
    right, left = (follows(actor, side, gamma=gamma) for side in (labels.right, labels.left))
    return right - left


def follows(actor: Actor, segments: Segments, *, gamma: float) -> Doubles:
    """`sum_t gamma^t log P(action_t | obs_t)` of each segment, `[N]`; P as `log_probability` has it."""
    count, length = segments.reward.shape
    with torch.inference_mode():
        flat = [torch.from_numpy(column.reshape(count * length, -1)) for column in (segments.obs, segments.action)]
        steps: Doubles = log_probability(actor, flat[0], flat[1]).numpy().reshape(count, length)
    return steps @ np.power(gamma, np.arange(length, dtype=np.float64))
