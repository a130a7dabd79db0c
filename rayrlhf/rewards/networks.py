"""What a reward network is, the multilayer perceptron, and networks of the user's own."""

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.config.classes import imported
from rayrlhf.errors import UserError, in_one_line

LEAK = 0.01
"""Slope of the LeakyReLUs below zero (PyTorch's default, B-Pref's)."""


class RewardNetwork(nn.Module, ABC):
    """Maps segments to one reward per transition.

    A class of the user's own is constructed as `Class(obs_dim, action_dim, options)`. It must treat each segment by
    itself and be a deterministic function of its parameters and input (its members are fitted in chunks of a batch).
    The replay is relabelled transition by transition, as segments with `T` = 1.
    """

    @abstractmethod
    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Rewards `[..., T]` of `obs` `[..., T, O]` and `action` `[..., T, A]`."""


class MLPReward(RewardNetwork):
    """Concatenated observation and action through LeakyReLU layers to one bounded number (B-Pref)."""

    def __init__(self, obs_dim: int, action_dim: int, options: RewardOptions) -> None:
        super().__init__()
        widths = (obs_dim + action_dim, *options.hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.bounded = options.output == "tanh"

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Rewards `[..., T]`; the ensemble computes the same by hand, see `blocks.MLPBlock`."""
        x = torch.cat([obs, action], dim=-1)
        for layer in self.layers[:-1]:
            x = nn.functional.leaky_relu(layer(x), LEAK)
        reward: Tensor = self.layers[-1](x).squeeze(-1)
        return reward.tanh() if self.bounded else reward


def _users_class(path: str) -> type[nn.Module]:
    """The class at `package.module:Class`. Raises UserError, naming what is missing."""
    if ":" not in path:
        raise UserError(f"reward.network is {path!r}: give 'mlp' or a class as 'package.module:Class'")
    found = imported("reward.network", path)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"reward.network {path!r} is no torch.nn.Module: derive it from rayrlhf.rewards.RewardNetwork")
    return found


def _check_output(network: nn.Module, path: str, obs_dim: int, action_dim: int) -> None:
    """Runs two segments of three steps through `network`. Raises UserError unless rewards come out as `[2, 3]`."""
    with torch.no_grad():
        reward = network(torch.zeros(2, 3, obs_dim), torch.zeros(2, 3, action_dim))
    if not isinstance(reward, Tensor) or reward.shape != (2, 3):
        got = list(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
        raise UserError(f"reward.network {path!r} maps obs [2, 3, {obs_dim}] to {got}: it must give [2, 3], one a step")


def make_network(options: RewardOptions, obs_dim: int, action_dim: int) -> nn.Module:
    """The network `options.network` names, freshly initialised from PyTorch's global generator.

    Raises UserError if a user's class cannot be imported, is no module, fails or gives the wrong shape.
    """
    if options.network == "mlp":
        return MLPReward(obs_dim, action_dim, options)
    users_class = _users_class(options.network)
    try:
        network = users_class(obs_dim, action_dim, options).float()
        _check_output(network, options.network, obs_dim, action_dim)
    except UserError:
        raise
    except Exception as error:
        said = f"reward.network {options.network!r} fails with obs [2, 3, {obs_dim}]: {in_one_line(error)}"
        raise UserError(f"{said} (--debug shows where)") from error
    return network
