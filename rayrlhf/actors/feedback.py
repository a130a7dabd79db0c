"""One session after another: select questions, ask, collect, log, fit, publish.

The driver's side of the roles around the reward model. Sessions run in a thread of their own, because all they do is
wait for actors and teachers; training goes on meanwhile.
"""

import threading
import time
from concurrent.futures import Future
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
from rayrlhf.rewards import FitReport, fit_together, reward_scale
from rayrlhf.teachers import Teacher, make_teacher

WAIT_POLL_SECONDS = 0.05
OPEN = "open"
"""Folder in a checkpoint: the questions that were asked and not answered."""
LEAVE_SECONDS = 5.0
"""How long `close` waits for a session; a teacher that never returns must not keep the process."""
Asked = tuple[Queries, list[Answer]]
"""Queries of one session that have been answered, and the answers."""


class FeedbackLoop:
    """Implements `algorithms.roles.Feedback` with Ray actors, a teacher and the answer log in `folder`.

    `teacher` stands in for the one that the run's options name.
    """

    def __init__(
        self, run: RunConfig, obs_dim: int, action_dim: int, folder: str, *, teacher: Teacher | None = None
    ) -> None:
        self._run = run
        self._log = PreferenceDataset(f"{folder}/preferences")
        self._teacher = make_teacher(run.teacher, run.seed) if teacher is None else teacher
        self._trajectories, self._ensemble = _start_roles(
            run, folder.rstrip("/").rsplit("/", 1)[-1], obs_dim, action_dim
        )
        self._thread: threading.Thread | None = None
        self._running: Future[SessionOutcome] | None = None
        self._weights: Ref | None = None
        self._handed_over: Ref | None = None
        self._open: dict[str, tuple[Queries, int]] = {}
        self._room = 0
        self._closing = threading.Event()
        self.labels, self.version = 0, 0

    # --- the protocol ---

    def remember(self, fragments: list[Ref]) -> None:
        """Hands fragments to the trajectory store; returns at once. Raises what an earlier hand-over met."""
        if self._handed_over is not None and ray.wait([self._handed_over], timeout=0)[0]:
            ray.get(self._handed_over)
        self._handed_over = self._trajectories("add", *fragments)

    def begin_session(self, session: int, count: int) -> None:
        """Starts a session for up to `count` labels; returns at once."""
        self.weights()  # what is published while the fit changes the members is the state before it
        self._running = Future()
        # a daemon, unlike a pool's threads: the process can end while a teacher keeps it waiting
        self._thread = threading.Thread(
            target=self._hold_into, args=(self._running, session, count), name="session", daemon=True
        )
        self._thread.start()

    def finish_session(self) -> SessionOutcome | None:
        """The running session's outcome, or none while it lasts."""
        if self._running is None or not self._running.done():
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

    def _hold_into(self, future: Future[SessionOutcome], session: int, count: int) -> None:
        try:
            future.set_result(self._hold(session, count))
        except BaseException as error:  # raised again where the outcome is asked for
            future.set_exception(error)

    def _hold(self, session: int, count: int) -> SessionOutcome:
        begin = time.perf_counter()
        asked = self._ask(session, count)
        answered = time.perf_counter()
        parts = [labels_from(queries, answers) for queries, answers in asked]
        metrics = {"query_seconds": answered - begin}
        version, new = self.version, sum(len(part) for part in parts)
        if new:
            metrics |= self._learn_from(parts)
            version += 1
        metrics["fit_seconds"] = time.perf_counter() - answered
        answers = sum(len(said) for _, said in asked)
        return SessionOutcome(session, self.labels + new, answers, self._publish(), version, metrics)

    def _ask(self, session: int, count: int) -> list[Asked]:
        """Asks the questions of `session`; returns what has been answered, late answers to earlier sessions included.

        What the log holds of this session already is not asked again.
        """
        if session in self._log.sessions():
            return [self._log.read_session(session)]
        self._room = self._run.queries.budget - self.labels
        queries = self._select(session, count)
        self._open |= {key: (queries, index) for index, key in enumerate(queries.ids)}
        self._teacher.ask(queries)
        asked = self._collect()
        while self._run.teacher.wait and not self._open.keys().isdisjoint(queries.ids):
            if self._closing.wait(WAIT_POLL_SECONDS):
                break
            asked += self._collect()
        return asked

    def _collect(self) -> list[Asked]:
        """What has been answered since the last call; it is in the log before this returns."""
        asked = self._by_session(self._teacher.collect())
        for answered, said in asked:
            self._log.append(answered, said)
        return asked

    def _by_session(self, answers: list[Answer]) -> list[Asked]:
        """Answers beside the queries they belong to.

        Dropped are answers to unknown queries, and labels beyond the budget: questions that seemed lost are asked for
        again, and may be answered after all.
        """
        found: dict[int, tuple[Queries, list[int], list[Answer]]] = {}
        for answer in answers:
            asked = self._open.pop(answer.query_id, None)
            if asked is None or (answer.choice != "skip" and self._room <= 0):
                continue
            self._room -= answer.choice != "skip"
            queries, index = asked
            _, indices, said = found.setdefault(queries.session, (queries, [], []))
            indices.append(index)
            said.append(answer)
        return [(queries.take(np.array(indices, dtype=np.int64)), said) for queries, indices, said in found.values()]

    def _select(self, session: int, count: int) -> Queries:
        # the first session is uniform: an ensemble that has seen no label has nothing to disagree about (PEBBLE)
        informed = self.labels > 0 and self._run.queries.selection != "uniform"
        pairs = self._trajectories("candidates", session, count, self._run.queries.candidates if informed else 1)
        logits = [role("pair_logits", pairs) for role in self._ensemble] if informed else []
        queries: Queries = ray.get(self._trajectories("choose", session, count, pairs, *logits))
        return queries

    def _learn_from(self, parts: list[Labels]) -> dict[str, float]:
        for labels in parts:
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
        return parts[0] if len(parts) == 1 else self._ensemble[0]("merge", *parts)

    # --- checkpoints ---

    def save(self, folder: Path) -> None:
        """Writes the roles' state and the open questions; no session may be running."""
        folder.mkdir(parents=True, exist_ok=True)
        calls = [self._trajectories("save", str(folder / "trajectories.safetensors"))]
        calls += [role("save", str(_ensemble_file(folder, i))) for i, role in enumerate(self._ensemble)]
        ray.get(calls)
        unanswered = PreferenceDataset(folder / OPEN)
        by_session: dict[int, tuple[Queries, list[int]]] = {}
        for queries, index in self._open.values():
            by_session.setdefault(queries.session, (queries, []))[1].append(index)
        for queries, indices in by_session.values():
            unanswered.append(queries.take(np.array(indices, dtype=np.int64)), [])

    def load(self, folder: Path, *, sessions: int, version: int, trajectories_only: bool = False) -> None:
        """Restores the roles; labels of the first `sessions` sessions come from the answer log."""
        cut_inside = trajectories_only or not self._run.rollout.synchronous
        ray.get(self._trajectories("load", str(folder / "trajectories.safetensors"), cut_inside))
        if trajectories_only:
            return
        answered: set[str] = set()
        for session in self._log.sessions():
            if session < sessions:
                queries, said = self._log.read_session(session)
                answered.update(answer.query_id for answer in said)
                labels = labels_from(queries, said)
                self._give(labels)
                self.labels += len(labels)
        self._ask_again(PreferenceDataset(folder / OPEN), answered)
        ray.get([role("load", str(_ensemble_file(folder, i))) for i, role in enumerate(self._ensemble)])
        self.version, self._weights = version, self._publish()

    def _ask_again(self, unanswered: PreferenceDataset, answered: set[str]) -> None:
        """Puts to the teacher what it was asked before the checkpoint and has not answered since."""
        for queries, _ in unanswered.read():
            index = [i for i, key in enumerate(queries.ids) if key not in answered]
            still_open = queries.take(np.array(index, dtype=np.int64))
            self._open |= {key: (still_open, i) for i, key in enumerate(still_open.ids)}
            self._teacher.ask(still_open)

    def close_episodes(self, environments: list[int] | None) -> None:
        """Closes the running episodes of `environments` in the trajectory store; of all where none are given."""
        self._trajectories("close_episodes", environments)

    def close(self) -> None:
        """Ends the session's thread and the actors."""
        self._closing.set()
        for host in {role.host for role in [self._trajectories, *self._ensemble]}:
            ray.kill(host)
        if self._thread is not None:
            self._thread.join(LEAVE_SECONDS)


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
