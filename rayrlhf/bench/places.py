"""A run as a driver on a Ray cluster of this machine, and every way to lose a part of it, or of what it stands on."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from rayrlhf.bench.bucket import KEYS, Storage
from rayrlhf.bench.bucket import running as bucket
from rayrlhf.bench.faulty import POLL_SECONDS, Harmed, actors_of, kill, processes_titled, until
from rayrlhf.bench.nodes import Node, Nodes
from rayrlhf.bench.truth import Annotator
from rayrlhf.cluster import LEARNER_CLASS
from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.store import Database
from rayrlhf.preferences.store.tables import answers, leases
from rayrlhf.serving.address import lasting_port
from rayrlhf.tracking import RunDirectory

HOST = "127.0.0.1"
TITLES = {
    "rollout": "ray::RolloutActor",
    "reward": "ray::RewardHost",
    "learner": f"ray::{LEARNER_CLASS}",
    "renderer": "ray::RendererHost",
    "queue": "ray::ServeReplica",
}
"""How the titles of the processes of a role begin."""
ENDLESS = [
    "total_steps=100000000",
    "queries.budget=900000",
    "queries.per_session=10",
    "queries.interval=1000",
    "reward.epochs=10",
    "evaluation.interval=500",
    "checkpoint.interval=1000000",
    "tracking.log_interval=50",
    "tracking.tensorboard=false",
]
APART = [
    "resources.learners=1",
    "resources.reward_actors=2",
    "rollout.actors=2",
    "rollout.timeout_seconds=10",
]
"""Every role has a process of its own, rollouts and the members of the ensemble two."""
WITH_PEOPLE = ["teacher=human", "queue.settle_seconds=0"]
MOMENT_SECONDS = 0.002
SLOW_SECONDS = AWAY_SECONDS = 10.0
LOG_SECONDS = 60.0
"""After so long what was acknowledged and is not in the log counts as lost."""


@dataclass
class Place:
    """The run, its cluster and what is wanted of it; each way to lose something is a method.

    wanted: by role, how many processes the run has when it is whole
    apart: whether rollout actors have a worker node of their own, and what must last another one
    bucket: where the run is copied to
    annotator: who answers
    workers: by what it is for, each worker node
    lost_at: when something was lost last
    """

    run: Harmed
    nodes: Nodes
    wanted: Mapping[str, int]
    rng: random.Random
    apart: bool = False
    bucket: Storage | None = None
    annotator: Annotator | None = None
    lost_at: float = 0.0
    workers: dict[str, Node] = field(default_factory=dict)

    def start(self) -> None:
        """The run, or the one command that goes on with it."""
        self.run.start(self.nodes.environment())

    def start_nodes(self) -> None:
        """The head node, and the workers if there are any."""
        if not self.apart:
            self.nodes.start_head(8)
            return
        self.nodes.start_head(1, {"durable": 1})
        self.workers = {mark: self.nodes.add(2, {mark: 1}) for mark in ("durable", "spot")}

    def whole(self) -> bool:
        """Whether every process of the run is there."""
        return all(len(self.pids(role)) >= count for role, count in self.wanted.items())

    def pids(self, role: str) -> list[int]:
        """Processes of a role of `TITLES`."""
        under = [process for node in self.nodes.nodes for process in node.processes()]
        return processes_titled(TITLES[role], under)

    def answered(self) -> set[str]:
        """Ids of the questions whose answers are logged, where the log is kept."""
        if self.bucket is None:
            return self.run.answered()
        with _keys():
            log = PreferenceDataset(self.bucket.url(f"runs/{self.run.folder.name}/preferences"))
            return {answer.query_id for _, said in log.read() for answer in said}

    def acknowledged(self) -> set[str]:
        """Ids of the questions whose answers somebody was told are kept: by the queue, or they are logged.

        UserError where the queue was told of an answer and its store has none.
        """
        if self.annotator is None:
            return self.answered()
        with Database(str(self.run.folder.queue_file)).reading() as store:
            told = list(self.annotator.acknowledged)
            asked = select(answers.c.id, leases.c.query).join(leases, answers.c.lease == leases.c.id)
            stored = {answer: query for answer, query in store.execute(asked)}
        if gone := set(told) - stored.keys():
            raise UserError(f"the store lacks {len(gone)} answers that it acknowledged")
        return {stored[answer] for answer in told}

    # --- what can be lost; where the harm lasts, a thread that ends with it ---

    def lose_rollout(self) -> None:
        """Kills one of them."""
        kill(self.rng.choice(self.pids("rollout")))

    def lose_reward(self) -> None:
        """Kills the process with the later members."""
        kill(self._named("reward-1"))

    def lose_store(self) -> None:
        """Kills the process with the trajectories, and the first members."""
        kill(self._named("reward-0"))

    def lose_learner(self) -> None:
        """Kills it."""
        kill(self.pids("learner")[0])

    def lose_renderer(self) -> None:
        """Kills it."""
        kill(self.pids("renderer")[0])

    def lose_evaluation(self) -> None:
        """Waits until an evaluation begins, and kills a rollout actor at once."""
        told = self.run.folder.events_file
        before = told.stat().st_size

        def begins() -> bool:
            with told.open("rb") as file:
                file.seek(before)
                return b'"event": "evaluating"' in file.read()

        until(begins, "an evaluation", self.run.require_alive, every=MOMENT_SECONDS)
        self.lost_at = time.monotonic()
        kill(self.rng.choice(self.pids("rollout")))

    def lose_driver(self) -> None:
        """Kills it; the cluster stays."""
        self.run.process.kill()
        self.run.process.wait()

    def lose_worker_node(self) -> None:
        """Loses one of the two; another one comes in its place."""
        mark = self.rng.choice(sorted(self.workers))
        self.nodes.kill(self.workers[mark])
        self.workers[mark] = self.nodes.add(2, {mark: 1})

    def lose_head_node(self) -> None:
        """Loses it with the driver on it; what is left of the cluster is of no use and ends."""
        self.lose_driver()
        self._other_nodes()

    def lose_head(self) -> None:
        """Loses the head node's Ray, not the driver, which ends by itself; the rest of the cluster ends then."""
        self.nodes.kill(self.nodes.nodes[0])
        until(lambda: not self.run.alive, "the end of a driver without a head node")
        self._other_nodes()

    def _other_nodes(self) -> None:
        for node in self.nodes.nodes[::-1]:
            self.nodes.kill(node)
        self.start_nodes()

    def hang(self) -> None:
        """Stops a rollout actor for ever, as an environment that does not return."""
        os.kill(self.rng.choice(self.pids("rollout")), signal.SIGSTOP)

    def slow(self) -> threading.Thread:
        """Stops all processes of the node with the rollout actors nine tenths of the time, for a while."""
        victims = [process.pid for process in self.workers["spot"].processes()]
        harm = threading.Thread(target=_slow_down, args=(victims,), daemon=True)
        harm.start()
        return harm

    def away(self) -> threading.Thread:
        """Cuts the line to the storage, for a while."""
        assert self.bucket is not None
        self.bucket.line.cut()
        harm = threading.Timer(AWAY_SECONDS, self.bucket.line.mend)
        harm.start()
        return harm

    def _named(self, role: str) -> int:
        actors = actors_of(self.nodes.address, self.nodes.environment())
        found = [actor.pid for actor in actors if actor.name.endswith(f"/{role}")]
        if not found:
            raise UserError(f"the cluster has no {role}")
        return found[0]


@contextmanager
def on_nodes(folder: Path, words: Sequence[str], rng: random.Random) -> Iterator[Place]:
    """On three nodes: the driver on the head node, rollout actors on one as spot machines are, the rest on another."""
    marked = ["resources.durable_on=durable", "resources.rollout_on=spot"]
    wanted = {"rollout": 2, "reward": 2, "learner": 1}
    run = _harmed(folder, "nodes", [*words, *APART, *marked])
    with Nodes(folder / "r") as nodes:
        yield from _running(Place(run, nodes, wanted, rng, apart=True))


@contextmanager
def with_people(folder: Path, words: Sequence[str], rng: random.Random) -> Iterator[tuple[Place, Annotator]]:
    """On one node, with a queue, and somebody who answers by the true reward."""
    port = lasting_port(HOST)
    run = _harmed(folder, "people", [*words, *APART, *WITH_PEOPLE, f"people.port={port}"])
    annotator = Annotator(run.folder, f"http://{HOST}:{port}")
    wanted = {"rollout": 2, "reward": 2, "learner": 1, "renderer": 1, "queue": 1}
    with Nodes(folder / "r") as nodes:
        annotator.start()
        try:
            for place in _running(Place(run, nodes, wanted, rng, annotator=annotator)):
                yield place, annotator
                annotator.enough.set()
                annotator.join()  # while there is a queue
        finally:
            annotator.enough.set()


@contextmanager
def at_a_url(folder: Path, words: Sequence[str], rng: random.Random) -> Iterator[Place]:
    """On one node, and copied to an S3 server of this machine."""
    wanted = {"rollout": 2, "reward": 2, "learner": 1}
    with bucket() as storage, Nodes(folder / "r") as nodes:
        where = [f"storage_path={storage.url('runs')}", f"work_path={folder}", "name=url"]
        run = Harmed(RunDirectory(folder / "url"), [*words, *APART, *where], KEYS)
        yield from _running(Place(run, nodes, wanted, rng, bucket=storage))


def settle(place: Place) -> None:
    """Waits until every process is there and a checkpoint has been written since."""
    until(lambda: place.run.steps() > 0 and place.whole(), "all processes", place.run.require_alive)
    before = place.run.checkpoints()
    until(lambda: place.run.checkpoints() > before, "a checkpoint", place.run.require_alive)


def lacking(place: Place, known: set[str]) -> int:
    """How many of the answers `known` the log still lacks once it has had its time."""
    end = time.monotonic() + LOG_SECONDS
    while time.monotonic() < end:
        place.run.require_alive()
        with suppress(UserError):  # a storage may be away
            if known <= place.answered():
                return 0
        time.sleep(POLL_SECONDS)
    return len(known - place.answered())


def _harmed(folder: Path, name: str, words: Sequence[str]) -> Harmed:
    return Harmed(RunDirectory(folder / name), [*words, f"storage_path={folder}", f"name={name}"])


def _running(place: Place) -> Iterator[Place]:
    place.start_nodes()
    place.start()
    try:
        settle(place)
        yield place
        place.run.stop()
    finally:
        place.run.process.kill()


@contextmanager
def _keys() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(KEYS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _slow_down(victims: Sequence[int]) -> None:
    end = time.monotonic() + SLOW_SECONDS
    while time.monotonic() < end:
        for stop, seconds in ((signal.SIGSTOP, 0.45), (signal.SIGCONT, 0.05)):
            for victim in victims:
                _send(victim, stop)
            time.sleep(seconds)


def _send(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return
