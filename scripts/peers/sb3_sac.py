"""Stable-Baselines3's SAC on the true reward, with the settings of the preset `quickstart`."""

from program import Program  # isort: skip

import torch
import vectors
from stable_baselines3 import SAC

ENVS = 2


def main() -> None:
    program = Program(__doc__)
    torch.set_num_threads(1)
    envs, vector = vectors.make(ENVS, program.seed, program.vector)
    model = SAC(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        learning_starts=1000,
        batch_size=256,
        tau=0.01,
        gamma=0.95,
        train_freq=1,
        gradient_steps=-1,  # as many as there are environments: one update a step
        ent_coef="auto_0.1",
        target_update_interval=1,
        target_entropy=-2.0,
        policy_kwargs={"net_arch": [128, 128]},
        seed=program.seed,
        device="cpu",
    )
    with program.training():
        model.learn(program.steps)
    score = program.score(lambda obs: model.predict(obs, deterministic=True)[0])
    program.write(score, steps=model.num_timesteps, labels=0, vector=vector, packages=("stable-baselines3",))


if __name__ == "__main__":
    main()
