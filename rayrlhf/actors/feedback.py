"""One session after another: select questions, ask, collect, log, fit, publish.

The driver's side of the roles around the reward model. Sessions run in a thread of their own, because all they do is
wait for actors and teachers; training goes on meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from rayrlhf.actors.hosts import RoleHandle
from rayrlhf.actors.people import People
from rayrlhf.actors.pictures import Pictures
from rayrlhf.actors.starting import start_roles
from rayrlhf.algorithms.checkpoint import ensemble_file, moments_file, read_ensemble, trajectories_file
from rayrlhf.algorithms.files import read_arrays, write_arrays
from rayrlhf.algorithms.roles import Ref, SessionOutcome
from rayrlhf.config import RunConfig
from rayrlhf.envs.instructions import Instructions
from rayrlhf.language.instructions import Vocabulary
from rayrlhf.language.log import InstructedLog
from rayrlhf.preferences.answers import Answer, Choice, Labels, labels_from
from rayrlhf.preferences.client import QueueAddress
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.wire import Doing
from rayrlhf.queries.selection import SCORES
from rayrlhf.rewards import FitReport, fit_together, reward_scale
from rayrlhf.rewards.stored import FEW_SHOT, RewardModel
from rayrlhf.teachers import Closes, Sees, Teacher, make_teacher

_log = logging.getLogger(__name__)

WAIT_POLL_SECONDS = 0.05
DRAWN_SESSIONS = 5
"""Newest sessions whose segments people see with the learned reward."""
COLLECT_SECONDS = 1.0
"""How often answers are fetched between two sessions."""
LEAVE_SECONDS = 5.0
"""How long `close` waits for a session; a teacher that never returns must not keep the process."""


class FeedbackLoop:
    """Implements `algorithms.roles.Feedback` with Ray actors, a teacher and the answer log in `folder`.

    Questions are in the log before they are asked, answers before they are learnt from. So a session that is held again
    after a crash asks the same questions, and whatever was said of them counts.

    Where people answer, `queue` is where they are asked. `teacher` stands in for the one that the run's options name.
    `instructions` is what observations end with, where `env.encoder` asks for it.
    """

    def __init__(
        self,
        run: RunConfig,
        obs_dim: int,
        action_dim: int,
        folder: str,
        *,
        teacher: Teacher | None = None,
        queue: QueueAddress | None = None,
        instructions: Instructions | None = None,
    ) -> None:
        self._run = run
        self._log: PreferenceDataset | InstructedLog = PreferenceDataset(f"{folder}/preferences")
        if instructions is not None and run.env.encoder is not None:
            self._log = InstructedLog(self._log, Vocabulary(instructions, run.env.encoder))
        self.logged: Callable[[], None] = lambda: None
        name = folder.rstrip("/").rsplit("/", 1)[-1]
        self._trajectories, self._ensemble = start_roles(run, name, obs_dim, action_dim, instructions)
        if run.reward.few_shot is not None:
            meta = RewardModel.load(Path(folder) / FEW_SHOT)
            meta.require_fit(run.reward, obs_dim, action_dim)
            reference = ray.put(meta.weights)
            ray.get([role("begin_from", reference) for role in self._ensemble])
        self._people: People | None = None
        self._clips: People | Pictures | None = None
        self._thread: threading.Thread | None = None
        self._running: Future[SessionOutcome] | None = None
        self._abandoned = threading.Event()
        self._fitting = threading.Lock()
        self._weights: Ref | None = None
        self._policy: Ref | None = None
        self._handed_over: list[Ref] = []
        self._open: dict[str, int] = {}
        self._newest: Queries | None = None
        self._unlearnt: dict[int, list[Answer]] = {}
        self._unlearnt_in_use = threading.Lock()
        self._behind = False
        self._teacher_in_use = threading.Lock()
        self._collected: Future[None] = Future()
        self._collected.set_result(None)
        self._collect_due = 0.0
        self._room, self._held = run.queries.budget, 0
        for queries, said in self._log.read():
            self._room -= len(labels_from(queries, said))
            self._open |= dict.fromkeys(_unanswered(queries, said).ids, queries.session)
        self.labels, self.answers, self.version = 0, 0, 0
        if run.asks_people and queue is not None:  # last: it starts a thread
            self._clips = self._people = People(run, name, queue, Path(folder))
        if teacher is None:
            teacher = make_teacher(run.teacher, run.seed) if self._people is None else self._people.teacher
        self._teacher = teacher
        if run.teacher.clips and isinstance(teacher, Sees):
            self._clips = pictures = Pictures(run, name, Path(folder))
            teacher.see(pictures)

    # --- the protocol ---

    @property
    def unlearnt(self) -> bool:
        return bool(self._unlearnt) or self._behind

    def remember(self, fragments: list[Ref]) -> None:
        """Hands fragments to the trajectory store; returns at once. Raises what an earlier hand-over met."""
        self._handed_over.append(self._trajectories("add", *fragments))
        done, self._handed_over = ray.wait(self._handed_over, num_returns=len(self._handed_over), timeout=0)
        ray.get(done)

    def begin_session(self, session: int, count: int, policy: Ref | None = None) -> None:
        """Starts a session for up to `count` labels; returns at once."""
        self._policy = policy
        self.weights()  # what is published while the fit changes the members is the state before it
        self._running, self._abandoned = Future(), threading.Event()
        # a daemon, unlike a pool's threads: the process can end while a teacher keeps it waiting
        arguments = (self._running, self._abandoned, session, count)
        self._thread = threading.Thread(target=self._hold_into, args=arguments, name="session", daemon=True)
        self._thread.start()

    def finish_session(self) -> SessionOutcome | None:
        """The running session's outcome, or none while it lasts."""
        if self._running is None or not self._running.done():
            return None
        running, self._running = self._running, None
        outcome = running.result()
        self.labels, self.answers = outcome.labels, outcome.answers
        self.version, self._weights = outcome.version, outcome.weights
        return outcome

    def abandon_session(self) -> SessionOutcome | None:
        """Waits for a fit that has begun, and for nothing else; the session's outcome where it had come to its fit.

        Otherwise the ensemble is as it was before the session, which is to be held again.
        """
        self._abandoned.set()
        with self._fitting:
            outcome = self.finish_session()
        self._running = None
        return outcome

    def collect(self) -> None:
        """Logs what the teacher has answered since the last session; the next fit learns from it.

        In a thread: a teacher that is slow to tell holds nothing up. Raises what an earlier call met.
        """
        now = time.monotonic()
        if self._running is None and self._open and now >= self._collect_due and self._collected.done():
            self._collected.result()
            self._collected, self._collect_due = Future(), now + COLLECT_SECONDS
            threading.Thread(target=self._collect_into, args=(self._collected,), name="answers", daemon=True).start()

    def tell(self, doing: Doing) -> None:
        """Says what training does, to people who wait for questions."""
        if self._people is not None:
            self._people.tell(doing)

    @property
    def open_questions(self) -> int:
        """Questions that may still be answered."""
        if self._people is None or self._newest is None:
            return len(self._open)
        oldest = self._newest.session - self._run.queue.keep_sessions + 1
        return sum(session >= oldest for session in list(self._open.values()))

    def _collect_into(self, future: Future[None]) -> None:
        try:
            self._collect()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def pretrain(self, explored: list[Ref]) -> None:
        """Lets the ensemble learn `target` `[M]` of `obs` and `action`, before the first label. Waits for it."""
        ray.get([role("pretrain", *explored) for role in self._ensemble])
        self._weights = None

    def newest_labels(self, count: int) -> Ref:
        """Reference to the last `count` labels that were learnt from."""
        return self._ensemble[0]("newest_labels", count)

    def step(self, gradients: dict[str, Any]) -> None:
        """One step of the ensemble's optimiser by `gradients`: other weights, a higher version. No session may run."""
        reference = ray.put(gradients)
        ray.get([role("step", reference) for role in self._ensemble])
        self.version, self._weights = self.version + 1, None

    def weights(self) -> Ref:
        """Reference to the ensemble's weights after the last finished session, or step."""
        if self._weights is None:
            self._weights = self._publish()
        return self._weights

    # --- a session ---

    def _hold_into(self, future: Future[SessionOutcome], abandoned: threading.Event, session: int, count: int) -> None:
        try:
            begin = time.perf_counter()
            waited = self._ask(session, count, abandoned)
            answered = time.perf_counter()
            with self._fitting:
                if not abandoned.is_set():
                    metrics = {"query_seconds": answered - begin - waited, "teacher_seconds": waited}
                    future.set_result(self._learn(session, metrics))
        except BaseException as error:  # raised again where the outcome is asked for
            future.set_exception(error)

    def _ask(self, session: int, count: int, abandoned: threading.Event) -> float:
        """Asks the questions of `session` and takes in what has been answered, to earlier ones too.

        The seconds that it took the teacher: its calls and, with `teacher.wait`, the wait for answers.
        """
        asked: tuple[str, ...] = ()
        begin = time.perf_counter()
        if count:
            with self._teacher_in_use:
                queries, said = self._questions(session, count)
                begin = time.perf_counter()
                self._put(queries, said)
            asked = queries.ids
        self._collect()
        while self._run.teacher.wait and not self._open.keys().isdisjoint(asked):
            if abandoned.wait(WAIT_POLL_SECONDS if self._people is None else COLLECT_SECONDS):
                break
            self._collect()
        return time.perf_counter() - begin

    def _questions(self, session: int, count: int) -> tuple[Queries, list[Answer]]:
        """New ones, or those that the log holds of a session that a crash or Ctrl-C cut off, with their answers."""
        said: list[Answer] = []
        if session in self._log.sessions():
            queries, said = self._log.read_session(session)
            self._keep(session, said)
        else:
            queries, pairs = self._select(session, count)
            tests = self._tests(session, count, pairs)
            if self._clips is not None:
                self._clips.keep(queries, ray.get(self._trajectories("chosen_moments")))
            if self._people is not None and tests is not None:
                self._people.test(*tests)
            self._log.append(queries, [])
            self.logged()
        self._newest, self._held = queries, session + 1
        return queries, said

    def _put(self, queries: Queries, said: list[Answer]) -> None:
        """Puts what is unanswered to the teacher. It may have been asked before: by another process, of another one."""
        unanswered = _unanswered(queries, said)
        if self._clips is not None:
            unanswered = self._shown(unanswered, self._clips)
        if len(unanswered):
            self._open |= dict.fromkeys(unanswered.ids, queries.session)
            self._teacher.ask(unanswered)

    def _shown(self, queries: Queries, clips: People | Pictures) -> Queries:
        """Those of `queries` whose clips can be drawn; the others are not asked."""
        showable = clips.showable(queries)
        if lost := set(queries.ids).difference(showable.ids):
            for key in lost:
                self._open.pop(key, None)
            _log.warning(
                "%d of %d questions of session %d are not asked: what it takes to draw them was not recorded",
                len(lost), len(queries), queries.session,
            )  # fmt: skip
        return showable

    def _keep(self, session: int, said: list[Answer]) -> None:
        """For the next fit."""
        if said:
            with self._unlearnt_in_use:
                self._unlearnt.setdefault(session, []).extend(said)

    def _collect(self) -> None:
        """Logs what has been answered since the last call.

        Dropped are answers to questions that are not open, and labels beyond the budget: questions that seemed lost
        are asked for again by others, and may be answered after all. An answer to a session that is to be held again
        is logged, and learnt from when it is held. What several people say of a question comes at once and makes one
        label.
        """
        with self._teacher_in_use:
            found: dict[int, list[Answer]] = {}
            for key, said in _by_query(self._teacher.collect()).items():
                session = self._open.pop(key, None)
                is_label = any(answer.choice != "skip" for answer in said)
                if session is None or (is_label and self._room <= 0):
                    continue
                self._room -= is_label
                found.setdefault(session, []).extend(said)
            for session, said in found.items():
                self._log.append(self._asked(session, _by_query(said)), said)
            if found:
                self.logged()
            for session, said in found.items():
                if session < self._held:
                    self._keep(session, said)

    def _asked(self, session: int, keys: Collection[str]) -> Queries:
        """The queries of `session` with these ids."""
        queries = self._newest
        if queries is None or queries.session != session:
            queries, _ = self._log.read_session(session)
        return queries.among(keys)

    def _learn(self, session: int, metrics: dict[str, float]) -> SessionOutcome:
        """Fits to all labels, those of the answers since the last fit among them."""
        begin = time.perf_counter()
        with self._unlearnt_in_use:  # what is collected from now on is for the next fit
            unlearnt, self._unlearnt = self._unlearnt, {}
        fresh = [(self._asked(number, _by_query(said)), said) for number, said in sorted(unlearnt.items())]
        parts = [labels_from(queries, said) for queries, said in fresh]
        version, new = self.version, sum(len(part) for part in parts)
        if new or self._behind:
            metrics |= self._fit_to(parts)
            version, self._behind = version + 1, False
            if self._people is not None:
                self._draw(version)
        metrics["fit_seconds"] = time.perf_counter() - begin
        answers = self.answers + sum(len(said) for _, said in fresh)
        return SessionOutcome(session, self.labels + new, answers, self._publish(), version, metrics)

    def _select(self, session: int, count: int) -> tuple[Queries, Ref]:
        """The questions, and the candidates among which they were chosen."""
        # the first session is uniform: an ensemble that has seen no label has nothing to disagree about (PEBBLE)
        informed = self.labels > 0 and self._run.queries.selection != "uniform"
        factor = self._run.queries.candidates if informed else 1
        pairs = self._trajectories("candidates", session, count, factor + (self._num_tests(count) > 0))
        method = self._run.queries.selection if informed else "uniform"
        logits = [role("pair_logits", pairs) for role in self._ensemble] if method in SCORES else []
        queries: Queries = ray.get(self._trajectories("choose", session, count, method, pairs, *logits))
        return queries, pairs

    def _num_tests(self, count: int) -> int:
        """Questions that test people, for `count` that do not."""
        every = self._run.queue.gold_every
        return -(-count // every) if self._people is not None and every else 0

    def _tests(self, session: int, count: int, pairs: Ref) -> tuple[Queries, dict[str, Choice]] | None:
        """Questions whose answer is known, since the true reward tells it."""
        wanted = self._num_tests(count)
        return ray.get(self._trajectories("tests", session, wanted, pairs)) if wanted else None

    def _fit_to(self, parts: list[Labels]) -> dict[str, float]:
        for labels in parts:
            self._give(labels)
        if self._run.reward.fits_anew:
            ray.get([role("restart") for role in self._ensemble])
        if self._policy is not None:
            ray.get([role("standardise_by", self._policy) for role in self._ensemble])
        if self._run.reward.unlabelled:
            episodes = self._trajectories("episodes")
            ray.get([role("take_unlabelled", episodes) for role in self._ensemble])
        report = self._fit()
        metrics = {"reward_epochs": float(report.epochs)}
        if self._run.reward.denoise:
            metrics["reward_labels_kept"] = float(report.kept)
        if report.pseudo is not None:
            metrics["reward_pseudo_labels"] = float(report.pseudo.mean())
        for name, by_member in (("reward_loss", report.loss), ("reward_accuracy", report.accuracy)):
            metrics[name] = float(np.mean(by_member))
            metrics |= {f"{name}_{member}": float(value) for member, value in enumerate(by_member)}
        return metrics

    def _give(self, labels: Labels) -> None:
        reference = ray.put(labels)
        ray.get([role("add_labels", reference) for role in [self._trajectories, *self._ensemble]])

    def _fit(self) -> FitReport:
        if len(self._ensemble) == 1:
            report: FitReport = ray.get(self._ensemble[0]("fit"))
            return report
        groups = [partial(_epoch_of, role) for role in self._ensemble]
        sifted = self._ensemble if self._run.reward.denoise else []
        probabilities = [partial(_probabilities_of, role) for role in sifted]
        report = fit_together(groups, None, self._run.reward, ray.get, probabilities)
        if self._run.reward.normalize_rewards:
            scale = reward_scale(ray.get([role("labelled_rewards") for role in self._ensemble]))
            ray.get([role("set_reward_scale", scale) for role in self._ensemble])
        return report

    def _draw(self, version: int) -> None:
        """Hands the learned reward along the newest answered segments to people who look at them."""
        assert self._people is not None
        for session in self._log.sessions()[-DRAWN_SESSIONS:]:
            queries, said = self._log.read_session(session)
            answered = queries.among(_by_query(said))
            left, right = (
                np.concatenate(ray.get([role("segment_rewards", side) for role in self._ensemble])).mean(0)
                for side in (answered.left, answered.right)
            )
            self._people.draw(answered, version, left, right)

    def _publish(self) -> Ref:
        parts = [role("weights") for role in self._ensemble]
        return parts[0] if len(parts) == 1 else self._ensemble[0]("merge", *parts)

    # --- checkpoints ---

    def save(self, folder: Path) -> None:
        """Writes the roles' state; no session may be running."""
        (episodes, moments), *members = ray.get([role("state") for role in (self._trajectories, *self._ensemble)])
        write_arrays(trajectories_file(folder), episodes)
        if moments is not None:
            write_arrays(moments_file(folder), moments)
        for index, state in enumerate(members):
            write_arrays(ensemble_file(folder, index), state)

    def load(self, folder: Path, *, sessions: int, labels: int, version: int, trajectories_only: bool = False) -> None:
        """Restores the roles. The log may hold more labels of the first `sessions` than the `labels` fitted."""
        cut_inside = trajectories_only or not self._run.rollout.synchronous
        moments = moments_file(folder)
        shown = read_arrays(moments) if self._run.shows_clips and moments.is_file() else None
        ray.get(self._trajectories("load", read_arrays(trajectories_file(folder)), shown, cut_inside))
        if trajectories_only:
            return
        self._held = sessions
        for session in self._log.sessions():
            if session < sessions:
                queries, said = self._log.read_session(session)
                found = labels_from(queries, said)
                self._give(found)
                self.labels += len(found)
                self.answers += len(said)
                self._put(queries, said)
        self._behind = self.labels > labels
        whole = ray.put(read_ensemble(folder))
        ray.get([role("load", whole) for role in self._ensemble])
        self.version, self._weights = version, self._publish()

    def close_episodes(self, environments: list[int] | None) -> None:
        """Closes the running episodes of `environments` in the trajectory store; of all where none are given."""
        self._trajectories("close_episodes", environments)

    def close(self) -> None:
        """Ends the session's thread, the teacher and the actors."""
        self._abandoned.set()
        if isinstance(self._teacher, Closes):
            self._teacher.close()
        if self._clips is not None:
            self._clips.close()
        for host in {role.host for role in [self._trajectories, *self._ensemble]}:
            ray.kill(host)
        if self._thread is not None:
            self._thread.join(LEAVE_SECONDS)


def _unanswered(queries: Queries, said: list[Answer]) -> Queries:
    return queries.among(set(queries.ids).difference(answer.query_id for answer in said))


def _by_query(answers: list[Answer]) -> dict[str, list[Answer]]:
    """What was said, by query, in the order it came."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.query_id, []).append(answer)
    return found


def _epoch_of(role: RoleHandle, _: None, *probability: Any) -> Ref:
    return role("fit_epoch", *probability)


def _probabilities_of(role: RoleHandle, _: None) -> Ref:
    return role("probabilities")
