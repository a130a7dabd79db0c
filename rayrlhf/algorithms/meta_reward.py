"""MRN's outer step (Liu et al., "Meta-Reward-Net", NeurIPS 2022): the reward learns from what the critic makes of it.

Inner step: the critic takes one gradient step, of its own learning rate, on a batch whose rewards are the ensemble's,
and stays a function of the ensemble's parameters. Outer step: the cross-entropy of the newest labels, predicted by that
critic's values of the segments' first state and action, `P(right) = sigmoid(Q(right_0) - Q(left_0))` of both critics,
is differentiated through the inner step into the ensemble, whose optimiser then takes one step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rayrlhf.policies import Batch, SacNetworks
from rayrlhf.preferences.answers import Labels


@dataclass(frozen=True)
class FirstSteps:
    """The first transition of both segments of `B` labels: obs `[B, 2, O]`, action `[B, 2, A]`, target `[B]`."""

    obs: Tensor
    action: Tensor
    target: Tensor

    @staticmethod
    def of(labels: Labels, device: torch.device) -> "FirstSteps":
        """Those of `labels`."""
        sides = labels.left, labels.right
        columns = [np.stack([getattr(side, name)[:, 0] for side in sides], axis=1) for name in ("obs", "action")]
        return FirstSteps(*(torch.tensor(column, device=device) for column in (*columns, labels.target)))


def outer_gradients(
    networks: SacNetworks,
    reward: Callable[[Tensor, Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    batch: Batch,
    next_noise: Tensor,
    labels: FirstSteps,
    *,
    gamma: float,
    lr: float,
    weight: float,
) -> tuple[list[Tensor], Tensor]:
    """Gradients of the outer loss by the reward's `parameters`, in their order, and that loss.

    Args:
        reward: rewards `[B]` of obs `[B, O]` and action `[B, A]`, differentiable by `parameters`.
        batch: of the replay; its own rewards are not looked at.
        next_noise: `[B, A]`, standard normal.
        lr: of the critic's step.
        weight: of the outer loss (MRN: 0.1).
    """
    with torch.enable_grad():
        with torch.no_grad():
            next_action, log_prob = networks.actor.sample(batch.next_obs, next_noise)
            next_value = torch.minimum(*networks.target(batch.next_obs, next_action))
            next_value = next_value - networks.log_alpha.exp() * log_prob
        goal = reward(batch.obs, batch.action) + (1 - batch.terminated) * gamma * next_value
        theta = {name: value.detach().requires_grad_() for name, value in networks.critic.named_parameters()}
        first, second = functional_call(networks.critic, theta, (batch.obs, batch.action))
        inner = functional.mse_loss(first, goal) + functional.mse_loss(second, goal)
        slopes = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        stepped = {name: value - lr * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)}
        values = functional_call(networks.critic, stepped, (labels.obs, labels.action))
        losses = [
            functional.binary_cross_entropy_with_logits(value[:, 1] - value[:, 0], labels.target) for value in values
        ]
        outer = weight * (losses[0] + losses[1])
        return list(torch.autograd.grad(outer, list(parameters))), outer.detach()
