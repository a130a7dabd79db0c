"""A run's networks as an RLModule, which is how RLlib's learners and checkpoints hold them."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayrlhf import seeding
from rayrlhf.config import RunConfig
from rayrlhf.policies import make_networks


class PolicyModule(TorchRLModule):
    """A thin shell: `networks` does everything."""

    @staticmethod
    def spec_of(run: RunConfig) -> RLModuleSpec:
        """What RLlib makes it from."""
        return RLModuleSpec(module_class=PolicyModule, model_config={"run": run.model_dump(mode="json")})

    def setup(self) -> None:
        """Builds the networks, initialised from the run's seed alone."""
        run = RunConfig.model_validate(self.model_config["run"])
        assert self.observation_space is not None and self.action_space is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer_seed(run.seed, "policy"))
            self.networks = make_networks(run, self.observation_space.shape[0], self.action_space.shape[0])

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        mean, log_std = self.networks.actor(batch[Columns.OBS])
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, log_std.expand_as(mean)], dim=-1)}
