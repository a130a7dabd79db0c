"""`bench faults`: each process of a run, and what it stands on, is lost at random moments, and what came of it is told.

The run is PEBBLE on the toy, on a Ray cluster of three nodes on this machine: the driver on the head node, learner and
reward actors on a second, rollout actors on a third, as on spot machines. The renderer is killed in a run with people
on one machine, who answer by the true reward. After each loss the next is not before everything is back and a
checkpoint has been written. A row says: whether the run went on by itself, or by the one command that resumes it; the
seconds from the loss until steps are counted that were not counted before; the steps it went back by; the answered
questions that its log lacks afterwards; the driver's exit code where that ended.
"""

import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import psutil
from pydantic import Field

from rayrlhf.bench.faulty import Harmed, actors_of, kill, processes_titled, until
from rayrlhf.bench.nodes import Node, Nodes
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.bench.truth import Annotator
from rayrlhf.cluster import LEARNER_CLASS
from rayrlhf.config.options import Options
from rayrlhf.serving.address import lasting_port
from rayrlhf.tracking import RunDirectory

Fault = Literal[
    "rollout",
    "reward",
    "store",
    "learner",
    "evaluation",
    "hung",
    "slow",
    "driver",
    "worker-node",
    "head-node",
    "renderer",
]
MEANING: dict[Fault, str] = {
    "rollout": "a rollout actor is killed",
    "reward": "a reward actor is killed",
    "store": "the process with the trajectory store is killed",
    "learner": "the learner is killed",
    "evaluation": "a rollout actor is killed while it evaluates",
    "hung": "a rollout actor stands still for ever",
    "slow": "a rollout actor runs a tenth of the time",
    "driver": "the driver is killed",
    "worker-node": "a worker node is lost, and replaced",
    "head-node": "the head node is lost, and the driver with it",
    "renderer": "the renderer is killed",
}
SETTINGS = [
    "total_steps=100000000",
    "queries.budget=900000",
    "queries.per_session=10",
    "queries.interval=1000",
    "reward.epochs=10",
    "evaluation.interval=500",
    "checkpoint.interval=1000000",
    "checkpoint.seconds=5",
    "tracking.log_interval=50",
    "tracking.tensorboard=false",
]
ON_NODES = [
    "resources.learners=1",
    "resources.reward_actors=2",
    "resources.durable_on=durable",
    "resources.rollout_on=spot",
    "rollout.actors=2",
    "rollout.timeout_seconds=10",
]
WITH_PEOPLE = ["teacher=human", "queue.settle_seconds=0", "rollout.actors=1"]
SLOW_SECONDS = 10.0
MOST_REST_SECONDS = 5.0


class FaultsBench(Options):
    """Options of `bench faults`."""

    only: tuple[Fault, ...] = get_args(Fault)
    times: Count = 10
    seed: int = 0
    """Of the moments."""
    preset: str = "toy"
    overrides: tuple[str, ...] = ()
    folder: Annotated[str | None, Field(description="where the runs stay; none: they are deleted")] = None


@dataclass
class Outcome:
    """What came of one loss."""

    by_itself: bool
    seconds: float
    steps_lost: int
    answers_lost: int
    exit_code: int | None


@dataclass
class Place:
    """The run and where it is; each fault is a method of it."""

    run: Harmed
    rng: random.Random
    environment: Callable[[], dict[str, str]]
    nodes: Nodes | None = None
    workers: dict[str, Node] = field(default_factory=dict)

    # --- the faults ---

    def rollout(self) -> None:
        """Kills one of them."""
        kill(self.rng.choice(self._titled("ray::RolloutActor")))

    def reward(self) -> None:
        """Kills the process with the later members."""
        kill(self._named("reward-1"))

    def store(self) -> None:
        """Kills the process with the trajectories, and the first members."""
        kill(self._named("reward-0"))

    def learner(self) -> None:
        """Kills it."""
        kill(self._titled(f"ray::{LEARNER_CLASS}")[0])

    def evaluation(self) -> None:
        """Waits until an actor evaluates, and kills it."""
        until(lambda: bool(self._titled("ray::RolloutActor.evaluate")), "an evaluation")
        kill(self.rng.choice(self._titled("ray::RolloutActor.evaluate") or self._titled("ray::RolloutActor")))

    def hung(self) -> None:
        """Stops one for ever."""
        os.kill(self.rng.choice(self._titled("ray::RolloutActor")), signal.SIGSTOP)

    def slow(self) -> None:
        """Stops one nine tenths of the time, for a while."""
        victim = self.rng.choice(self._titled("ray::RolloutActor"))
        threading.Thread(target=_slow_down, args=(victim,), daemon=True).start()

    def driver(self) -> None:
        """Kills it; the cluster stays."""
        self.run.process.kill()
        self.run.process.wait()

    def worker_node(self) -> None:
        """Loses one of the two; another one comes in its place."""
        assert self.nodes is not None
        mark = self.rng.choice(sorted(self.workers))
        self.nodes.kill(self.workers.pop(mark))
        self.workers[mark] = self.nodes.add(2, {mark: 1})

    def head_node(self) -> None:
        """Loses it with the driver on it; what is left of the cluster is of no use and ends."""
        assert self.nodes is not None
        self.driver()
        for node in self.nodes.nodes[::-1]:
            self.nodes.kill(node)
        self.start_nodes()

    def renderer(self) -> None:
        """Kills it."""
        until(lambda: bool(self._titled("ray::RendererHost")), "a renderer")
        kill(self._titled("ray::RendererHost")[0])

    # --- what it stands on ---

    def start_nodes(self) -> None:
        """Head, a durable worker, a worker for rollout actors."""
        assert self.nodes is not None
        self.nodes.start_head(1, {"durable": 1})
        self.workers = {mark: self.nodes.add(2, {mark: 1}) for mark in ("durable", "spot")}

    def whole(self) -> bool:
        """Whether every process of the run is there."""
        if self.nodes is None:
            return len(self._titled("ray::RolloutActor")) >= 1 and len(self._titled("ray::RendererHost")) >= 1
        wanted = {"RolloutActor": 2, "RewardHost": 2, LEARNER_CLASS: 1}
        return all(len(self._titled(f"ray::{kind}")) == count for kind, count in wanted.items())

    def _titled(self, title: str) -> list[int]:
        if self.nodes is not None:
            under = [process for node in self.nodes.nodes for process in node.processes()]
        else:
            under = psutil.Process(self.run.process.pid).children(recursive=True)
        return processes_titled(title, under)

    def _named(self, role: str) -> int:
        assert self.nodes is not None
        return next(
            actor.pid for actor in actors_of(self.nodes.address, self.environment()) if actor.name.endswith(f"/{role}")
        )


def run(**given: Any) -> dict[str, Any]:
    """Loses everything in turn."""
    options = options_from(FaultsBench, given, "faults")
    report = Report("faults")
    rows = []
    with tempfile.TemporaryDirectory(prefix="rf", ignore_cleanup_errors=True) as temporary:
        folder = Path(options.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for on_nodes in (True, False):
            faults = [fault for fault in options.only if (fault != "renderer") == on_nodes]
            if not faults:
                continue
            with _place(options, folder, on_nodes) as place:
                for fault in faults:
                    found = [lose(place, fault) for _ in range(options.times)]
                    report.notes[fault] = [vars(outcome) for outcome in found]
                    rows.append(_row(fault, found))
    result = report.as_dict()
    columns = ("fault", "went on", "seconds", "steps lost", "answers lost", "exit code")
    return result | {"table": {"columns": columns, "rows": rows}}


@contextmanager
def _place(options: FaultsBench, folder: Path, on_nodes: bool) -> Iterator[Place]:
    """The running run: on three nodes, or on this machine with somebody who answers."""
    rng = random.Random(options.seed)
    name = "nodes" if on_nodes else "people"
    where = ["--name", name, "--storage_path", str(folder)]
    port = lasting_port("127.0.0.1")
    special = ON_NODES if on_nodes else [*WITH_PEOPLE, f"people.port={port}"]
    run = Harmed(RunDirectory(folder / name), [options.preset, *where, *SETTINGS, *special, *options.overrides])
    if on_nodes:
        with Nodes(folder / "ray") as nodes:
            place = Place(run, rng, nodes.environment, nodes)
            place.start_nodes()
            with _running(place):
                yield place
        return
    place = Place(run, rng, lambda: {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"})
    annotator = Annotator(run.folder, f"http://127.0.0.1:{port}")
    annotator.start()
    with _running(place):
        yield place
    annotator.enough.set()


@contextmanager
def _running(place: Place) -> Iterator[None]:
    place.run.start(place.environment())
    try:
        _settle(place)
        yield
        place.run.stop()
    finally:
        place.run.process.kill()


def lose(place: Place, fault: Fault) -> Outcome:
    """One loss, at a random moment, and what came of it."""
    run = place.run
    time.sleep(place.rng.uniform(0.0, MOST_REST_SECONDS))
    answered, resumes = run.answered(), len(run.resumes())
    lost_at = time.monotonic()
    steps = run.steps()
    getattr(place, fault.replace("-", "_"))()
    if fault == "evaluation":  # it waited for one
        lost_at, steps = time.monotonic(), run.steps()
    exit_code = None
    if not run.alive:
        exit_code = run.process.returncode
        run.start(place.environment())

    def moved() -> bool:
        nonlocal exit_code
        if not run.alive:
            exit_code = run.process.returncode
            run.start(place.environment())
        again = run.resumes()[resumes:]
        return run.steps() > (again[-1] if again else steps)

    until(moved, f"training after {MEANING[fault]}")
    seconds = time.monotonic() - lost_at
    again = run.resumes()[resumes:]
    steps_lost = max(0, steps - again[-1]) if again else 0
    _settle(place)
    return Outcome(exit_code is None, seconds, steps_lost, len(answered - run.answered()), exit_code)


def _settle(place: Place) -> None:
    """Waits until every process is there and a checkpoint has been written since."""

    def after(condition: Callable[[], bool]) -> Callable[[], bool]:
        def holds() -> bool:
            place.run.require_alive()
            return condition()

        return holds

    until(after(lambda: place.run.steps() > 0 and place.whole()), "all processes")
    before = place.run.checkpoints()
    until(after(lambda: place.run.checkpoints() > before), "a checkpoint")


def _row(fault: Fault, found: list[Outcome]) -> list[str]:
    seconds = [outcome.seconds for outcome in found]
    steps = [outcome.steps_lost for outcome in found]
    alone = sum(outcome.by_itself for outcome in found)
    codes = sorted({outcome.exit_code for outcome in found if outcome.exit_code is not None})
    how = "by itself" if alone == len(found) else "resumed by one command" if not alone else f"by itself {alone}x"
    return [
        MEANING[fault],
        f"{how} ({len(found)} of {len(found)})",
        f"{statistics.median(seconds):.1f} (most {max(seconds):.1f})",
        f"{statistics.median(steps):.0f} (most {max(steps)})",
        str(sum(outcome.answers_lost for outcome in found)),
        ", ".join(map(str, codes)) or "none: it lives",
    ]


def _slow_down(victim: int) -> None:
    end = time.monotonic() + SLOW_SECONDS
    try:
        while time.monotonic() < end:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(0.45)
            os.kill(victim, signal.SIGCONT)
            time.sleep(0.05)
    except ProcessLookupError:
        return
