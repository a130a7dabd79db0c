"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with generalised advantages (1506.02438).

Plain torch: collecting, rewards and RLlib are elsewhere. The order of the rows is an argument, so that an update is a
function of its inputs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from rayrlhf.config import PpoOptions
from rayrlhf.policies.networks import orthogonal


def advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimates `[T, N]` (1506.02438, equation 16), all arguments `[T, N]`.

    value, next_value: the critic's, of the states before and after each step, after its last one, too
    terminated, done:  as 0 or 1; `done` also where an episode is cut, whose last state has a value
    """
    delta = reward + gamma * (1 - terminated) * next_value - value
    result = torch.empty_like(delta)
    later = torch.zeros_like(delta[0])
    for step in reversed(range(len(delta))):
        later = delta[step] + gamma * lam * (1 - done[step]) * later
        result[step] = later
    return result


class GaussianActor(nn.Module):
    """A Gaussian whose standard deviation is the same in every state; actions are clamped to [-1, 1] (section 6.1)."""

    def __init__(self, obs_dim: int, action_dim: int, options: PpoOptions) -> None:
        super().__init__()
        self.trunk = _tanh_mlp(obs_dim, options.hidden, action_dim, gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), options.initial_log_std))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `[B, A]` and log standard deviation `[A]` for observations `[B, O]`."""
        return self.trunk(obs), self.log_std

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Unclamped actions `[B, A]` for standard normal `noise` `[B, A]`: what log-probabilities are of."""
        mean, log_std = self(obs)
        sampled: Tensor = mean + noise * log_std.exp()
        return sampled

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions `[B, A]` in [-1, 1]; without `noise` the deterministic ones."""
        return (self(obs)[0] if noise is None else self.sample(obs, noise)).clamp(-1.0, 1.0)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Of unclamped actions `[B, A]`, summed over their numbers: `[B]`."""
        mean, log_std = self(obs)
        deviation = (action - mean) * (-log_std).exp()
        density: Tensor = -0.5 * deviation.square() - log_std - 0.5 * math.log(2 * math.pi)
        return density.sum(dim=-1)

    def entropy(self) -> Tensor:
        """In nats, the same in every state."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


class PpoNetworks(nn.Module):
    """Actor and critic, without a common layer."""

    def __init__(self, obs_dim: int, action_dim: int, options: PpoOptions) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.actor = GaussianActor(obs_dim, action_dim, options)
        self.critic = _tanh_mlp(obs_dim, options.hidden, 1, gain=1.0)

    def value(self, obs: Tensor) -> Tensor:
        """`[B]` of observations `[B, O]`."""
        value: Tensor = self.critic(obs)
        return value.squeeze(-1)


@dataclass(frozen=True)
class Rows:
    """`B` steps that were collected: obs `[B, O]`, unclamped action `[B, A]`, and `[B]` each of the rest.

    log_prob:   of the action, by the policy that collected
    advantage:  an estimate
    goal:       the discounted return that the critic is to give, advantage and former value together
    """

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    goal: Tensor

    def take(self, index: Tensor) -> "Rows":
        """The rows at `index`."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))


class PpoUpdate:
    """Holds the optimiser and performs steps on `networks` in place."""

    MEASURES = ("policy_loss", "value_loss", "entropy", "kl", "clipped")
    """What a step returns: `kl` estimates KL(old, new) by mean(r - 1 - log r), `clipped` is a share of rows."""

    def __init__(
        self,
        networks: PpoNetworks,
        options: PpoOptions,
        *,
        reduce_gradients: Callable[[list[Tensor]], None] | None = None,
    ) -> None:
        self.networks = networks
        self._options = options
        self._reduce = reduce_gradients
        self._parameters: list[Tensor] = list(networks.parameters())
        self.optimizer = torch.optim.Adam(
            self._parameters, lr=options.lr, eps=1e-5, fused=True, capturable=self._parameters[0].is_cuda
        )

    def __call__(self, rows: Rows, *, clip: float, parts: int = 1) -> dict[str, Tensor]:
        """One step on a minibatch; the means of `MEASURES` over its rows, on the device.

        clip:   how far the ratio of probabilities may be from 1
        parts:  in so many equal parts, one after the other, whose gradients add up to the whole's
        """
        count = len(rows.advantage)
        if count % parts:
            raise ValueError(f"{count} rows are no {parts} equal parts")
        advantage = rows.advantage
        if self._options.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        self.optimizer.zero_grad(set_to_none=self._reduce is None)
        sums: list[Tensor] = []
        for index in torch.arange(count, device=advantage.device).chunk(parts):
            loss, found = self._loss(rows.take(index), advantage[index], clip)
            (loss / parts).backward()  # type: ignore[no-untyped-call]
            sums.append(torch.stack([found[name] for name in self.MEASURES]))
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self._reduce is not None:
            self._reduce(gradients)
        torch.nn.utils.clip_grad_norm_(self._parameters, self._options.max_grad_norm)
        self.optimizer.step()
        return dict(zip(self.MEASURES, torch.stack(sums).mean(0), strict=True))

    def _loss(self, rows: Rows, advantage: Tensor, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Equations 7 and 9."""
        log_ratio = self.networks.actor.log_prob(rows.obs, rows.action) - rows.log_prob
        ratio = log_ratio.exp()
        policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        value_loss = (self.networks.value(rows.obs) - rows.goal).square().mean()
        entropy = self.networks.actor.entropy()
        loss = policy_loss + self._options.value_coefficient * value_loss - self._options.entropy_coefficient * entropy
        with torch.no_grad():
            kl, clipped = (ratio - 1 - log_ratio).mean(), ((ratio - 1).abs() > clip).float().mean()
        found = {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach()}
        return loss, found | {"kl": kl, "clipped": clipped}


def _tanh_mlp(inputs: int, hidden: tuple[int, ...], outputs: int, *, gain: float) -> nn.Sequential:
    """Linear layers with tanh between them, orthogonal, with biases of zero; `gain` is the last one's."""
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *hidden[:-1]), hidden, strict=True):
        layers += [orthogonal(nn.Linear(before, after), math.sqrt(2)), nn.Tanh()]
    return nn.Sequential(*layers, orthogonal(nn.Linear(hidden[-1], outputs), gain))
