"""Plain torch policies: networks, and the update that trains them."""

from rayrlhf.policies.deployed import DeployedPolicy
from rayrlhf.policies.make import Actor, make_actor, make_networks
from rayrlhf.policies.networks import SacNetworks, SquashedActor, TwinCritic
from rayrlhf.policies.ppo import GaussianActor, PpoNetworks, PpoUpdate
from rayrlhf.policies.sac import Batch, SacUpdate

__all__ = [
    "Actor",
    "Batch",
    "DeployedPolicy",
    "GaussianActor",
    "PpoNetworks",
    "PpoUpdate",
    "SacNetworks",
    "SacUpdate",
    "SquashedActor",
    "TwinCritic",
    "make_actor",
    "make_networks",
]
