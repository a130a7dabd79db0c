"""What both programs on stock RLlib share: how it is started, trained to so many steps, and evaluated."""

from program import Program, Score  # isort: skip

import logging
from typing import Any

import ray
from environment import EVALUATION, HandlePressSide
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

SAMPLED = "num_env_steps_sampled_lifetime"


def note_success(*, episode: Any, metrics_logger: Any, **_: Any) -> None:
    """Logs of an episode whether any of its steps was a success."""
    solved = any(info.get("success", False) for info in episode.get_infos())
    metrics_logger.log_value("success", float(solved), reduce="mean", window=1000)


def train(program: Program, config: AlgorithmConfig, envs_per_runner: int) -> None:
    """Trains with `config`, to which environments, processes and the evaluation are added; writes the result."""
    evaluation = {
        "explore": False,
        "num_envs_per_env_runner": 1,
        "seed": EVALUATION + 1000 * program.seed,
        "callbacks_on_episode_end": note_success,
    }
    config = (
        config.environment(HandlePressSide)
        .framework("torch")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=envs_per_runner, num_cpus_per_env_runner=0.5)
        .learners(num_learners=0)
        .evaluation(
            evaluation_interval=10**9,  # only when it is asked for
            evaluation_num_env_runners=0,
            evaluation_duration=program.episodes,
            evaluation_duration_unit="episodes",
            evaluation_config=evaluation,
        )
        .reporting(
            min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0, min_train_timesteps_per_iteration=0
        )
        .debugging(seed=program.seed, log_level="ERROR")
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    algorithm = config.build_algo()
    steps = 0
    with program.training():
        while steps < program.steps:
            steps = int(algorithm.train()["env_runners"][SAMPLED])
    found = algorithm.evaluate()["env_runners"]
    score = Score(float(found["success"]), float(found["episode_return_mean"]))
    program.write(score, steps=steps, labels=0, packages=("ray",))
    algorithm.stop()
    ray.shutdown()
