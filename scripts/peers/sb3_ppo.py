"""Stable-Baselines3's PPO on the true reward, with the settings of the preset `quickstart_ppo`."""

from program import Program  # isort: skip

import torch
import vectors
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

ENVS = 10


def main() -> None:
    program = Program(__doc__)
    torch.set_num_threads(1)
    plain, vector = vectors.make(ENVS, program.seed, program.vector)
    envs = VecNormalize(plain, norm_obs=True, norm_reward=False, clip_obs=10.0)
    model = PPO(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        n_steps=100,
        batch_size=200,
        n_epochs=10,
        gamma=0.95,
        gae_lambda=0.92,
        clip_range=lambda left: 0.2 * left,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [128, 128], "vf": [128, 128]}, "log_std_init": -0.5},
        seed=program.seed,
        device="cpu",
    )
    with program.training():
        model.learn(program.steps)
    score = program.score(lambda obs: model.predict(envs.normalize_obs(obs), deterministic=True)[0])
    program.write(score, steps=model.num_timesteps, labels=0, vector=vector, packages=("stable-baselines3",))


if __name__ == "__main__":
    main()
