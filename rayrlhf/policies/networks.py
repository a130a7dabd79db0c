"""The networks of soft actor-critic: a squashed Gaussian actor and twin critics on concatenated inputs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayrlhf.config import SacOptions


def mlp(inputs: int, hidden: Sequence[int], outputs: int, *, layer_norm: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them, initialised orthogonally with zero biases (B-Pref's `weight_init`)."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(orthogonal(nn.Linear(width, size)))
        if layer_norm:
            layers.append(nn.LayerNorm(size))
        layers.append(nn.ReLU())
        width = size
    layers.append(orthogonal(nn.Linear(width, outputs)))
    return nn.Sequential(*layers)


def orthogonal(layer: nn.Linear, gain: float = 1.0) -> nn.Linear:
    """The layer with orthogonal weights, times `gain`, and biases of zero."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class SquashedActor(nn.Module):
    """A Gaussian over pre-squash actions; `tanh` brings them into [-1, 1] (Haarnoja et al. 2018, appendix C)."""

    def __init__(self, obs_dim: int, action_dim: int, options: SacOptions) -> None:
        super().__init__()
        self.trunk = mlp(obs_dim, options.hidden, 2 * action_dim)
        self._log_std_min, self._log_std_max = options.log_std_min, options.log_std_max

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation `[B, A]` for observations `[B, O]`."""
        mean, raw = self.trunk(obs).float().chunk(2, dim=-1)
        span = 0.5 * (self._log_std_max - self._log_std_min)
        return mean, self._log_std_min + span * (torch.tanh(raw) + 1)

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[B, A]` in [-1, 1] and their log-probabilities `[B]`, for standard normal `noise` `[B, A]`."""
        mean, log_std = self(obs)
        unsquashed = mean + noise * log_std.exp()
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), exact for large |u| too
        squash = 2 * (math.log(2) - unsquashed - functional.softplus(-2 * unsquashed))
        return torch.tanh(unsquashed), (gaussian - squash).sum(dim=-1)

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions `[B, A]` in [-1, 1]; without `noise` the deterministic ones."""
        mean, log_std = self(obs)
        return torch.tanh(mean if noise is None else mean + noise * log_std.exp())


class ResidualBlock(nn.Module):
    """BRO's block (Nauman et al. 2024, arXiv 2405.16158, section 3): two layers, each normalised, around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (orthogonal(nn.Linear(width, width)) for _ in range(2))
        self.layers = nn.Sequential(first, nn.LayerNorm(width), nn.ReLU(), second, nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., W]` for `[..., W]`."""
        out: Tensor = x + self.layers(x)
        return out


def _value_network(inputs: int, options: SacOptions) -> nn.Sequential:
    """One value of `inputs` numbers: an MLP, or with `critic_blocks` residual blocks of one width."""
    hidden = options.critic_hidden or options.hidden
    if not options.critic_blocks:
        return mlp(inputs, hidden, 1, layer_norm=options.layer_norm)
    width = hidden[0]
    blocks = [ResidualBlock(width) for _ in range(options.critic_blocks)]
    stem = [orthogonal(nn.Linear(inputs, width)), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, orthogonal(nn.Linear(width, 1)))


class TwinCritic(nn.Module):
    """Two independent action values on concatenated observation and action."""

    def __init__(self, obs_dim: int, action_dim: int, options: SacOptions) -> None:
        super().__init__()
        width = obs_dim + action_dim
        self.first, self.second = (_value_network(width, options) for _ in range(2))

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both values `[B]` of `action` `[B, A]` in `obs` `[B, O]`."""
        x = torch.cat([obs, action], dim=-1)
        return self.first(x).float().squeeze(-1), self.second(x).float().squeeze(-1)


class SacNetworks(nn.Module):
    """Everything SAC trains: actor, critic, its slow copy, and the logarithm of the temperature."""

    def __init__(self, obs_dim: int, action_dim: int, options: SacOptions) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self._options = options
        self.actor = SquashedActor(obs_dim, action_dim, options)
        self.critic = TwinCritic(obs_dim, action_dim, options)
        self.target = TwinCritic(obs_dim, action_dim, options)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(options.initial_temperature)))
        self.target.requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())

    def reset(self) -> None:
        """All of it new."""
        fresh = SacNetworks(self.obs_dim, self.action_dim, self._options).to(self.log_alpha.device)
        self.load_state_dict(fresh.state_dict())

    def reset_critic(self) -> None:
        """A new critic, and a target equal to it: what PEBBLE does when the reward first means something."""
        fresh = TwinCritic(self.obs_dim, self.action_dim, self._options).to(self.log_alpha.device)
        self.critic.load_state_dict(fresh.state_dict())
        self.target.load_state_dict(fresh.state_dict())
