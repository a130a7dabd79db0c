"""`imitation`'s preference comparisons, with SB3's PPO inside and a synthetic teacher that never errs.

Settings are those of the presets `quickstart` (the reward model, the questions) and `quickstart_ppo` (PPO).
"""

from program import Program  # isort: skip

import numpy as np
import torch
import vectors
from imitation.algorithms import preference_comparisons as comparisons
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, NormalizedRewardNet, RewardEnsemble
from imitation.util import logger
from imitation.util.networks import RunningNorm
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

ENVS, ITERATION = 10, 1000
PER_SESSION, SEGMENT, RECENT = 10, 10, 2000
MEMBERS = 3


class Counted(VecEnvWrapper):  # type: ignore[misc, unused-ignore]
    """Counts environment steps: what is asked about at the start is collected beside PPO's own steps."""

    steps = 0

    def reset(self) -> VecEnvObs:
        """As it is."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """As it is, and counted."""
        self.steps += self.num_envs
        return self.venv.step_wait()


def reward_ensemble(envs: VecEnv) -> RewardEnsemble:
    """Three networks on standardised observations, with standardised rewards."""
    spaces = envs.observation_space, envs.action_space
    plain = [BasicRewardNet(*spaces, hid_sizes=(128, 128), normalize_input_layer=RunningNorm) for _ in range(MEMBERS)]
    return RewardEnsemble(*spaces, [NormalizedRewardNet(net, RunningNorm) for net in plain])


def agent(envs: VecEnv, seed: int) -> PPO:
    """PPO, which standardises observations as `imitation` does: in the policy."""
    return PPO(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        n_steps=ITERATION // ENVS,
        batch_size=200,
        n_epochs=10,
        gamma=0.95,
        gae_lambda=0.92,
        clip_range=0.2,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={
            "net_arch": {"pi": [128, 128], "vf": [128, 128]},
            "log_std_init": -0.5,
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        },
        seed=seed,
        device="cpu",
    )


def main() -> None:
    program = Program(__doc__)
    torch.set_num_threads(1)
    plain, vector = vectors.make(ENVS, program.seed, program.vector)
    envs = Counted(plain)
    ppo = agent(envs, program.seed)
    rng = np.random.default_rng(program.seed)
    ensemble = reward_ensemble(envs)
    preferred = comparisons.PreferenceModel(ensemble)
    # It trains PPO once more than `num_iterations`: after the first questions, which are not one of them.
    sessions = program.labels // PER_SESSION
    method = comparisons.PreferenceComparisons(
        comparisons.AgentTrainer(ppo, ensemble, envs, rng),
        ensemble,
        num_iterations=sessions - 1,
        fragmenter=comparisons.ActiveSelectionFragmenter(
            preferred,
            comparisons.RandomFragmenter(rng, warning_threshold=0),
            fragment_sample_factor=10,
            uncertainty_on="probability",
        ),
        preference_gatherer=comparisons.SyntheticGatherer(temperature=0, rng=rng),
        reward_trainer=comparisons.EnsembleTrainer(
            preferred, comparisons.CrossEntropyRewardLoss(), rng, batch_size=32, epochs=50, lr=3e-4
        ),
        fragment_length=SEGMENT,
        transition_oversampling=RECENT / (2 * PER_SESSION * SEGMENT),
        initial_comparison_frac=1 / sessions,
        initial_epoch_multiplier=1.0,
        custom_logger=logger.configure(format_strs=[]),
        query_schedule="constant",
    )
    with program.training():
        method.train(program.steps * (sessions - 1) // sessions, program.labels)
    score = program.score(lambda obs: ppo.predict(obs, deterministic=True)[0])
    packages = "imitation", "stable-baselines3", "numpy"
    program.write(score, steps=envs.steps, labels=len(method.dataset), vector=vector, packages=packages)


if __name__ == "__main__":
    main()
