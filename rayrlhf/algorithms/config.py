"""RLlib's side of a run: which classes, how many actors, which resources. The options themselves are `RunConfig`'s."""

from abc import abstractmethod
from pathlib import Path
from typing import Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayrlhf.algorithms.env_runner import RolloutActor, spaces_of
from rayrlhf.algorithms.module import PolicyModule
from rayrlhf.algorithms.ppo_learner import PrefPpoLearner
from rayrlhf.algorithms.roles import FeedbackFactory
from rayrlhf.algorithms.sac_learner import PebbleLearner
from rayrlhf.config import RunConfig
from rayrlhf.envs import check_env
from rayrlhf.envs.instructions import Instructions
from rayrlhf.errors import UserError
from rayrlhf.placement import placement_of


class RunAlgorithmConfig(AlgorithmConfig):
    """`get_default_config().of(run)` of an algorithm here turns a run's options into RLlib's."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.run = RunConfig()
        self.feedback_factory: FeedbackFactory | None = None
        self.run_folder: str | None = None
        self.instructions: Instructions | None = None

    @property
    def run_name(self) -> str:
        """The run's name: its folder's."""
        return Path(self.run_folder or self.run.name or "run").name

    def of(
        self,
        run: RunConfig,
        *,
        feedback: FeedbackFactory | None = None,
        folder: str | None = None,
        instructions: Instructions | None = None,
    ) -> Self:
        """Takes over `run`. `feedback` makes the roles around the reward model, `folder` is the run's.

        instructions: what observations end with, where `env.encoder` asks for it
        """
        spec = check_env(run.env)
        observations, actions = spaces_of(spec.obs_dim, spec.action_dim)
        self.run, self.feedback_factory, self.run_folder, self.instructions = run, feedback, folder, instructions
        resources, rollout = run.resources, run.rollout
        placement = placement_of(run)
        self.environment(observation_space=observations, action_space=actions, disable_env_checking=True)
        self.env_runners(
            env_runner_cls=RolloutActor,
            num_env_runners=rollout.actors,
            num_envs_per_env_runner=rollout.envs_per_actor,
            num_cpus_per_env_runner=resources.rollout_cpus,
            custom_resources_per_env_runner=placement.marks_of("rollout"),
            rollout_fragment_length=rollout.fragment_length,
            create_local_env_runner=rollout.actors == 0,
            merge_env_runner_states=False,
            broadcast_env_runner_states=False,
        )
        self.learners(
            num_learners=resources.learners,
            num_cpus_per_learner=resources.learner_cpus if resources.learners else resources.driver_cpus,
            num_gpus_per_learner=resources.gpus_per_learner,
            custom_resources_per_learner=placement.marks_of("learner"),
        )
        self.resources(num_cpus_for_main_process=resources.driver_cpus)
        self.rl_module(rl_module_spec=PolicyModule.spec_of(run))
        self._train_as(run)
        # one call of train() is one round: RLlib's part of it costs 2 ms
        self.reporting(min_sample_timesteps_per_iteration=0, min_time_s_per_iteration=0)
        self.fault_tolerance(
            restart_failed_env_runners=True,
            delay_between_env_runner_restarts_s=1.0,
        )
        self.debugging(log_level="ERROR")  # its warnings are about the stock algorithm, which this is not
        self.update_from_dict({"_dont_auto_sync_env_runner_states": True})
        return self

    def validate(self) -> None:
        """RLlib's checks, and one of ours: what would be ignored is refused."""
        super().validate()
        if self.torch_skip_nan_gradients:
            raise UserError(
                "torch_skip_nan_gradients is not for these algorithms: an update that is not finite ends the run"
            )

    @abstractmethod
    def _train_as(self, run: RunConfig) -> None:
        """What RLlib's own checks look at; the learners read `run`."""

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Ours: no encoders."""
        return PolicyModule.spec_of(self.run)


class PebbleConfig(RunAlgorithmConfig, SACConfig):
    """PEBBLE's."""

    def _train_as(self, run: RunConfig) -> None:
        self.training(gamma=run.sac.gamma, train_batch_size_per_learner=run.sac.batch_size, n_step=1)

    def get_default_learner_class(self) -> type:
        """Ours, with the replay inside."""
        return PebbleLearner


class PrefPpoConfig(RunAlgorithmConfig, PPOConfig):
    """PrefPPO's."""

    def _train_as(self, run: RunConfig) -> None:
        ppo, learners = run.ppo, max(1, run.resources.learners)
        self.training(
            gamma=ppo.gamma,
            lambda_=ppo.gae_lambda,
            train_batch_size_per_learner=run.rollout.round_steps // learners,
            minibatch_size=ppo.batch_size // learners,
            num_epochs=ppo.epochs,
        )

    def get_default_learner_class(self) -> type:
        """Ours, with advantages inside."""
        return PrefPpoLearner
