"""A plain PyTorch loop of proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), written by hand.

Everything collected lies in tensors on the device; advantages, then passes of shuffled minibatches with one Adam and
clipped gradients, eagerly: no transfers, no Python per row, no metrics. `tuned` has a fused Adam.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from rayrlhf.config import PpoOptions


@dataclass(frozen=True)
class TensorSteps:
    """What was collected: obs `[T, N, O]`, unclamped action `[T, N, A]`, and `[T, N]` each of the rest."""

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    done: Tensor
    last_obs: Tensor
    """`[N, O]` after the last step."""

    def to(self, device: str) -> "TensorSteps":
        """The same steps on `device`."""
        return TensorSteps(*(getattr(self, field.name).to(device) for field in fields(self)))


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    widths = (inputs, *hidden)
    layers: list[nn.Module] = []
    for before, after in zip(widths, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class PlainPpo:
    """Networks, optimiser, and an iteration on given steps, whose episodes are cut where they are done."""

    def __init__(
        self, obs_dim: int, action_dim: int, options: PpoOptions, *, device: str = "cpu", tuned: bool = False
    ) -> None:
        self.options = options
        self.actor = network(obs_dim, options.hidden, action_dim).to(device)
        self.critic = network(obs_dim, options.hidden, 1).to(device)
        self.log_std = nn.Parameter(torch.full((action_dim,), options.initial_log_std, device=device))
        self.parameters = [*self.actor.parameters(), self.log_std, *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, options.lr, eps=1e-5, fused=True if tuned else None)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """`[B]`."""
        deviation = (action - self.actor(obs)) / self.log_std.exp()
        density: Tensor = -0.5 * deviation**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return density.sum(-1)

    @torch.no_grad()
    def advantages(self, steps: TensorSteps) -> tuple[Tensor, Tensor]:
        """Advantages and the critic's goals, `[T, N]`."""
        value = self.critic(steps.obs).squeeze(-1)
        following = torch.cat([value[1:], self.critic(steps.last_obs).squeeze(-1)[None]])
        advantage, later = torch.zeros_like(value), torch.zeros_like(value[0])
        for t in reversed(range(len(value))):
            going_on = 1 - steps.done[t]
            delta = steps.reward[t] + self.options.gamma * going_on * following[t] - value[t]
            later = delta + self.options.gamma * self.options.gae_lambda * going_on * later
            advantage[t] = later
        return advantage, advantage + value

    def learn(self, steps: TensorSteps, epochs: int, clip: float) -> None:
        """`epochs` passes over `steps`, minibatch after minibatch."""
        advantage, goal = (column.flatten() for column in self.advantages(steps))
        obs, action, log_prob = steps.obs.flatten(0, 1), steps.action.flatten(0, 1), steps.log_prob.flatten()
        rows, size = len(advantage), self.options.batch_size
        for _ in range(epochs):
            order = torch.randperm(rows, device=obs.device)
            for start in range(0, rows - rows % size, size):
                index = order[start : start + size]
                self.update(obs[index], action[index], log_prob[index], advantage[index], goal[index], clip)

    def update(
        self, obs: Tensor, action: Tensor, log_prob: Tensor, advantage: Tensor, goal: Tensor, clip: float
    ) -> None:
        """One step on a minibatch `[B, ...]`."""
        if self.options.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = (self.log_prob(obs, action) - log_prob).exp()
        policy_loss = -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        value_loss = ((self.critic(obs).squeeze(-1) - goal) ** 2).mean()
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        loss = policy_loss + self.options.value_coefficient * value_loss - self.options.entropy_coefficient * entropy
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm)
        self.optimizer.step()
