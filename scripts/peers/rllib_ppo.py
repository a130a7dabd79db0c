"""Stock RLlib's PPO on the true reward, with the settings of the preset `quickstart_ppo`."""

from program import Program  # isort: skip

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from rllib import train


def standardise(*_: Any) -> MeanStdFilter:
    """Observations by running statistics, clipped at ten standard deviations."""
    return MeanStdFilter(clip_by_value=10.0)


def main() -> None:
    program = Program(__doc__)
    torch.set_num_threads(1)
    model = DefaultModelConfig(
        fcnet_hiddens=[128, 128], fcnet_activation="tanh", vf_share_layers=False, free_log_std=True
    )
    config = (
        PPOConfig()
        .env_runners(rollout_fragment_length="auto", env_to_module_connector=standardise)
        .rl_module(model_config=model)
        .training(
            lr=1e-3,
            gamma=0.95,
            lambda_=0.92,
            train_batch_size_per_learner=1000,
            minibatch_size=200,
            num_epochs=10,
            use_kl_loss=False,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
    )
    train(program, config, envs_per_runner=5)


if __name__ == "__main__":
    main()
