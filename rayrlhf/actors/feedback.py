"""One session after another: select questions, ask, collect, log, fit, publish.

The driver's side of the roles around the reward model. Sessions run in a thread of their own, because all they do is
wait for actors and teachers; training goes on meanwhile.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from rayrlhf.actors.hosts import RoleHandle, start_host
from rayrlhf.actors.roles import EnsembleRole, TrajectoryRole
from rayrlhf.algorithms.roles import Ref, SessionOutcome
from rayrlhf.config import RunConfig
from rayrlhf.preferences.answers import Answer, Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.rewards import FitReport, fit_together, merge_weights, reward_scale
from rayrlhf.teachers import Teacher, make_teacher

WAIT_POLL_SECONDS = 0.05


@ray.remote
def _merged(*parts: Any) -> Any:
    return merge_weights(parts)


class FeedbackLoop:
    """Implements `algorithms.roles.Feedback` with Ray actors, a teacher and the answer log in `folder`."""

    def __init__(self, run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> None:
        self._run = run
        self._log = PreferenceDataset(f"{folder}/preferences")
        self._teacher: Teacher = make_teacher(run.teacher, run.seed)
        self._trajectories, self._ensemble = _start_roles(run, folder.rstrip("/").rsplit("/", 1)[-1], obs_dim, action_dim)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="session")
        self._running: Future[SessionOutcome] | None = None
        self._weights: Ref | None = None
        self.labels, self.version = 0, 0

    # --- the protocol ---

    def remember(self, fragments: list[Ref]) -> None:
        """Hands fragments to the trajectory store; returns at once."""
        self._trajectories("add", *fragments)

    def begin_session(self, session: int, count: int) -> None:
        """Starts a session for up to `count` labels; returns at once."""
        self._running = self._pool.submit(self._hold, session, count)

    def finish_session(self, *, wait: bool) -> SessionOutcome | None:
        """The running session's outcome, or none while it lasts."""
        if self._running is None or not (wait or self._running.done()):
            return None
        outcome = self._running.result()
        self._running = None
        self.labels, self.version, self._weights = outcome.labels, outcome.version, outcome.weights
        return outcome

    def weights(self) -> Ref:
        """Reference to the ensemble's weights after the last finished session."""
        if self._weights is None:
            self._weights = self._publish()
        return self._weights

    # --- a session ---

    def _hold(self, session: int, count: int) -> SessionOutcome:
        begin = time.perf_counter()
        queries, answers = self._ask(session, count)
        asked = time.perf_counter()
        labels = labels_from(queries, answers)
        metrics = {"query_seconds": asked - begin}
        version = self.version
        if len(labels):
            metrics |= self._learn_from(labels)
            version += 1
        metrics["fit_seconds"] = time.perf_counter() - asked
        return SessionOutcome(session, self.labels + len(labels), len(answers), self._publish(), version, metrics)

    def _ask(self, session: int, count: int) -> tuple[Queries, list[Answer]]:
        """Questions and answers of `session`. What the log holds of it already is not asked again."""
        if session in self._log.sessions():
            return self._log.read_session(session)
        queries = self._select(session, count)
        self._teacher.ask(queries)
        answers = self._teacher.collect()
        while self._run.teacher.wait and len(answers) < len(queries):
            time.sleep(WAIT_POLL_SECONDS)
            answers += self._teacher.collect()
        if answers:
            self._log.append(queries, answers)
        return queries, answers

    def _select(self, session: int, count: int) -> Queries:
        # the first session is uniform: an ensemble that has seen no label has nothing to disagree about (PEBBLE)
        informed = session > 0 and self._run.queries.selection != "uniform"
        pairs = self._trajectories("candidates", session, count, self._run.queries.candidates if informed else 1)
        logits = [role("pair_logits", pairs) for role in self._ensemble] if informed else []
        queries: Queries = ray.get(self._trajectories("choose", session, count, pairs, *logits))
        return queries

    def _learn_from(self, labels: Labels) -> dict[str, float]:
        self._give(labels)
        report = self._fit()
        return {
            "reward_loss": float(np.mean(report.loss)),
            "reward_accuracy": float(np.mean(report.accuracy)),
            "reward_epochs": float(report.epochs),
        }

    def _give(self, labels: Labels) -> None:
        reference = ray.put(labels)
        ray.get([role("add_labels", reference) for role in [self._trajectories, *self._ensemble]])

    def _fit(self) -> FitReport:
        if len(self._ensemble) == 1:
            report: FitReport = ray.get(self._ensemble[0]("fit"))
            return report
        groups = [partial(_epoch_of, role) for role in self._ensemble]
        report = fit_together(groups, None, self._run.reward, ray.get)
        if self._run.reward.normalize_rewards:
            scale = reward_scale(ray.get([role("labelled_rewards") for role in self._ensemble]))
            ray.get([role("set_reward_scale", scale) for role in self._ensemble])
        return report

    def _publish(self) -> Ref:
        parts = [role("weights") for role in self._ensemble]
        return parts[0] if len(parts) == 1 else _merged.options(num_cpus=0).remote(*parts)

    # --- checkpoints ---

    def save(self, folder: Path) -> None:
        """Writes the roles' state; no session may be running."""
        folder.mkdir(parents=True, exist_ok=True)
        calls = [self._trajectories("save", str(folder / "trajectories.safetensors"))]
        calls += [role("save", str(_ensemble_file(folder, i))) for i, role in enumerate(self._ensemble)]
        ray.get(calls)

    def load(self, folder: Path, *, sessions: int, version: int, trajectories_only: bool = False) -> None:
        """Restores the roles; labels of the first `sessions` sessions come from the answer log."""
        cut_inside = trajectories_only or not self._run.rollout.synchronous
        ray.get(self._trajectories("load", str(folder / "trajectories.safetensors"), cut_inside))
        if trajectories_only:
            return
        for session in self._log.sessions():
            if session < sessions:
                labels = labels_from(*self._log.read_session(session))
                self._give(labels)
                self.labels += len(labels)
        ray.get([role("load", str(_ensemble_file(folder, i))) for i, role in enumerate(self._ensemble)])
        self.version, self._weights = version, self._publish()

    def close_episodes(self) -> None:
        """Closes the running episodes in the trajectory store."""
        self._trajectories("close_episodes")

    def close(self) -> None:
        """Ends the session's thread and the actors."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for host in {role.host for role in [self._trajectories, *self._ensemble]}:
            ray.kill(host)


def _epoch_of(role: RoleHandle, _: None) -> Ref:
    return role("fit_epoch")


def _ensemble_file(folder: Path, index: int) -> Path:
    return folder / f"ensemble{index:03d}.safetensors"


def _start_roles(run: RunConfig, name: str, obs_dim: int, action_dim: int) -> tuple[RoleHandle, list[RoleHandle]]:
    """The trajectory store, sharing the first process with the first members, and one process per further share."""
    shares = np.array_split(np.arange(run.reward.members), min(run.resources.reward_actors, run.reward.members))
    ensemble = []
    for index, share in enumerate(shares):
        roles: dict[str, Any] = {"ensemble": partial(EnsembleRole, run, obs_dim, action_dim, share.tolist())}
        if index == 0:
            roles["trajectories"] = partial(TrajectoryRole, run, name, obs_dim, action_dim)
        resources = run.resources
        handles = start_host(roles, cpus=resources.reward_cpus, gpus=resources.reward_gpus, threads=resources.threads)
        ensemble.append(handles["ensemble"])
        if index == 0:
            trajectories = handles["trajectories"]
    return trajectories, ensemble
