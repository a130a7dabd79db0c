"""A run from its config to its summary: what `rayrlhf train` does."""

import gc
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError

from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.actors.fixed_reward import FixedReward
from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import Damaged
from rayrlhf.algorithms.loop import Interrupted, PreferenceAlgorithm
from rayrlhf.algorithms.make import algorithm_config
from rayrlhf.algorithms.roles import FeedbackFactory
from rayrlhf.cluster import (
    name_of_lost,
    note_cluster,
    ray_session,
    require_cluster,
    require_head,
    require_room,
    told_while_waiting,
)
from rayrlhf.config import RunConfig
from rayrlhf.envs import check_env
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.interface import EnvSpec
from rayrlhf.errors import HeldUpError, UserError, in_one_line
from rayrlhf.language.instructions import instructions_of, read_instructions, write_instructions
from rayrlhf.logs import event
from rayrlhf.placement import placement_of
from rayrlhf.preferences.client import QueueAddress
from rayrlhf.preferences.wire import Doing
from rayrlhf.queries.schedules import session_sizes
from rayrlhf.remote import InPlace, open_run
from rayrlhf.rewards.networks import make_network
from rayrlhf.rewards.rates import rates_in
from rayrlhf.rewards.stored import FEW_SHOT, RewardModel
from rayrlhf.teachers.make import check_teacher
from rayrlhf.tracking import Progress, RunDirectory, Tracker, native_stderr_to, seconds_since_start, told
from rayrlhf.tracking.ray_metrics import RunMeters
from rayrlhf.trained import reward_model_at

_log = logging.getLogger(__name__)

RESTARTS = 3
"""Losses of a learner or a reward actor that a run survives without having come to a new checkpoint."""
ROOM_SECONDS = 300.0
"""How long a run that lost a process waits for a place for another one, at least."""
PHASES = {"random": "random", "explore": "exploring", "learn": "learning"}


OpenQueue = Callable[[RunConfig, RunDirectory], AbstractContextManager[QueueAddress]]
"""Starts the queue in which a run's people answer, or finds it, for the time of the run."""


Listener = Callable[[dict[str, float]], None]
"""Is told each evaluation but the final one, once there is a checkpoint of the same moment."""


def train(
    config: RunConfig,
    *,
    resume: Path | str | None = None,
    progress: bool = True,
    people: OpenQueue | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Trains as `config` says, or goes on with the run in the folder or at the URL `resume`; returns the summary.

    Ctrl-C ends training between two rounds, leaves a checkpoint and raises KeyboardInterrupt. `people` is for the
    teacher `human`. What `listener` raises ends training at once.
    """
    begin = seconds_since_start() if listener is not None else 0.0  # a trial's process waited for it
    spec = check(config, resumed=resume is not None)
    if config.asks_people and people is None:
        raise UserError("the teacher human wants a queue: use `rayrlhf train`, or give `people`")
    require_cluster()
    if not (os.environ.get("RAY_ADDRESS") or ray.is_initialized()):
        _require_gpus(config, torch.cuda.device_count())
    run = open_run(config, resume)
    config, folder = run.config, run.folder
    checkpoint.refuse_changes(folder.checkpoints, config)
    say = _writer(config, progress)
    if spec.caveat:
        say(spec.caveat)
    begun = not run.is_new
    story = told(folder, config, resumed=resume is not None)
    with folder.held():
        try:
            quiet = native_stderr_to(folder.path / "ray.log")
            with run.mirrored(say) as mirror, quiet, story, ray_session(_cpus(config)):
                note_cluster()
                there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
                if not config.resources.wait_minutes:  # else nodes that have some may come
                    _require_gpus(config, there.get("GPU", 0))
                _require_room(config, say)
                _keep_reward_model(config, folder)
                with _asking(config, folder, people) as queue:
                    begun = True
                    mirror.begin()
                    return _to_the_end(config, folder, resume is not None, progress, queue, mirror, listener, begin)
        except UserError:
            if not begun:
                folder.discard()
            raise


def _keep_reward_model(config: RunConfig, folder: RunDirectory) -> None:
    """Copies what the reward model is, or begins from, into the run's folder: the run never looks elsewhere again."""
    if config.reward.from_ is not None and not folder.reward_model_file.is_file():
        reward_model_at(Path(config.reward.from_)).save(folder.reward_model_file)
    if config.reward.few_shot is not None and not (folder.path / FEW_SHOT).is_file():
        _meta_weights(config.reward.few_shot).save(folder.path / FEW_SHOT)


def _require_same_words(model: RewardModel, config: RunConfig) -> None:
    """Refuses a model that is told in other numbers what to do than the run's observations tell it."""
    env, fitted = config.env, model.facts.get("encoder")
    width = model.facts.get("instruction_width", env.instruction_width)
    if (fitted, width) != (env.encoder, env.instruction_width):
        said = (
            "without instructions" if fitted is None else f"with --env.encoder {fitted} --env.instruction_width {width}"
        )
        raise UserError(
            f"{config.reward.from_} was fitted {said}, and the run has env.encoder={env.encoder}: they must agree"
        )


def _meta_weights(where: str) -> RewardModel:
    found = reward_model_at(Path(where))
    if not rates_in(found.weights):
        raise UserError(f"{where} has no learnt rates: reward.few_shot wants what `rayrlhf pretrain` wrote")
    return found


@contextmanager
def _asking(config: RunConfig, folder: RunDirectory, people: OpenQueue | None) -> Iterator[QueueAddress | None]:
    """The queue where people answer; none where nobody is asked."""
    if people is None or not config.asks_people:
        yield None
        return
    with people(config, folder) as queue:
        yield queue


def _to_the_end(
    config: RunConfig,
    folder: RunDirectory,
    resume: bool,
    progress: bool,
    queue: QueueAddress | None,
    mirror: InPlace,
    listener: Listener | None,
    begin: float,
) -> dict[str, Any]:
    """The summary. Where a process is lost that Ray does not bring back, all are built anew from the checkpoint.

    begin: seconds of this process that are not the run's
    """
    say = _writer(config, progress)
    earlier: float | None = None
    losses, begun_at = 0, -1
    while True:
        if losses:
            require_room(placement_of(config), max(ROOM_SECONDS, 60 * config.resources.wait_minutes), say)
        with ExitStack() as built:
            try:  # what dies while roles are started is lost, too
                with told_while_waiting(say):
                    algorithm = built.enter_context(_algorithm(config, folder, queue, mirror))
                done = _restore(algorithm, config, folder, say) if resume else _start(algorithm, config)
                mirror.publish()
                earlier = algorithm.progress.wall_seconds - begin if earlier is None else earlier
                losses, begun_at = losses if done == begun_at else 0, done
                line = Progress(config.total_steps, _budget(config), start=done, enabled=progress)
                with Tracker(folder, config.tracking, resume_from=done or None) as tracker:
                    return _Run(algorithm, config, folder, tracker, line, earlier, mirror, listener).to_the_end()
            except (RayActorError, ObjectLostError) as lost:
                losses += 1
                _log.info("%s", in_one_line(lost), extra=event("lost", who=name_of_lost(lost), error=str(lost)))
                if losses > RESTARTS:
                    raise
                require_head(mirror.where, say)
                say(
                    f"a process of the run died ({type(lost).__name__}, see ray.log); going on from its last checkpoint"
                )
        resume = True


def check(config: RunConfig, *, resumed: bool = False) -> EnvSpec:
    """Refuses a run that could not be trained, or not to its end, before anything is made; the environment's spec."""
    spec = _check_parts(config, resumed)
    explored = 0 if resumed else _check_exploration(config)
    if not resumed:
        instructions_of(config.env)  # where the model is not here, the folder is not made
    if config.asks:
        check_budget(config, explored)
        if not resumed:  # else that session was held, or is held again with the questions it had
            check_first_session(config, spec.horizon, explored)
    return spec


def check_budget(config: RunConfig, explored: int = 0) -> None:
    """Refuses a budget that the run is too short to spend; `explored` steps of another run stand at its beginning."""
    queries, room = config.queries, config.total_steps - max(config.exploration_steps, explored)
    needed = len(session_sizes(queries.budget, queries.per_session, queries.schedule))
    interval = max(queries.interval, config.rollout.round_steps)  # one session a round
    possible = 1 + (room - 1) // interval
    if needed > possible:
        raise UserError(
            f"queries.budget={queries.budget} takes {needed} sessions of {queries.per_session}, but total_steps="
            f"{config.total_steps} leaves room for {possible}, one in {interval} steps: raise queries.per_session or "
            "lower queries.interval and the steps of a round (rollout.fragment_length in each environment)"
        )


def check_first_session(config: RunConfig, horizon: int, explored: int = 0) -> None:
    """Refuses a first session, the largest that is planned, of more questions than can be made by then.

    `horizon` is an episode's; `explored` steps of another run stand at the beginning. How much less than the most
    there will be where episodes end early, nobody knows before.
    """
    queries = config.queries
    count = session_sizes(queries.budget, queries.per_session, queries.schedule)[0]
    begin, one_round = max(config.exploration_steps, explored), config.rollout.round_steps
    if config.algorithm == "prefppo":  # between two iterations
        begin += -(begin - explored) % one_round
    else:  # it waits until all learners have rows
        begin += (1 + max(1, config.resources.learners)) * one_round
    episodes = queries.recent_episodes + config.rollout.envs
    stored = min(begin, episodes * horizon)
    # an episode of n steps holds n - segment_length + 1: of no length a larger share of n than of a whole episode
    per_episode = horizon - queries.segment_length + 1
    segments = min(stored * per_episode // horizon, episodes * per_episode)
    if count > segments * (segments - 1) // 2:
        raise UserError(
            f"the first session asks {count} questions, but no more than {segments} segments of "
            f"{queries.segment_length} steps can have been stored by then: lower queries.per_session or "
            "queries.segment_length, or raise explore.unsupervised_steps or queries.recent_episodes"
        )


def _check_parts(config: RunConfig, resumed: bool) -> EnvSpec:
    """Refuses an environment, a teacher or a reward model that cannot be, before anything is made."""
    spec = check_env(config.env)
    if config.reward.from_ is not None and not resumed:  # else the run has its own copy
        model = reward_model_at(Path(config.reward.from_))
        if rates_in(model.weights):
            raise UserError(
                f"{config.reward.from_} holds few-shot weights, which no label has taught anything: use reward.few_shot"
            )
        _require_same_words(model, config)
        model.require_fit(config.reward, spec.obs_dim, spec.action_dim)
    if config.reward.few_shot is not None and not resumed:
        _meta_weights(config.reward.few_shot).require_fit(config.reward, spec.obs_dim, spec.action_dim)
    if config.asks:
        if config.resources.reward_actors > config.reward.members:
            raise UserError(
                f"resources.reward_actors ({config.resources.reward_actors}) is above reward.members "
                f"({config.reward.members}): a process would have nothing to compute"
            )
        check_teacher(config.teacher)
        if config.shows_clips:
            _check_clips(config, spec)
        make_network(config.reward, spec.obs_dim, spec.action_dim)
        if config.queries.segment_length > spec.horizon:  # where env.horizon leaves it to the environment
            raise UserError(
                f"queries.segment_length ({config.queries.segment_length}) is longer than an episode of "
                f"{spec.name} ({spec.horizon} steps): no segment would fit"
            )
    return spec


def _check_clips(config: RunConfig, spec: EnvSpec) -> None:
    """Refuses people, or a teacher of the user's own, who would see nothing."""
    who = "people" if config.asks_people else "the teacher"
    if not spec.recalls:
        raise UserError(
            f"{spec.name} (backend {config.env.backend}) cannot show recorded moments, and {who} would see nothing: "
            "use env.backend python and a suite that can, or a scripted teacher"
        )
    problem = rendering_problem() if config.env.suite != "toy" else None
    if problem is not None:
        raise UserError(f"{who} would see nothing: {problem}")


def _budget(config: RunConfig) -> int:
    return config.queries.budget if config.asks else 0


def _require_gpus(config: RunConfig, there: float) -> None:
    """Refuses more GPUs than there are: Ray would wait for them without a word."""
    wanted = placement_of(config).gpus()
    if wanted > there:
        raise UserError(
            f"the run wants {wanted:g} GPUs, and there are {there:g}: lower resources.gpus_per_learner (of each "
            "learner) or resources.reward_gpus (of each reward actor); 0 computes on the CPU"
        )


def _writer(config: RunConfig, progress: bool) -> Callable[[str], None]:
    """Writes lines where the progress line is drawn: on what standard error is by the time of the line."""

    def write(text: str) -> None:
        Progress(config.total_steps, _budget(config), enabled=progress).write(text)

    return write


def _require_room(config: RunConfig, say: Callable[[str], None]) -> None:
    """Refuses what the cluster cannot hold; on one that others share, the plan is printed first."""
    placement = placement_of(config)
    if os.environ.get("RAY_ADDRESS"):
        for row in ("the run's processes:", *placement.lines()):
            say(row)
    require_room(placement, 60 * config.resources.wait_minutes, say)


def _cpus(config: RunConfig) -> int:
    """CPUs to tell a Ray of our own of: what the machine has, and no less than the roles declare."""
    queue = config.resources.renderer_cpus if config.asks_people else 0.0  # as much as for the renderer
    return max(os.cpu_count() or 1, math.ceil(placement_of(config).cpus() + queue))


@contextmanager
def _algorithm(
    config: RunConfig, folder: RunDirectory, queue: QueueAddress | None = None, mirror: InPlace | None = None
) -> Iterator[PreferenceAlgorithm]:
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    said = _instructions(config, folder)
    given = {"queue": queue, "instructions": said}  # what is there alone: others may stand in for the loop
    feedback: FeedbackFactory = partial(FeedbackLoop, **{name: value for name, value in given.items() if value})  # type: ignore[arg-type]
    if config.reward.from_ is not None:
        feedback = FixedReward
    where = str(folder.path.absolute())
    options = algorithm_config(config).of(config, feedback=feedback, folder=where, instructions=said)
    try:
        algorithm: PreferenceAlgorithm = options.build_algo()
    except Exception:
        gc.collect()  # ends the processes of what was built by half: Ray ends those that nobody knows any more
        raise
    with suppress(OSError):
        Path(algorithm.logdir).rmdir()  # an empty folder that Tune's base class makes in the home directory
    if mirror is not None and algorithm.feedback is not None:
        algorithm.feedback.logged = mirror.logged
    try:
        yield algorithm
    finally:
        algorithm.stop()


def _instructions(config: RunConfig, folder: RunDirectory) -> Instructions | None:
    """What observations end with: as the run's folder has it, else by the encoder."""
    said = read_instructions(folder.instructions_file)
    if said is None and (said := instructions_of(config.env)) is not None:
        write_instructions(folder.instructions_file, said)
    return said


def _check_exploration(config: RunConfig) -> int:
    """Refuses folders of an exploration that cannot be read or written, before anything is made or done.

    Returns the steps of the exploration that the run starts from; 0 where it makes its own.
    """
    if config.explore.save is not None:
        checkpoint.require_replaceable(Path(config.explore.save))
    if config.explore.from_ is not None:
        return checkpoint.explored_steps(Path(config.explore.from_), config)
    return 0


def _start(algorithm: PreferenceAlgorithm, config: RunConfig) -> int:
    if config.explore.from_ is not None:
        algorithm.load_checkpoint(config.explore.from_, exploration_only=True)
    return algorithm.progress.env_steps


def _restore(
    algorithm: PreferenceAlgorithm, config: RunConfig, folder: RunDirectory, line: Callable[[str], None]
) -> int:
    """Goes back to the newest checkpoint that is whole; a run killed before its first one starts again.

    UserError where there are checkpoints and none is whole: they are left as they are.
    """
    chosen, manifest = None, None
    checkpoint.put_all_back(folder.checkpoints)
    candidates = checkpoint.by_age(folder.checkpoints)
    for candidate in candidates:
        try:
            manifest = checkpoint.verify(candidate, config)
        except Damaged as damaged:
            if candidate is candidates[-1]:
                raise UserError(f"{damaged}, and no earlier checkpoint is whole: start another run") from damaged
            line(f"{damaged}; going back to the checkpoint before it")
            _log.info("%s; going back to the checkpoint before it", damaged, extra=event("damaged"))
        else:
            chosen = candidate
            break
    checkpoint.forget_after(folder.checkpoints, chosen)
    if chosen is None:
        _start(algorithm, config)
    else:
        algorithm.load_checkpoint(str(chosen), manifest=manifest)
    where = "from the beginning: there is no checkpoint" if chosen is None else f"from {chosen.name}"
    _log.info("going on %s", where, extra=event("restored", env_steps=algorithm.progress.env_steps))
    folder.note_resume(algorithm.progress.env_steps)
    folder.note_config(config, algorithm.progress.env_steps)
    return algorithm.progress.env_steps


class _Run:
    """The loop around `PreferenceAlgorithm.train`: metrics, evaluation, checkpoints, and the end."""

    def __init__(
        self,
        algorithm: PreferenceAlgorithm,
        config: RunConfig,
        folder: RunDirectory,
        tracker: Tracker,
        line: Progress,
        earlier_seconds: float,
        mirror: InPlace,
        listener: Listener | None = None,
    ) -> None:
        """earlier_seconds: what the run took before this process began."""
        self.algorithm, self.config, self.folder, self.mirror = algorithm, config, folder, mirror
        self.tracker, self.line = tracker, line
        self._earlier_seconds = earlier_seconds
        self._checkpoint_due = _next(algorithm.progress.env_steps, config.checkpoint.interval)
        self._checkpoint_late = self._next_late_checkpoint()
        self._evaluation_due = _next(algorithm.progress.env_steps, config.evaluation.interval)
        self._row_due = _next(algorithm.progress.env_steps, config.tracking.log_interval)
        self._saved_at: int | None = None
        self._listener = listener
        self._untold: dict[str, float] | None = None
        self._phase: str | None = None
        self._meters = RunMeters(folder)

    @property
    def env_steps(self) -> int:
        return self.algorithm.progress.env_steps

    @property
    def _go_on(self) -> str:
        return f"go on with: rayrlhf train --resume {self.mirror.where}"

    def to_the_end(self) -> dict[str, Any]:
        """Trains, evaluates, saves, sums up."""
        try:
            with _interrupts(self.algorithm):
                while self.env_steps < self.config.total_steps:
                    self._round()
                if self._saved_at != self.env_steps:  # first: the final evaluation may be interrupted too
                    self._save()
                self._tell_of_sessions_left()
                summary = self._summary()
        except Interrupted:
            self._save()
            raise KeyboardInterrupt(f"stopped; {self._go_on}") from None
        except HeldUpError as failed:  # where `Interrupted` may come, too
            self.algorithm.interrupted.set()
            self._save()
            raise UserError(f"{failed} (--debug shows where); once that is mended, {self._go_on}") from failed
        finally:
            self.line.close()
        self.folder.write_summary(summary)
        return summary

    def _tell_of_sessions_left(self) -> None:
        """The steps are over; the labels may not be."""
        left = self.algorithm.plan.sessions_left(self.algorithm.progress)
        if left:
            self.line.write(
                f"{self.algorithm.progress.labels} of {self.config.queries.budget} labels: training was over before "
                f"{left} sessions could be held, since sessions took longer than queries.interval steps; a longer run "
                f"holds them: rayrlhf train --resume {self.folder.path} --total_steps MORE"
            )

    def _round(self) -> None:
        self.mirror.require_own()
        row: dict[str, float] = self.algorithm.train()["rayrlhf"]
        due = self.env_steps >= self._row_due
        if self.env_steps >= self._evaluation_due:
            row |= self._evaluate(self.config.evaluation.episodes, "evaluation")[0]
            self._evaluation_due = _next(self.env_steps, self.config.evaluation.interval)
            due = True
            if self._listener is not None and self.env_steps < self.config.total_steps:
                self._untold, self._checkpoint_due = row, self.env_steps
        if due:
            self._log(row)
            self._row_due = _next(self.env_steps, self.config.tracking.log_interval)
        phase = PHASES[self.algorithm.plan.phase(self.algorithm.progress)]
        if phase != self._phase:
            _log.info("%s from step %d on", phase, self.env_steps, extra=self._event("phase", phase=phase))
            self._phase = phase
        self._tell(phase)
        waiting = self.algorithm.feedback.open_questions if self.algorithm.feedback and self.config.asks_people else 0
        labels, success = self.algorithm.progress.labels, row.get("success_rate")
        self.line.update(self.env_steps, phase, labels=labels, success=success, open_questions=waiting)
        if time.monotonic() >= self._checkpoint_late:
            self._checkpoint_due = min(self._checkpoint_due, self.env_steps)
        if self.env_steps >= self._checkpoint_due and self._may_checkpoint():
            self._save()
            self._checkpoint_due = _next(self.env_steps, self.config.checkpoint.interval)
            if self._listener is not None and self._untold is not None:
                untold, self._untold = self._untold, None
                self._listener(untold)

    def _tell(self, phase: str) -> None:
        """People who wait for questions want to know how long."""
        algorithm, progress = self.algorithm, self.algorithm.progress
        if algorithm.feedback is not None and self.config.asks_people:
            due = algorithm.plan.next_questions_at(progress)
            algorithm.feedback.tell(
                Doing(
                    phase=phase,
                    env_steps=self.env_steps,
                    total_steps=self.config.total_steps,
                    labels=progress.labels,
                    budget=self.config.queries.budget,
                    next_questions_at=due,
                )
            )

    def _next_late_checkpoint(self) -> float:
        return time.monotonic() + (self.config.checkpoint.seconds or math.inf)

    def _may_checkpoint(self) -> bool:
        """Whether a synchronous run stands at a common reset; where none comes within a horizon, one is made."""
        if self.algorithm.can_checkpoint():
            return True
        if self.env_steps - self._checkpoint_due > self.config.rollout.envs * (self.config.env.horizon or 1000):
            self.algorithm.cut()
            return True
        return False

    def _evaluate(self, episodes: int, stream: str) -> tuple[dict[str, float], dict[str, float]]:
        """A row of numbers, and each task's success rate."""
        _log.info("%s begins", stream, extra=self._event("evaluating", episodes=episodes))
        result = self.algorithm.evaluate(episodes, stream=stream)
        row = result.row(self.config.seed)
        success, reward = row.get("success_rate"), row["true_return_mean"]
        words = f"true return {reward:,.1f}" + ("" if success is None else f", success {success:.0%}")
        facts = {"episodes": episodes, "success_rate": success, "true_return_mean": reward}
        _log.info("%s: %s", stream, words, extra=self._event("evaluation", **facts))
        return row, result.by_task(self.config.env.tasks)

    def _event(self, kind: str, **facts: Any) -> dict[str, Any]:
        return event(kind, env_steps=self.env_steps, **facts)

    def _log(self, row: dict[str, float]) -> None:
        self._touch_clock()
        row["wall_seconds"] = self.algorithm.progress.wall_seconds
        self.tracker.log(self.env_steps, {name: value for name, value in row.items() if name != "env_steps"})
        self._meters.show(row)

    def _touch_clock(self) -> None:
        self.algorithm.progress.wall_seconds = self._earlier_seconds + seconds_since_start()

    def _save(self) -> None:
        self._touch_clock()
        if not self.algorithm.can_checkpoint():
            self.algorithm.cut()
        place = checkpoint.folder_for(self.folder.checkpoints, self.env_steps)
        self.mirror.await_upload()
        self.algorithm.save_checkpoint(str(place), shared_rows=True)
        self._saved_at, self._checkpoint_late = self.env_steps, self._next_late_checkpoint()
        _log.info("checkpoint %s", place.name, extra=self._event("checkpoint", checkpoint=place.name))
        checkpoint.prune(self.folder.checkpoints, self.config.checkpoint.keep)
        self.mirror.publish()

    def _summary(self) -> dict[str, Any]:
        config = self.config
        final, by_task = self._evaluate(config.evaluation.final_episodes, "final")
        self._log(self.algorithm.row() | final)
        progress = self.algorithm.progress
        return {
            "name": self.folder.name,
            "task": config.env.task,
            "suite": config.env.suite,
            "algorithm": config.algorithm,
            "mode": config.mode,
            "teacher": None if config.reward.from_ else config.teacher.name,
            "reward_model": config.reward.from_,
            "seed": config.seed,
            "labels": progress.labels,
            "budget": _budget(config),
            "answers": progress.answers,
            "env_steps": progress.env_steps,
            "updates": progress.updates,
            "updates_per_step": self.algorithm.row()["updates_per_step"],
            "max_staleness": progress.max_staleness,
            "wall_seconds": progress.wall_seconds,
            "device": self.algorithm.device,
            "eval_episodes": config.evaluation.final_episodes,
            "reward_model_accuracy": None,
            **final,
            **({"tasks": by_task} if len(config.env.tasks) > 1 else {}),
        }


def _next(env_steps: int, interval: int) -> int:
    """The next multiple of `interval`."""
    return (env_steps // interval + 1) * interval


@contextmanager
def _interrupts(algorithm: PreferenceAlgorithm) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks training to stop at the next round, the second stops at once.

    SIGTERM is how `kill`, batch systems, Kubernetes and `ray job stop` end a run. Ray handles it in its own way from
    `ray.init` on, so this comes after.
    """
    if threading.current_thread() is not threading.main_thread():  # under Tune, which ends its trials itself
        yield
        return
    asking = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in asking}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        algorithm.interrupted.set()
        give_back()

    for number in asking:
        signal.signal(number, ask)
    try:
        yield
    finally:
        give_back()
