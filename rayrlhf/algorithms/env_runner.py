"""The rollout actor: RLlib's EnvRunner interface around a `Collector`, returning columns instead of episode objects."""

from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable

from rayrlhf.algorithms.collector import Collector, CollectReport, Mode, worker_of
from rayrlhf.config import RunConfig
from rayrlhf.envs import EnvironmentBroken
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.evaluation.episodes import EvaluationRequest, EvaluationResult, evaluate_episodes
from rayrlhf.logs import log_as
from rayrlhf.preferences.fragments import Fragment

Arrays = dict[str, NDArray[Any]]


def spaces_of(obs_dim: int, action_dim: int) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """The spaces as RLlib wants them: unbounded observations, actions in [-1, 1]."""
    return (
        gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32),
        gym.spaces.Box(-1.0, 1.0, (action_dim,), np.float32),
    )


class RolloutActor(EnvRunner, Checkpointable):
    """One worker's environments. `sample` returns the large columns, `report` the small facts about them.

    The driver calls both in turn without waiting in between, and so handles columns by reference only.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.run: RunConfig = config.run
        torch.set_num_threads(1)
        worker = worker_of(self.worker_index or 0)
        if self.worker_index:  # else the driver's own
            log_as(config.run_name, self._role)
        self._report: CollectReport | Exception | None = None
        self._fresh = True
        try:
            self.collector = Collector(self.run, worker, config.instructions)
        except Exception as error:  # RLlib would start this process again and again: the first `sample` tells instead
            self._unbuilt: Exception | None = _cannot_be_made(self.run, worker, error)
        else:
            self._unbuilt = None
            self.env = self.collector.env

    @property
    def _role(self) -> str:
        return f"rollout-{self.worker_index}"

    def __repr__(self) -> str:
        """What Ray puts before its lines of log, and shows in its dashboard."""
        return f"{self.config.run_name}/{self._role}"

    def assert_healthy(self) -> None:
        """Ready once the environments stand, or have failed to."""

    def get_spaces(self) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
        """The same spaces under the three keys RLlib asks for."""
        spaces = self.config.observation_space, self.config.action_space
        return {INPUT_ENV_SPACES: spaces, INPUT_ENV_SINGLE_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def sample(
        self,
        *,
        weights: Arrays | None = None,
        version: int = 0,
        mode: Mode = "policy",
        fragment: int = 0,
        running: list[int] | None = None,
        begin: bool = False,
        **kwargs: Any,
    ) -> Fragment | None:
        """Collects one fragment with `weights` (the driver sends the newest); none where an environment broke.

        `running` is what the driver knows of this runner's episodes; with `begin` they are to start now. Without, a
        process that has not collected yet has taken a dead one's place, and begins the episodes after those.
        `fragment` numbers the collection over the run.
        """
        try:
            if self._unbuilt is not None:
                raise self._unbuilt
            if weights is not None:
                self._load(weights)
            if running is not None and (begin or self._fresh):
                self.collector.restart([number + (not begin) for number in running])
            self._fresh = False
            length = self.run.rollout.fragment_length
            columns, self._report = self.collector.collect(length, mode, fragment=fragment, version=version)
        except Exception as broken:  # handed over: RLlib would take what is raised here for a lost process
            self._report = broken
            return None
        return columns

    def report(self) -> CollectReport | Exception | None:
        """What the last `sample` did, or what broke in it."""
        return self._report

    def evaluate(self, *, weights: Arrays, request: EvaluationRequest) -> list[EvaluationResult] | Exception:
        """Deterministic episodes in environments of their own, or what broke there."""
        try:
            if self._unbuilt is not None:
                raise self._unbuilt
            self._load(weights)
            return evaluate_episodes(self.collector.policy, self.run, request, self.config.instructions)
        except Exception as broken:
            return broken

    def _load(self, weights: Arrays) -> None:
        # a copy: what lies in the object store is read-only and may go away
        self.collector.policy.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in weights.items()})

    def get_metrics(self) -> Any:
        """Nothing: `report` carries the facts."""
        return self.metrics.reduce()

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The numbers of the running episodes; weights come with every `sample`."""
        return {"episodes": self.collector.episodes.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Starts the episodes `state` names. Accepts RLlib's weight updates too."""
        if COMPONENT_RL_MODULE in state:
            module = state[COMPONENT_RL_MODULE]
            module = ray.get(module) if isinstance(module, ray.ObjectRef) else module
            prefix = "networks.actor."
            weights = {k[len(prefix) :]: v for k, v in module[DEFAULT_MODULE_ID].items() if k.startswith(prefix)}
            self._load(weights)
        if "episodes" in state:
            self.collector.restart(state["episodes"])
            self._fresh = False

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """RLlib's Checkpointable rebuilds the runner with these."""
        return (), {"config": self.config}

    def stop(self) -> None:
        """Closes the environments."""
        if self._unbuilt is None:
            self.collector.env.close()


def _cannot_be_made(run: RunConfig, worker: int, error: Exception) -> Exception:
    """What to tell of an environment that broke while it was made."""
    if isinstance(error, EnvironmentBroken | UserError):
        return error
    name = f"{run.env.suite}/{run.env.task}"
    return EnvironmentBroken(
        name, worker * run.rollout.envs_per_actor, 0, 0, f"it cannot be made: {in_one_line(error)}"
    )
