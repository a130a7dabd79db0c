"""A reward network of one's own, and a run of the toy whose ensemble is made of it.

    python examples/own_reward_network.py [--seed=1 ...]        any option of a run may follow

On the command line the same network is
`PYTHONPATH=examples rayrlhf train toy --reward.network own_reward_network:StateOnly`.
"""

import sys
from itertools import pairwise

import torch
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.config.load import load_config
from rayrlhf.rewards import RewardNetwork
from rayrlhf.training import train


class StateOnly(RewardNetwork):
    """Judges where the robot is and not what it does: actions are left out."""

    def __init__(self, obs_dim: int, action_dim: int, options: RewardOptions) -> None:
        super().__init__()
        widths = (obs_dim, *options.hidden)
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Rewards `[..., T]` of `obs` `[..., T, O]`."""
        return torch.tanh(self.layers(obs)).squeeze(-1)


def main(*more: str) -> None:
    """Trains on the toy with an ensemble of this network."""
    overrides = [
        "--reward.network=own_reward_network:StateOnly",
        "--reward.hidden=64,64",
        "--total_steps=3000",
        "--queries.budget=60",
        "--queries.interval=300",
        "--rollout.actors=1",
        *more,
    ]
    config = load_config("toy", overrides)
    summary = train(config, progress=False)
    print(f"success {summary['success_rate']:.0%} of {summary['eval_episodes']} episodes")
    print(f"reward  orders {summary['reward_model_accuracy']:.0%} of pairs of segments as the true reward does")
    print(f"run     {config.storage_path}/{summary['name']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
