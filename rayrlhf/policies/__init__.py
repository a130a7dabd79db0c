"""Plain torch policies: networks, and the update that trains them."""

from rayrlhf.policies.deployed import DeployedPolicy
from rayrlhf.policies.networks import Actor, SacNetworks, TwinCritic
from rayrlhf.policies.sac import Batch, SacUpdate

__all__ = ["Actor", "Batch", "DeployedPolicy", "SacNetworks", "SacUpdate", "TwinCritic"]
