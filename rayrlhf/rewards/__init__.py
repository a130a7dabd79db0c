"""The reward model: an ensemble of networks fitted to preferences."""

from rayrlhf.rewards.ensemble import RewardEnsemble
from rayrlhf.rewards.fit import EpochReport, FitReport, fit_together, reward_scale
from rayrlhf.rewards.members import merge_members, take_members
from rayrlhf.rewards.networks import MLPReward, RewardNetwork, make_network
from rayrlhf.rewards.running import RunningMoments
from rayrlhf.rewards.scorer import RewardScorer
from rayrlhf.rewards.unlabelled import Episodes

__all__ = [
    "Episodes",
    "EpochReport",
    "FitReport",
    "MLPReward",
    "RewardEnsemble",
    "RewardNetwork",
    "RewardScorer",
    "RunningMoments",
    "fit_together",
    "make_network",
    "merge_members",
    "reward_scale",
    "take_members",
]
