"""What every algorithm here is: an RLlib algorithm that learns from preferences, and the one loop of a run."""

import logging
import tempfile
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import PlacementGroupFactory

from rayrlhf.algorithms import checkpoint, evaluation
from rayrlhf.algorithms.collector import FinishedEpisode, Mode, worker_of
from rayrlhf.algorithms.config import RunAlgorithmConfig
from rayrlhf.algorithms.learner import RewardSource
from rayrlhf.algorithms.progress import Plan, Progress
from rayrlhf.algorithms.roles import Feedback, Ref, SessionOutcome
from rayrlhf.algorithms.rollouts import LOST_SECONDS, Arrival, Rollouts
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.evaluation.episodes import EvaluationResult
from rayrlhf.logs import event
from rayrlhf.placement import placement_of

_log = logging.getLogger(__name__)

SESSION_POLL_SECONDS = 0.005
LOSS_SECONDS = 10.0
"""Within which Ray knows of a learner that died, where another one has found its connection broken."""
STOP_SECONDS = 3.0
"""How long rollout actors have to close their environments at the end."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped between two rounds because `interrupted` was set: nothing is half done."""


class PreferenceAlgorithm(Algorithm):
    """Rollout actors, learners, and the roles around the reward model; `training_step` is each algorithm's own."""

    config: RunAlgorithmConfig

    @classmethod
    @abstractmethod
    def get_default_config(cls) -> RunAlgorithmConfig:
        """RLlib's options for this class."""

    @classmethod
    def default_resource_request(cls, config: RunAlgorithmConfig | dict[str, Any]) -> PlacementGroupFactory:
        """For Tune: the roles around the reward model are in the trial's placement group, too."""
        of = config if isinstance(config, RunAlgorithmConfig) else cls.get_default_config().update_from_dict(config)
        return PlacementGroupFactory(placement_of(of.run).bundles())

    def setup(self, config: RunAlgorithmConfig) -> None:
        """Rollout actors and learners through RLlib, then the roles around the reward model."""
        # not DQN's, which may lie between: that one asks every runner whether its RLModule is recurrent
        Algorithm.setup(self, config)
        self.run: RunConfig = self.config.run
        self.plan, self.progress = Plan(self.run), Progress()
        self.interrupted = threading.Event()
        group = self.env_runner_group
        self.rollouts = Rollouts(
            group,
            lambda: self.restore_env_runners(group),
            self._stop_if_interrupted,
            timeout_seconds=self.run.rollout.timeout_seconds,
            lost_after_seconds=max(LOST_SECONDS, 60 * self.run.resources.wait_minutes),
        )
        self.feedback: Feedback | None = self._make_feedback()
        self._session_running = False
        self._reward_version = -1
        """Of the reward that the learners have; not known after a resume."""
        self._policy = self._fetch_policy()
        self._recent: deque[FinishedEpisode] = deque(maxlen=10)
        self._metrics: dict[str, float] = {}

    def _make_feedback(self) -> Feedback | None:
        if self.run.mode == "oracle":
            return None
        assert self.config.feedback_factory is not None, "`of` needs feedback in the mode 'preferences'"
        spec = self.config
        widths = spec.observation_space.shape[0], spec.action_space.shape[0]
        return self.config.feedback_factory(self.run, *widths, self.config.run_folder)

    # --- the algorithm ---

    @abstractmethod
    def training_step(self) -> None:
        """One round."""

    def _stop_if_interrupted(self) -> None:
        if self.interrupted.is_set():
            raise Interrupted

    def collect(self) -> list[Arrival]:
        """Fragments that have come, at least one; none of them staler than allowed."""
        if self.run.rollout.synchronous or not self.rollouts.numbers:
            self.request_fragments()
        return self.rollouts.collect(
            version=self.progress.learner_calls,
            max_staleness=self.run.rollout.max_staleness,
            everything=self.run.rollout.synchronous,
        )

    def request_fragments(self) -> None:
        """Sends idle rollout actors off with the newest policy."""
        mode: Mode = "random" if self.plan.phase(self.progress) == "random" else "policy"
        self.rollouts.request(self._policy, self.progress.learner_calls, mode)

    def insert(self, arrivals: list[Arrival]) -> None:
        """Hands fragments, by reference, to the learners, each actor's in turn, and to the trajectory store."""
        shares: list[list[Ref]] = [[] for _ in range(self.learners)]
        for arrival in arrivals:
            shares[(arrival.number + arrival.runner) % self.learners].append(arrival.fragment)
            self._count(arrival)
        self._hand_over(shares)

    def _hand_over(self, shares: list[list[Ref]]) -> None:
        """Gives every learner its share of fragments, and the trajectory store all of them."""
        for index, share in enumerate(shares):
            if share:
                self._on_learner(index, "insert", share)
        fragments = [fragment for share in shares for fragment in share]
        if self.feedback is not None and fragments:
            self.feedback.remember(fragments)

    @property
    def learners(self) -> int:
        """How many learn together."""
        return max(1, self.run.resources.learners)

    @property
    def device(self) -> str:
        """The GPU, or the processor, that the first learner computes on."""
        return str(self._call_learners([0], "device_name")[0])

    def end_exploration(self) -> None:
        """The reward comes into play: first session, the reward of what is learnt from, a fresh critic."""
        self._save_exploration()
        if self.feedback is None:
            self._reward_with("true")
        else:
            if not self.progress.sessions:  # else it was held, and interrupted before exploration had ended
                self._warm_up_reward(self.feedback)
                self.hold_session(wait=True)
            self._reward_with("ensemble", self.feedback.weights(), self.feedback.version)
        self.progress.exploring = False  # not before: a run that is interrupted while it waits ends exploration again
        if self.run.explore.reset_critic:
            self._on_learners("reset_critic")

    def _warm_up_reward(self, feedback: Feedback) -> None:
        """What the ensemble learns before the first label: of experience without a reward, nothing."""

    def hold_session(self, *, wait: bool = False) -> None:
        """Begins the session that is due and applies the one that has ended. Only `wait` holds training up."""
        if self.feedback is None:
            return
        wait = wait or self.run.rollout.synchronous or self.run.teacher.wait
        if not self._session_running:
            self._begin_session_if_due(self.feedback)
        self._finish_session(wait=wait)
        if not self._session_running:
            self.feedback.collect()

    def _begin_session_if_due(self, feedback: Feedback) -> None:
        """One with questions or, when all have been asked, one that only fits to answers that came late."""
        questions = self.plan.questions_due(self.progress)
        late = self.plan.late_session_due(self.progress) if feedback.unlearnt else None
        session = self.progress.sessions if questions else late
        if session is not None:
            feedback.begin_session(session, questions, self._standardising_policy())
            self._session_running = True
            what = f"{questions} questions" if questions else "answers that came late"
            _log.info(
                "session %d begins: %s",
                session,
                what,
                extra=self._event("session", session=session, questions=questions),
            )

    def _standardising_policy(self) -> Ref | None:
        """The policy whose statistics of observations the reward model is to share, if it keeps any."""
        return None

    def _finish_session(self, *, wait: bool) -> None:
        """Applies the running session's outcome if it is there, or once it is."""
        while self._session_running and self.feedback is not None:
            outcome = self.feedback.finish_session()
            if outcome is not None:
                self._apply(outcome)
            elif wait:
                self._stop_if_interrupted()
                time.sleep(SESSION_POLL_SECONDS)
            else:
                return

    def _apply(self, outcome: SessionOutcome) -> None:
        self._session_running = False
        self.progress.sessions = outcome.session + 1
        self.progress.labels = outcome.labels
        self.progress.answers = outcome.answers
        self._metrics |= outcome.metrics
        facts = {"session": outcome.session, "labels": outcome.labels, "reward_version": outcome.version}
        words = f"{outcome.labels} labels so far, reward version {outcome.version}"
        extra = self._event("session-over", **facts, **outcome.metrics)
        _log.info("session %d is over: %s", outcome.session, words, extra=extra)
        if not self.progress.exploring and outcome.version != self._reward_version:
            self._reward_with("ensemble", outcome.weights, outcome.version)

    def _event(self, kind: str, **facts: Any) -> dict[str, Any]:
        return event(kind, env_steps=self.progress.env_steps, **facts)

    def _reward_with(self, source: RewardSource, weights: Ref | None = None, version: int = 0) -> None:
        self._on_learners("reward_with", source, weights, version)
        self._reward_version = version

    def _learn_and_publish(self, *args: Any) -> None:
        metrics = self._on_learners("learn", *args)
        self._metrics |= {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        self.progress.learner_calls += 1
        self._policy = self._fetch_policy()

    def _fetch_policy(self) -> Ref:
        if self.learner_group.is_local:
            return ray.put(self.learner_group._learner.actor_weights())
        reference: Ref = self.learner_group._workers[0].apply.remote(lambda learner: learner.actor_weights())
        return reference

    def _on_learners(self, method: str, *args: Any) -> list[Any]:
        return self._call_learners(range(self.learners), method, *args)

    def _on_learner(self, index: int, method: str, *args: Any) -> None:
        self._call_learners([index], method, *args)

    def _call_learners(self, chosen: Iterable[int], method: str, *args: Any) -> list[Any]:
        """What `method` returned on the `chosen` learners. The first error is raised at once.

        RLlib's own call waits for all learners, of which some may wait for the gradients of the one that failed.
        """
        if self.learner_group.is_local:
            return [getattr(self.learner_group._learner, method)(*args)]
        calls = [
            self.learner_group._workers[index].apply.remote(lambda learner: getattr(learner, method)(*args))
            for index in chosen
        ]
        waiting = list(calls)
        while waiting:
            (ready,), waiting = ray.wait(waiting)
            try:
                ray.get(ready)
            except RayTaskError:
                _raise_loss_among(waiting)
                raise
        results: list[Any] = ray.get(calls)
        return results

    def _count(self, arrival: Arrival) -> None:
        report, progress = arrival.report, self.progress
        progress.env_steps += report.num_transitions
        progress.max_staleness = max(progress.max_staleness, progress.learner_calls - report.version)
        self._recent.extend(report.finished)
        self._log_sampled(report.num_transitions)

    def _log_sampled(self, transitions: int) -> None:
        """RLlib's own counter of environment steps, which Tune and its schedulers read."""
        self.metrics.log_value((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), transitions, reduce="lifetime_sum")

    # --- looking ---

    def step(self) -> dict[str, Any]:
        """RLlib's results with our row of metrics beside them, under `rayrlhf`."""
        results: dict[str, Any] = super().step()
        results["rayrlhf"] = self.row()
        return results

    def row(self) -> dict[str, float]:
        """One flat row: counters, newest losses, and the newest training episodes."""
        progress = self.progress
        learnable = max(1, self.plan.learnable(progress))
        row: dict[str, float] = {**asdict(progress), **self._metrics, "updates_per_step": progress.updates / learnable}
        row["fragments_in_flight"] = float(self.rollouts.in_flight)
        if self.feedback is not None:
            row["open_questions"] = float(self.feedback.open_questions)
            row["reward_version"] = float(self.feedback.version)
        if self._recent:
            row["train_success"] = float(np.mean([episode.success for episode in self._recent]))
            row["train_return"] = float(np.mean([episode.true_return for episode in self._recent]))
        return row

    def evaluate(self, episodes: int | None = None, *, stream: str = "evaluation") -> EvaluationResult:
        """`episodes` deterministic episodes (default: the run's), spread over the rollout actors."""
        numbers = tuple(range(episodes or self.run.evaluation.episodes))
        weights = self.feedback.weights() if self.feedback is not None and self.feedback.version else None
        return evaluation.spread(self.rollouts, self._policy, numbers, stream, weights)

    # --- faults and checkpoints ---

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Brings rollout actors back that died; they continue with new episodes."""
        restored = self.rollouts.back()
        for runner in restored:
            _log.info("rollout-%d is back", runner, extra=self._event("back", who=f"rollout-{runner}"))
        if restored and self.feedback is not None:
            self.feedback.close_episodes([env for runner in restored for env in self._environments_of(runner)])
        return restored

    def _environments_of(self, runner: int) -> range:
        """Global indices of a rollout actor's environments."""
        count = self.run.rollout.envs_per_actor
        return range(worker_of(runner) * count, (worker_of(runner) + 1) * count)

    def can_checkpoint(self) -> bool:
        """A synchronous run is cut only where all environments stand at an episode's start."""
        return not self.run.rollout.synchronous or all(self.rollouts.at_start.values())

    def cut(self) -> None:
        """Ends all running episodes, so that a synchronous run can be cut here: it goes on with new ones."""
        for runner, episodes in list(self.rollouts.episodes.items()):
            self.rollouts.place(runner, [number + 1 for number in episodes])
        if self.feedback is not None:
            self.feedback.close_episodes(None)

    def save_checkpoint(self, checkpoint_dir: str, *, shared_rows: bool = False) -> None:
        """Everything of the run, in files without pickle; see `algorithms.checkpoint`."""
        if self.interrupted.is_set():
            self._abandon_session()
        else:
            self._finish_session(wait=True)
        checkpoint.save(self, Path(checkpoint_dir), shared_rows=shared_rows)

    def _abandon_session(self) -> None:
        """Gives up a session that waits for its teacher: it is held again after the resume, with the same questions."""
        if self._session_running and self.feedback is not None:
            outcome = self.feedback.abandon_session()
            if outcome is not None:
                self._apply(outcome)
            self._session_running = False

    def load_checkpoint(
        self, checkpoint_dir: str, *, exploration_only: bool = False, manifest: dict[str, Any] | None = None
    ) -> None:
        """The reverse of `save_checkpoint`; with `exploration_only` another run starts from its exploration.

        `manifest` is what `checkpoint.verify` returned for it a moment ago; without one it is verified here.
        """
        counted = self.progress.env_steps
        checkpoint.load(self, Path(checkpoint_dir), exploration_only=exploration_only, manifest=manifest)
        self._log_sampled(self.progress.env_steps - counted)
        self._policy = self._fetch_policy()

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """RLlib's name for the same; a folder of its own where none is given. Its other options are refused."""
        if given := [name for name, value in kwargs.items() if value is not None]:
            raise UserError(f"save_to_path does not take {', '.join(given)}: a checkpoint is always whole, and local")
        place = tempfile.mkdtemp(prefix="rayrlhf-checkpoint-") if path is None else str(path)
        self.save_checkpoint(place)
        return place

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """RLlib's name for the same."""
        self.load_checkpoint(str(path))

    def _save_exploration(self) -> None:
        if self.run.explore.save is not None:
            checkpoint.save(self, Path(self.run.explore.save))

    def cleanup(self) -> None:
        """Ends all actors."""
        if self.feedback is not None:
            self.feedback.close()
        learners, group = self.learner_group, self.env_runner_group
        if learners is not None and learners.is_remote:
            # they hold nothing that is not saved, and one may wait for ever for the gradients of one that failed
            learners._backend_executor.shutdown(graceful_termination=False)
        if group is not None:
            # RLlib's own call waits for ever for a rollout actor that hangs
            group.foreach_env_runner("stop", local_env_runner=False, timeout_seconds=STOP_SECONDS)
            group._worker_manager.clear()
        super().cleanup()


def _raise_loss_among(calls: list[Ref]) -> None:
    """Raises that a learner died, if one of those called did: it is why others fail, and may be seen after that."""
    done, _ = ray.wait(calls, num_returns=len(calls), timeout=LOSS_SECONDS) if calls else ([], [])
    for call in done:
        try:
            ray.get(call)
        except RayTaskError:
            continue  # RayActorError is the loss
