"""`bench chaos`: a run that loses one of its processes every minute, for half an hour, and what is left of it.

PEBBLE on the toy, on a Ray cluster of one node on this machine, with people (a program that answers by the true
reward): rollout actors, reward actors, the process with the trajectory store, renderer and learner are killed at
random, also while others are still coming back. Then the run is ended by Ctrl-C, its policy evaluated, and it is
looked for: answers that the queue acknowledged and the run's log lacks; processes that grew; actors left on the
cluster, processes and shared memory left on the machine.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import Field

from rayrlhf.bench.nodes import TOKEN
from rayrlhf.bench.places import ENDLESS, TITLES, Place, lacking, settle, with_people
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.bench.truth import Annotator
from rayrlhf.config.options import Options
from rayrlhf.errors import UserError

Role = Literal["rollout", "reward", "store", "renderer", "evaluation", "learner"]
LOSING: dict[Role, Callable[[Place], None]] = {
    "rollout": Place.lose_rollout,
    "reward": Place.lose_reward,
    "store": Place.lose_store,
    "renderer": Place.lose_renderer,
    "evaluation": Place.lose_evaluation,
    "learner": Place.lose_learner,
}
DRIVER = "driver"
SAMPLE_SECONDS = 5.0
WARM_SECONDS = 90.0
"""After so long a process has what it needs: Python's modules, buffers, the replay."""
RETRY_SECONDS = 1.0
SHARED = Path("/dev/shm")


class ChaosBench(Options):
    """Options of `bench chaos`."""

    minutes: Annotated[float, Field(gt=0)] = 30.0
    every_seconds: Annotated[float, Field(gt=0)] = 60.0
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 20.0
    episodes: Count = 20
    """Of the evaluation at the end."""
    seed: int = 0
    preset: str = "toy"
    overrides: tuple[str, ...] = ()
    folder: Annotated[str | None, Field(description="where the run stays; none: it is deleted")] = None


@dataclass
class Memory(threading.Thread):
    """Looks at every process of the run, every few seconds, until `enough` is set: what it alone has in RAM."""

    place: Place
    enough: threading.Event = field(default_factory=threading.Event)
    samples: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By role and process: seconds since the first look at it, and megabytes."""

    def __post_init__(self) -> None:
        super().__init__(name="memory", daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Looks."""
        born: dict[tuple[str, int], float] = {}
        while not self.enough.wait(SAMPLE_SECONDS):
            found = [(role, pid) for role in TITLES for pid in self.place.pids(role)]
            for key in [*found, (DRIVER, self.place.run.process.pid)]:
                try:
                    megabytes = psutil.Process(key[1]).memory_full_info().uss / 2**20
                except psutil.Error:
                    continue
                now = time.monotonic()
                self.samples[key].append((now - born.setdefault(key, now), megabytes))

    def series(self, role: str) -> list[list[float]]:
        """Minutes and megabytes of each process of a role, about once a minute."""
        every = max(1, round(60 / SAMPLE_SECONDS))
        found = [samples[::every] for (of, _), samples in self.samples.items() if of == role]
        return [[round(seconds / 60, 1), round(megabytes)] for samples in found for seconds, megabytes in samples]

    def table(self) -> dict[str, list[tuple[float, float, float]]]:
        """By role, of each process that lived for long: minutes, megabytes once it was warm, and at its end."""
        found: dict[str, list[tuple[float, float, float]]] = {}
        for (role, _), samples in self.samples.items():
            warm = [megabytes for seconds, megabytes in samples if seconds >= WARM_SECONDS]
            if len(warm) >= 12:
                ends = statistics.median(warm[:6]), statistics.median(warm[-6:])
                found.setdefault(role, []).append((samples[-1][0] / 60, *ends))
        return found


def run(**given: Any) -> dict[str, Any]:
    """Half an hour."""
    options = options_from(ChaosBench, given, "chaos")
    report = Report("chaos")
    before = _shared()
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as temporary:
        folder = Path(options.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        words = [options.preset, *ENDLESS, f"checkpoint.seconds={options.checkpoint_seconds:g}", *options.overrides]
        with with_people(folder, words, random.Random(options.seed)) as (place, annotator):
            memory = Memory(place)
            memory.start()
            killed = _kill(place, annotator, options)
            settle(place)
            memory.enough.set()
            memory.join()
            annotator.enough.set()
            annotator.join()
            lost = lacking(place, place.acknowledged())
            code = place.run.stop()
            left = _left_on_cluster(place)
            evaluated = _evaluate(place, options.episodes)
        orphans = _still_there(lambda: _of_the_cluster(place.nodes.token))
        run_ = place.run
        rows = [
            ("killed", ", ".join(f"{role} {count}x" for role, count in sorted(killed.items()))),
            ("restarts from a checkpoint", str(len(run_.resumes()))),
            ("steps, labels", f"{run_.steps():,}, {len(run_.answered()):,}"),
            ("acknowledged answers lost", str(lost)),
            ("success at the end", f"{evaluated['success_rate']:.0%} of {options.episodes} episodes"),
            ("exit code of Ctrl-C", str(code)),
            ("actors left on the cluster", str(left)),
            ("processes left", str(orphans)),
            ("shared memory left", ", ".join(sorted(_shared() - before)) or "none"),
        ]
    rows += [_memory_row(role, lives) for role, lives in sorted(memory.table().items())]
    report.notes = {"killed": dict(killed), "resumes": len(run_.resumes()), "memory": memory.table()}
    report.notes["megabytes_by_minute"] = {role: memory.series(role) for role in (DRIVER, "queue")}
    report.notes |= {"answers_lost": lost, "evaluation": evaluated, "left": left, "orphans": orphans}
    return report.as_dict() | {"table": {"columns": ("", ""), "rows": rows}}


def _kill(place: Place, annotator: Annotator, options: ChaosBench) -> Counter[str]:
    """One after the other; where the one whose turn it is is not there, another one's is."""
    killed: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    due = time.monotonic() + options.every_seconds
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        place.run.require_alive()
        if not annotator.is_alive():
            raise UserError("nobody answers any more: see what was printed above")
        role = place.rng.choice(list(LOSING))
        try:
            LOSING[role](place)
        except (IndexError, UserError):  # it is not back yet
            due += RETRY_SECONDS
            continue
        killed[role] += 1
        print(f"{sum(killed.values())}: {role}; {place.run.steps():,} steps", file=sys.stderr, flush=True)
        due = max(due + options.every_seconds, time.monotonic())
    time.sleep(max(0.0, end - time.monotonic()))
    return killed


def _left_on_cluster(place: Place) -> int:
    """Processes of the run a while after its end: the cluster's that are its roles, and others that know its token."""

    def look() -> list[int]:
        nodes = {process.pid for node in place.nodes.nodes for process in node.processes()}
        roles = [pid for role in TITLES for pid in place.pids(role)]
        return roles + [pid for pid in _of_the_cluster(place.nodes.token) if pid not in nodes]

    return _still_there(look)


def _still_there(look: Callable[[], list[int]]) -> int:
    """How many processes `look` finds that have had their time to end."""
    for _ in range(100):
        if not (left := look()):
            return 0
        time.sleep(0.1)
    return len(left)


def _of_the_cluster(token: str) -> list[int]:
    """Every process that was started with the cluster's token: nodes, drivers, and what they started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _evaluate(place: Place, episodes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "rayrlhf", "eval", str(place.run.folder.path), f"--episodes={episodes}", "--json"]
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the run cannot be evaluated: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _memory_row(role: str, lives: list[tuple[float, float, float]]) -> tuple[str, str]:
    most = max(lives, key=lambda life: life[2] / life[1])
    longest = max(lives)
    said = f"{longest[1]:.0f} MB to {longest[2]:.0f} MB in {longest[0]:.0f} min"
    if len(lives) > 1:
        said += f"; of {len(lives)} processes the one that grew most: x{most[2] / most[1]:.2f} in {most[0]:.0f} min"
    return f"memory: {role}", said


def _shared() -> set[str]:
    return {path.name for path in SHARED.iterdir()}
