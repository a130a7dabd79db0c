"""Stock RLlib's SAC on the true reward, with the settings of the preset `quickstart`.

Critics are the smallest that its options make around the same policy, and the replay is the uniform one: the faster
choices.
"""

from program import Program  # isort: skip

import torch
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from rllib import train

BATCH, FRAGMENT, RUNNERS = 256, 50, 2
NATIVE = BATCH / (FRAGMENT * (RUNNERS + 1))
"""`training_intensity` over this is how many updates follow both runners' fragments; RLlib counts the two as three."""


def main() -> None:
    program = Program(__doc__)
    torch.set_num_threads(1)
    model = DefaultModelConfig(
        fcnet_hiddens=[128],
        fcnet_activation="relu",
        fusionnet_hiddens=[],
        fusionnet_activation="relu",
        head_fcnet_hiddens=[128],
        head_fcnet_activation="relu",
    )
    config = (
        SACConfig()
        .env_runners(rollout_fragment_length=FRAGMENT)
        .rl_module(model_config=model)
        .training(
            actor_lr=1e-3,
            critic_lr=1e-3,
            alpha_lr=1e-3,
            gamma=0.95,
            tau=0.01,
            initial_alpha=0.1,
            target_entropy=-2.0,
            target_network_update_freq=0,  # with every update
            n_step=1,
            train_batch_size_per_learner=BATCH,
            training_intensity=FRAGMENT * RUNNERS * NATIVE,
            num_steps_sampled_before_learning_starts=1000,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1_000_000},
        )
    )
    train(program, config, envs_per_runner=1)


if __name__ == "__main__":
    main()
