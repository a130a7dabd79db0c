"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with generalised advantages (1506.02438).

Plain torch: collecting, rewards and RLlib are elsewhere. The order of the rows is an argument, so that an update is a
function of its inputs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayrlhf.config import PpoOptions
from rayrlhf.policies.tanh_mlp import TanhMlp
from rayrlhf.rewards.running import RunningMoments

LEAST_STD = 1e-4
"""Numbers of an observation that vary less are divided by this."""
KL_COEFFICIENTS = (1e-6, 1e6)
"""Between which the penalty's weight moves."""
FARTHEST = 10.0
"""Normalised observations are clamped to so many standard deviations."""


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


def standardised(obs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """`obs` `[..., O]` as networks see them, by a mean and deviation that broadcast with them."""
    standard: Tensor = (obs - mean) / std
    return standard.clamp(-FARTHEST, FARTHEST)


class GaussianActor(nn.Module):
    """A Gaussian whose standard deviation is the same in every state; actions are clamped to [-1, 1] (section 6.1).

    moments: of the observations that training has seen, which all networks standardise by; none: they see them as
             they are
    """

    def __init__(self, obs_dim: int, action_dim: int, options: PpoOptions) -> None:
        super().__init__()
        self.trunk = TanhMlp(obs_dim, options.hidden, action_dim, gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), options.initial_log_std))
        self.moments = RunningMoments((obs_dim,)) if options.normalize_observations else None

    def standardise(self, obs: Tensor) -> Tensor:
        """Observations `[..., O]` as the networks see them."""
        return obs if self.moments is None else standardised(obs, *self.standard())

    def standard(self) -> Tensor:
        """Mean and deviation that it standardises by, `[2, O]`; only where it has moments."""
        assert self.moments is not None
        return torch.stack([self.moments.mean, self.moments.std.clamp(min=LEAST_STD)])

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `[B, A]` and log standard deviation `[A]` for observations `[B, O]`."""
        return self.trunk(self.standardise(obs)), self.log_std

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions `[B, A]` in [-1, 1]; without `noise` the deterministic ones."""
        mean, log_std = self(obs)
        action: Tensor = mean if noise is None else mean + noise * log_std.exp()
        return action.clamp(-1.0, 1.0)

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Unclamped actions `[B, A]` and their log-probabilities `[B]`, for standard normal `noise` `[B, A]`."""
        mean, log_std = self(obs)
        return mean + noise * log_std.exp(), _log_density(noise, log_std)

    def entropy(self) -> Tensor:
        """In nats, the same in every state."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


def moments_in(weights: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """`RunningMoments.state` in the state of an actor, as arrays; nothing where it keeps no moments."""
    prefix = "moments._"
    return {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in weights.items()
        if name.startswith(prefix)
    }


class PpoNetworks(nn.Module):
    """Actor and critic, without a common layer."""

    def __init__(self, obs_dim: int, action_dim: int, options: PpoOptions) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self._options = options
        self.actor = GaussianActor(obs_dim, action_dim, options)
        self.critic = self._new_critic()

    def _new_critic(self) -> TanhMlp:
        return TanhMlp(self.obs_dim, self._options.hidden, 1, gain=1.0)

    def value(self, seen: Tensor) -> Tensor:
        """`[...]` of standardised observations `[..., O]`."""
        value: Tensor = self.critic(seen)
        return value.squeeze(-1)

    def reset_critic(self) -> None:
        """A new critic, drawn from torch's generator of the CPU, the same on every device."""
        self.critic.load_state_dict(self._new_critic().state_dict())


@dataclass(frozen=True)
class Rows:
    """`B` steps that were collected: unclamped action `[B, A]`, and `[B]` each of the rest.

    seen:       `[B, O]` standardised observations
    log_prob:   of the action, by the policy that collected
    advantage:  an estimate
    goal:       the discounted return that the critic is to give, advantage and former value together
    """

    seen: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    goal: Tensor

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at `index`."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def copy_(self, other: "Rows") -> None:
        """Takes the values of as many `other` rows, in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


class PpoUpdate:
    """Holds the optimiser and performs steps on `networks` in place.

    kl_coefficient: weight of the penalty on KL(old, new), a scalar tensor; `adapt` moves it (section 4)
    """

    MEASURES = ("policy_loss", "value_loss", "kl", "clipped", "entropy")
    """What a step returns: `kl` estimates KL(old, new) by mean(r - 1 - log r), `clipped` is a share of rows."""

    def __init__(
        self,
        networks: PpoNetworks,
        options: PpoOptions,
        *,
        average: Callable[[list[Tensor]], None] | None = None,
        learners: int = 1,
        parts: int = 1,
    ) -> None:
        """Makes the optimiser.

        average: replaces tensors by their means over the `learners` that learn together, each from its own rows
        parts:   each minibatch is computed in so many equal parts, one after the other, whose gradients add up
        """
        self.networks = networks
        self._options = options
        self._average, self._learners, self._parts = average, learners, parts
        self._parameters: list[Tensor] = list(networks.parameters())
        device = self._parameters[0].device
        adam = torch.optim.Adam(self._parameters, options.lr, eps=1e-5, fused=True, capturable=device.type == "cuda")
        self.optimizers = {"all": adam}
        self.kl_coefficient = torch.tensor(options.kl_coefficient, device=device)
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def __call__(self, rows: Rows, *, clip: Tensor) -> Tensor:
        """One step on a minibatch; the means `[5]` of `MEASURES` over its rows, on the device.

        clip: how far the ratio of probabilities may be from 1, a scalar
        """
        count, parts = len(rows.advantage), self._parts
        if count % parts:
            raise ValueError(f"{count} rows are no {parts} equal parts")
        if self._options.normalize_advantage:
            rows = replace(rows, advantage=self._normalised(rows.advantage))
        self.optimizers["all"].zero_grad(set_to_none=False)
        size = count // parts
        split = [rows.take(slice(start, start + size)) for start in range(0, count, size)] if parts > 1 else [rows]
        measures = torch.stack([self._add_gradients(part, clip, count) for part in split]).mean(0)
        if self._average is not None:
            self._average([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        torch.nn.utils.clip_grad_norm_(self._parameters, self._options.max_grad_norm)
        self.optimizers["all"].step()
        return measures

    def _normalised(self, advantage: Tensor) -> Tensor:
        """With mean 0 and standard deviation 1 over the rows of all learners."""
        mean = advantage.mean()
        square = (advantage - mean).square().mean()
        if self._average is not None:
            whole = torch.stack([mean, square + mean.square()])
            self._average([whole])
            mean, square = whole[0], whole[1] - whole[0].square()
        count = self._learners * len(advantage)
        return (advantage - mean) / ((square * count / max(1, count - 1)).clamp(min=0.0).sqrt() + 1e-8)

    def _add_gradients(self, rows: Rows, clip: Tensor, count: int) -> Tensor:
        """Adds those of equations 7 and 9, with the penalty of equation 8 where it has a weight; `MEASURES` of `rows`.

        `count` is the whole minibatch's, of whose mean loss these are the rows' share.
        """
        options, actor, critic = self._options, self.networks.actor, self.networks.critic
        acted, valued = actor.trunk.activations(rows.seen), critic.activations(rows.seen)
        # the policy: the clipped surrogate is constant where it is the smaller
        precision = (-actor.log_std).exp()
        noise = (rows.action - acted[-1]) * precision
        log_ratio = _log_density(noise, actor.log_std) - rows.log_prob
        ratio = log_ratio.exp()
        surrogate, bounded = ratio * rows.advantage, ratio.clamp(1 - clip, 1 + clip) * rows.advantage
        by_log_prob = torch.where(surrogate <= bounded, -surrogate, 0.0)
        if options.kl_coefficient:
            by_log_prob += self.kl_coefficient * (ratio - 1)
        by_log_prob /= count
        by_mean = by_log_prob.unsqueeze(-1) * noise
        actor.trunk.add_gradients(acted, by_mean * precision)
        entropy_share = options.entropy_coefficient * len(ratio) / count
        assert actor.log_std.grad is not None
        actor.log_std.grad += (by_mean * noise).sum(0) - by_log_prob.sum() - entropy_share
        # the critic
        error = valued[-1].squeeze(-1) - rows.goal
        critic.add_gradients(valued, (2 * options.value_coefficient / count * error).unsqueeze(-1))
        far = (ratio - 1).abs() > clip
        per_row = [-torch.minimum(surrogate, bounded), error.square(), ratio - 1 - log_ratio, far.to(ratio.dtype)]
        return torch.cat([torch.stack(per_row).mean(1), actor.entropy().unsqueeze(0)])

    def adapt(self, kl: float) -> None:
        """After an iteration whose mean was `kl`: doubles the penalty's weight, or halves it, to come near the target.

        Section 4: where it was more than 1.5 times too large or too small. It stays within `KL_COEFFICIENTS`: from 0 or
        infinity it could not come back.
        """
        target = self._options.kl_target
        if kl > 1.5 * target:
            self.kl_coefficient *= 2.0
        elif kl < target / 1.5:
            self.kl_coefficient *= 0.5
        self.kl_coefficient.clamp_(*KL_COEFFICIENTS)

    def reset_critic(self) -> None:
        """A fresh critic, and nothing remembered of its gradients; the actor stays."""
        self.networks.reset_critic()
        for parameter in self.networks.critic.parameters():
            self.optimizers["all"].state.pop(parameter, None)


def _log_density(noise: Tensor, log_std: Tensor) -> Tensor:
    """`[B]`: of Gaussians at `noise` `[B, A]` standard deviations from their means."""
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
