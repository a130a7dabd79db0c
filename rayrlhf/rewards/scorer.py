"""The ensemble's mean reward for whoever only consumes it: learners that score and relabel transitions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards.members import Arrays, Members


class RewardScorer:
    """Inference only. Equals `RewardEnsemble.reward` of the ensemble whose weights were loaded."""

    def __init__(
        self,
        options: RewardOptions,
        obs_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        *,
        threads: int | None = None,
    ) -> None:
        members = range(options.members)
        self._members = Members(options, obs_dim, action_dim, members, device=device, threads=threads)
        self._loaded = False

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes in the whole ensemble's weights (`merge_members` if it was split). Raises ValueError on others."""
        self._members.load_weights(weights)
        self._loaded = True

    def score(self, obs: Tensor | Floats, action: Tensor | Floats) -> Tensor:
        """Rewards `[B]` of the transitions `obs` `[B, O]` and `action` `[B, A]`, on the scorer's device.

        In chunks that fit the cache, so `B` may be a whole replay. Raises ValueError before the first `load`.
        """
        return self.member_scores(obs, action).mean(0)

    def parameters(self) -> list[nn.Parameter]:
        """What of the members' networks is trained."""
        return self._members.parameters()

    def by_name(self, gradients: Sequence[Tensor]) -> Arrays:
        """`gradients`, one for each of `parameters`, as `RewardEnsemble.step` takes them."""
        return self._members.by_name(gradients)

    def differentiable(self, obs: Tensor, action: Tensor) -> Tensor:
        """`score` of `[B, O]` and `[B, A]`, through autograd to `parameters`."""
        return self._members.differentiable(obs, action).mean(0)

    def member_scores(self, obs: Tensor | Floats, action: Tensor | Floats) -> Tensor:
        """Each member's rewards `[E, ...]` of `obs` `[..., O]` and `action` `[..., A]`; their mean is the score."""
        if not self._loaded:
            raise ValueError("score before load: the networks hold no fitted weights")
        return self._members.rewards(obs, action).mul_(self._members.reward_scale)
