"""A plain PyTorch loop of soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), written as one writes it by hand.

The replay lies in tensors on the device and is indexed at random; two critics, three Adam optimisers, one update after
the other, eagerly. Nothing in it is slower than it needs to be for the reader's sake: no transfers, no Python per row,
no metrics. `tuned` adds what an attentive author would: fused Adam, and no gradients for the critics' weights while
they only carry the actor's.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayrlhf.config import SacOptions


@dataclass(frozen=True)
class TensorReplay:
    """Transitions in tensors: obs `[M, O]`, action `[M, A]`, reward `[M]`, next_obs `[M, O]`, done `[M]`."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    done: Tensor

    @staticmethod
    def empty(rows: int, obs_dim: int, action_dim: int, device: str = "cpu") -> "TensorReplay":
        """Room for `rows` transitions."""
        shapes = ((obs_dim,), (action_dim,), (), (obs_dim,), ())
        return TensorReplay(*(torch.zeros((rows, *shape), device=device) for shape in shapes))

    def take(self, index: Tensor) -> "TensorReplay":
        """The rows at `index` `[B]`."""
        return TensorReplay(
            self.obs[index], self.action[index], self.reward[index], self.next_obs[index], self.done[index]
        )


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    widths = (inputs, *hidden)
    layers: list[nn.Module] = []
    for before, after in zip(widths, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class PlainSac:
    """Networks, optimisers, and one update."""

    def __init__(
        self, obs_dim: int, action_dim: int, options: SacOptions, *, device: str = "cpu", tuned: bool = False
    ) -> None:
        if options.layer_norm or options.precision != "float32":
            raise ValueError("the plain loop has neither layer normalisation nor other precisions than float32")
        self.options, self.action_dim, self.tuned = options, action_dim, tuned
        self.actor = network(obs_dim, options.hidden, 2 * action_dim).to(device)
        self.critics = [network(obs_dim + action_dim, options.hidden, 1).to(device) for _ in range(2)]
        self.targets = [network(obs_dim + action_dim, options.hidden, 1).to(device) for _ in range(2)]
        for critic, target in zip(self.critics, self.targets, strict=True):
            target.load_state_dict(critic.state_dict())
        self.log_alpha = torch.tensor(math.log(options.initial_temperature), device=device, requires_grad=True)
        self.critic_parameters = [p for critic in self.critics for p in critic.parameters()]
        adam: dict[str, Any] = {"betas": options.adam_betas, "fused": True if tuned else None}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), options.actor_lr, **adam)
        self.critic_optimizer = torch.optim.Adam(self.critic_parameters, options.critic_lr, **adam)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], options.alpha_lr, **adam)
        self.updates = 0

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Squashed actions `[B, A]` and their log-probabilities `[B]`."""
        mean, raw = self.actor(obs).chunk(2, dim=-1)
        low, high = self.options.log_std_min, self.options.log_std_max
        log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
        before = mean + noise * log_std.exp()
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        log_prob = log_prob - (2 * (math.log(2) - before - functional.softplus(-2 * before))).sum(-1)
        return torch.tanh(before), log_prob

    def update(self, batch: TensorReplay, next_noise: Tensor, noise: Tensor) -> None:
        """One update of critics, actor, temperature and, every second time, targets."""
        self._update_critics(batch, next_noise)
        self._update_actor(batch.obs, noise)
        self.updates += 1
        if self.updates % self.options.target_update_interval == 0:
            self._move_targets()

    def _update_critics(self, batch: TensorReplay, noise: Tensor) -> None:
        with torch.no_grad():
            action, log_prob = self.sample(batch.next_obs, noise)
            inputs = torch.cat([batch.next_obs, action], -1)
            first, second = (target(inputs).squeeze(-1) for target in self.targets)
            value = torch.min(first, second) - self.log_alpha.exp() * log_prob
            goal = batch.reward + (1 - batch.done) * self.options.gamma * value
        inputs = torch.cat([batch.obs, batch.action], -1)
        loss = sum(functional.mse_loss(critic(inputs).squeeze(-1), goal) for critic in self.critics)
        self._step(self.critic_optimizer, loss)

    def _update_actor(self, obs: Tensor, noise: Tensor) -> None:
        if self.tuned:
            self._critics_require_grad(False)
        action, log_prob = self.sample(obs, noise)
        inputs = torch.cat([obs, action], -1)
        first, second = (critic(inputs).squeeze(-1) for critic in self.critics)
        loss = (self.log_alpha.exp().detach() * log_prob - torch.min(first, second)).mean()
        self._step(self.actor_optimizer, loss)
        if self.tuned:
            self._critics_require_grad(True)
        excess = (-log_prob.detach() + self.action_dim).mean()
        self._step(self.alpha_optimizer, self.log_alpha.exp() * excess)

    def _critics_require_grad(self, flag: bool) -> None:
        for parameter in self.critic_parameters:
            parameter.requires_grad_(flag)

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, loss: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _move_targets(self) -> None:
        for critic, target in zip(self.critics, self.targets, strict=True):
            for new, slow in zip(critic.parameters(), target.parameters(), strict=True):
                slow.lerp_(new, self.options.tau)


class PlainLoop:
    """Draws a batch, updates, and again."""

    def __init__(self, sac: PlainSac, replay: TensorReplay, *, seed: int = 0) -> None:
        self.sac, self.replay = sac, replay
        self._generator = torch.Generator(replay.obs.device)
        self._generator.manual_seed(seed)

    def draw(self, rows: int) -> Tensor:
        """A batch of indices `[B]` below `rows`."""
        device, batch = self.replay.obs.device, self.sac.options.batch_size
        return torch.randint(rows, (batch,), generator=self._generator, device=device)

    def noise(self) -> Tensor:
        """Standard normal numbers for both samples of an update, `[2, B, A]`."""
        shape = (2, self.sac.options.batch_size, self.sac.action_dim)
        return torch.randn(shape, generator=self._generator, device=self.replay.obs.device)

    def learn(self, updates: int) -> None:
        """`updates` updates on the whole replay."""
        for _ in range(updates):
            batch = self.replay.take(self.draw(len(self.replay.obs)))
            self.sac.update(batch, *self.noise())
