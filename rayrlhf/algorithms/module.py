"""SAC's networks as an RLModule, which is how RLlib's learners and checkpoints hold them."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayrlhf import seeding
from rayrlhf.config import SacOptions
from rayrlhf.policies import SacNetworks


class SacModule(TorchRLModule):
    """A thin shell: `networks` does everything."""

    def setup(self) -> None:
        """Builds the networks, initialised from the run's seed alone."""
        options = SacOptions.model_validate(self.model_config["sac"])
        assert self.observation_space is not None and self.action_space is not None
        obs_dim, action_dim = self.observation_space.shape[0], self.action_space.shape[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer_seed(self.model_config["seed"], "policy"))
            self.networks = SacNetworks(obs_dim, action_dim, options)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        mean, log_std = self.networks.actor(batch[Columns.OBS])
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, log_std], dim=-1)}
