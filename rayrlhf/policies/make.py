"""The networks that a run's algorithm trains."""

from rayrlhf.config import RunConfig
from rayrlhf.policies.networks import SacNetworks, SquashedActor
from rayrlhf.policies.ppo import GaussianActor, PpoNetworks

Actor = SquashedActor | GaussianActor
"""What acts: `act(obs [B, O], noise [B, A] or none) -> [B, A]`."""
Networks = SacNetworks | PpoNetworks


def make_actor(run: RunConfig, obs_dim: int, action_dim: int) -> Actor:
    """The actor alone, drawn from torch's generator."""
    if run.algorithm == "prefppo":
        return GaussianActor(obs_dim, action_dim, run.ppo)
    return SquashedActor(obs_dim, action_dim, run.sac)


def make_networks(run: RunConfig, obs_dim: int, action_dim: int) -> Networks:
    """All that is trained, drawn from torch's generator."""
    if run.algorithm == "prefppo":
        return PpoNetworks(obs_dim, action_dim, run.ppo)
    return SacNetworks(obs_dim, action_dim, run.sac)
