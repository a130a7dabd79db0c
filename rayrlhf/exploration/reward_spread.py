"""RUNE's bonus (Liang et al. 2022, arXiv 2205.12401, equation 5): where the members disagree about a step's reward.

The reward that is learnt from is `mean + weight * spread`, over the members at one transition. The weight falls with
the steps of the run, so that the bonus vanishes where labels have stopped to come.
"""

import torch
from torch import Tensor

from rayrlhf.config import ExploreOptions


def spread_weight(options: ExploreOptions, env_steps: int) -> float:
    """The bonus' weight after `env_steps` steps of the run, exploration included: `weight * (1 - decay) ** steps`."""
    return options.spread_weight * (1.0 - options.spread_decay) ** env_steps


def mean_and_spread(rewards: Tensor) -> Tensor:
    """Mean and population standard deviation over the members of `rewards` `[E, M]`, `[M, 2]`."""
    return torch.stack([rewards.mean(0), rewards.std(0, correction=0)], dim=1)
