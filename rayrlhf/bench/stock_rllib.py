"""RLlib's own SAC and PPO, as they come, on an environment that costs nothing.

Where its options leave a choice it is the faster one: uniform replay without priorities, and a small one. Its networks
are what `fcnet_hiddens` makes of the wanted layers and its defaults: its critics are an encoder for observations, one
for actions and a network that fuses both. `smallest` asks for the smallest critics it can make around the same policy.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.sac import SAC, SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM
from rayrlhf.config import PpoOptions

Observation = NDArray[np.float32]


class FreeEnv(gym.Env[Observation, Observation]):
    """MetaWorld's shapes, no physics: every step returns the same array."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    def __init__(self, config: Any = None) -> None:
        self._obs = np.zeros(OBS_DIM, np.float32)
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode of 500 steps."""
        self._step = 0
        return self._obs, {}

    def step(self, action: Observation) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Nothing happens."""
        self._step += 1
        return self._obs, 0.0, False, self._step >= 500, {}


def _smallest(hidden: tuple[int, ...]) -> DefaultModelConfig:
    """One encoding layer, one fusing layer, and the other layers in the heads."""
    return DefaultModelConfig(
        fcnet_hiddens=[hidden[0]],
        fcnet_activation="relu",
        fusionnet_hiddens=[],
        fusionnet_activation="relu",
        head_fcnet_hiddens=list(hidden[1:]),
        head_fcnet_activation="relu",
    )


class StockSac:
    """Its training step without the environment, and its learner's update alone."""

    def __init__(
        self,
        hidden: tuple[int, ...],
        batch_size: int,
        *,
        device: str = "cpu",
        rows: int = 5000,
        smallest: bool = False,
    ) -> None:
        model = (
            _smallest(hidden) if smallest else DefaultModelConfig(fcnet_hiddens=list(hidden), fcnet_activation="relu")
        )
        config = (
            SACConfig()
            .environment(FreeEnv)
            .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
            .learners(num_learners=0, num_gpus_per_learner=1 if device == "cuda" else 0)
            .rl_module(model_config=model)
            .training(
                train_batch_size_per_learner=batch_size,
                replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 2 * rows},
                n_step=1,
            )
            .debugging(log_level="ERROR")
        )
        self._batch_size = batch_size
        self._algorithm: SAC = config.build_algo()
        self._fill(rows)
        self._batch = self._connected_batch()

    def _fill(self, rows: int) -> None:
        runner = self._algorithm.env_runner_group.local_env_runner
        while self._algorithm.local_replay_buffer.get_num_timesteps() < rows:
            self._algorithm.local_replay_buffer.add(runner.sample(num_timesteps=500, random_actions=True))

    def _sample(self) -> Any:
        return self._algorithm.local_replay_buffer.sample(
            num_items=self._batch_size,
            n_step=1,
            batch_length_T=0,
            lookback=0,
            min_batch_length_T=0,
            gamma=self._algorithm.config.gamma,
            sample_episodes=True,
        )

    def _connected_batch(self) -> Any:
        """A batch as the learner's connector makes it, so that an update can run without sampling and connector."""
        learner = self._algorithm.learner_group._learner
        episodes = self._sample()
        columns = learner._learner_connector(
            rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=learner.metrics
        )
        batches = {DEFAULT_MODULE_ID: SampleBatch(columns[DEFAULT_MODULE_ID])}
        return MultiAgentBatch(batches, env_steps=self._batch_size)

    def _timesteps(self) -> dict[str, int]:
        return {"num_env_steps_sampled_lifetime": 1, "num_agent_steps_sampled_lifetime": 1}

    def steps(self, count: int) -> None:
        """`count` times: sample episodes, connector, update."""
        for _ in range(count):
            self._algorithm.learner_group.update(episodes=self._sample(), timesteps=self._timesteps())

    def updates(self, count: int) -> None:
        """`count` updates on a batch that is ready."""
        for _ in range(count):
            self._algorithm.learner_group.update(batch=self._batch, timesteps=self._timesteps())

    def stop(self) -> None:
        """Ends the algorithm."""
        self._algorithm.stop()


class StockPpo:
    """Its training step without the environment: advantages of episodes, minibatches, updates.

    Actor and critic have the layers of `options` each, and the standard deviation does not depend on the state. The
    penalty on the divergence and the clipping of the critic's loss are off.
    """

    def __init__(self, options: PpoOptions, rows: int, *, envs: int, device: str = "cpu") -> None:
        model = DefaultModelConfig(
            fcnet_hiddens=list(options.hidden),
            fcnet_activation="tanh",
            vf_share_layers=False,
            free_log_std=True,
        )
        config = (
            PPOConfig()
            .environment(FreeEnv)
            .env_runners(num_env_runners=0, num_envs_per_env_runner=envs)
            .learners(num_learners=0, num_gpus_per_learner=1 if device == "cuda" else 0)
            .rl_module(model_config=model)
            .training(
                gamma=options.gamma,
                lambda_=options.gae_lambda,
                lr=options.lr,
                train_batch_size_per_learner=rows,
                minibatch_size=options.batch_size,
                num_epochs=1,
                use_kl_loss=False,
                clip_param=options.clip,
                vf_clip_param=float("inf"),
                vf_loss_coeff=options.value_coefficient,
                entropy_coeff=options.entropy_coefficient,
                grad_clip=options.max_grad_norm,
                grad_clip_by="global_norm",
            )
            .debugging(log_level="ERROR")
        )
        self._rows, self._batch_size = rows, options.batch_size
        self._algorithm: PPO = config.build_algo()
        self._episodes: Any = None

    def collect(self) -> None:
        """Fresh episodes for the next `learn`, which uses them up."""
        self._episodes = self._algorithm.env_runner_group.local_env_runner.sample(num_timesteps=self._rows)

    def learn(self, epochs: int) -> None:
        """An iteration on what was collected."""
        steps = {"num_env_steps_sampled_lifetime": self._rows, "num_agent_steps_sampled_lifetime": self._rows}
        self._algorithm.learner_group.update(
            episodes=self._episodes,
            timesteps=steps,
            num_epochs=epochs,
            minibatch_size=self._batch_size,
            shuffle_batch_per_epoch=True,
        )

    def stop(self) -> None:
        """Ends the algorithm."""
        self._algorithm.stop()
