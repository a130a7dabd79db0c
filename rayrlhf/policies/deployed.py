"""A trained policy as it leaves this program: observations in, actions in the simulator's own units out."""

import torch
from torch import Tensor, nn

from rayrlhf.envs.interface import scaling
from rayrlhf.policies.make import Actor
from rayrlhf.preferences.fragments import Floats


class DeployedPolicy(nn.Module):
    """An actor with the scaling that the environments of this program do for themselves.

    low, high: bounds of the simulator's actions `[A]`; no action leaves them
    """

    def __init__(self, actor: Actor, low: Floats, high: Floats) -> None:
        super().__init__()
        self.actor = actor
        middle, half = scaling(low, high)
        self.low: Tensor
        self.high: Tensor
        self.middle: Tensor
        self.reach: Tensor
        for name, array in {"low": low, "high": high, "middle": middle, "reach": half}.items():
            self.register_buffer(name, torch.from_numpy(array.copy()), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Deterministic actions `[B, A]` for observations `[B, O]`."""
        return self.act(obs, None)

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions `[B, A]`, for standard normal `noise` `[B, A]` sampled ones; a row of zeros is deterministic."""
        scaled = self.middle + self.reach * self.actor.act(obs, noise)
        return torch.maximum(torch.minimum(scaled, self.high), self.low)  # rounding may have led out of them

    def to_unit(self, action: Tensor) -> Tensor:
        """Actions `[..., A]` in the simulator's units as training saw them, within [-1, 1]."""
        unit = (action - self.middle) / torch.where(self.reach > 0, self.reach, torch.ones_like(self.reach))
        return unit.clamp(-1.0, 1.0)
