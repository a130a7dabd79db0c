"""How probable actions are that others took, for any of the actors."""

import math

import torch
from torch import Tensor

from rayrlhf.policies.make import Actor
from rayrlhf.policies.networks import SquashedActor

WITHIN = 0.05
"""An action is met by what lies at most so far from it, in each dimension: a fortieth of the range on either side."""


def log_probability(actor: Actor, obs: Tensor, action: Tensor, *, within: float = WITHIN) -> Tensor:
    """Of acting `within` reach of `action` `[B, A]`, in [-1, 1], in each dimension; `[B]`, at most 0, in float64.

    A probability and no density: actions that tanh or the clamp has brought to the border have no finite density
    before it, and densities of a squashed and of a clamped Gaussian would not compare. Actions beyond the border count
    as on it, as environments take them.
    """
    mean, log_std = (value.double() for value in actor(obs))
    low, high = action.double() - within, action.double() + within
    if isinstance(actor, SquashedActor):
        bounds = [torch.atanh(bound.clamp(-1.0, 1.0)) for bound in (low, high)]  # infinite at the border
    else:
        bounds = [
            torch.where(low <= -1.0, -math.inf, low),
            torch.where(high >= 1.0, math.inf, high),
        ]
    first, last = ((bound - mean) * (-log_std).exp() for bound in bounds)
    return _log_mass(first, last).sum(dim=-1)


def _log_mass(first: Tensor, last: Tensor) -> Tensor:
    """The logarithm of a standard normal's mass between `first` and `last`, also where it is far too small to hold."""
    flip = first + last > 0  # in the upper tail both are near 1: by symmetry take the lower one
    first, last = torch.where(flip, -last, first), torch.where(flip, -first, last)
    below, up_to = torch.special.log_ndtr(first), torch.special.log_ndtr(last)
    mass: Tensor = up_to + torch.log1p(-(below - up_to).exp())
    return mass
