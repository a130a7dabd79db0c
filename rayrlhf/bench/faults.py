"""`bench faults`: each process of a run, and what it stands on, is lost at random moments, and what came of it is told.

The run is PEBBLE on the toy, on a Ray cluster of this machine: of three nodes, the driver on the head node, learner
and reward actors on a second, rollout actors on a third, as on spot machines; for the renderer with people, who
answer by the true reward; for the storage with a copy at an S3 server. After each loss the next is not before
everything is back and a checkpoint has been written. A row says whether the run went on by itself or by the one
command that resumes it; how long it counted no new steps (the longest standstill from the loss until everything was
there and it had moved, evaluations and sessions that fell into that included); the seconds until every process was
there; the steps it went back by; the answers that its log had, or the queue acknowledged, and that its log lacks
afterwards; the driver's exit code where that ended.
"""

import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from rayrlhf.bench.faulty import Watch, until
from rayrlhf.bench.places import ENDLESS, Place, at_a_url, lacking, on_nodes, settle, with_people
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.config.options import Options

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
    "head",
    "renderer",
    "storage",
]
FAULTS: dict[Fault, tuple[str, Callable[[Place], threading.Thread | None]]] = {
    "rollout": ("a rollout actor is killed", Place.lose_rollout),
    "reward": ("a reward actor is killed", Place.lose_reward),
    "store": ("the process with the trajectory store is killed", Place.lose_store),
    "learner": ("the learner is killed", Place.lose_learner),
    "evaluation": ("a rollout actor is killed while it evaluates", Place.lose_evaluation),
    "hung": ("an environment hangs for ever", Place.hang),
    "slow": ("the node of the rollout actors runs a tenth of the time, for 10 s", Place.slow),
    "driver": ("the driver is killed", Place.lose_driver),
    "worker-node": ("a worker node is lost, and replaced", Place.lose_worker_node),
    "head-node": ("the head node is lost, and the driver with it", Place.lose_head_node),
    "head": ("the head node's Ray is lost, and the driver is elsewhere", Place.lose_head),
    "renderer": ("the renderer is killed", Place.lose_renderer),
    "storage": ("the storage at a URL is away for 10 s", Place.away),
}
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
    """What came of one loss.

    standstill: the longest time without new steps, in seconds   whole_seconds: until every process was there
    """

    by_itself: bool
    standstill: float
    whole_seconds: float
    steps_lost: int
    answers_lost: int
    exit_code: int | None


def run(**given: Any) -> dict[str, Any]:
    """Loses everything in turn."""
    options = options_from(FaultsBench, given, "faults")
    report = Report("faults")
    rows = []
    with tempfile.TemporaryDirectory(prefix="rf", ignore_cleanup_errors=True) as temporary:
        folder = Path(options.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for where in (on_nodes, _with_people, at_a_url):
            faults = [fault for fault in options.only if _where(fault) is where]
            if not faults:
                continue
            words = [options.preset, *ENDLESS, "checkpoint.seconds=5", *options.overrides]
            with where(folder, words, random.Random(options.seed)) as place:
                for fault in faults:
                    found = [_lose(place, fault, count, options.times) for count in range(options.times)]
                    report.notes[fault] = [vars(outcome) for outcome in found]
                    rows.append(_row(fault, found))
    result = report.as_dict()
    columns = ("fault", "went on", "stands still, s", "whole, s", "steps lost", "answers lost", "exit code")
    return result | {"table": {"columns": columns, "rows": rows}}


def _lose(place: Place, fault: Fault, before: int, times: int) -> Outcome:
    found = lose(place, fault)
    how = f"stood still for {found.standstill:.1f} s, was whole after {found.whole_seconds:.1f} s"
    print(f"{fault} {before + 1} of {times}: {how}", file=sys.stderr, flush=True)
    return found


def lose(place: Place, fault: Fault) -> Outcome:
    """One loss, at a random moment, and what came of it."""
    run = place.run
    time.sleep(place.rng.uniform(0.0, MOST_REST_SECONDS))
    known, exit_code, whole_at = place.acknowledged(), None, float("inf")

    def goes_on() -> bool:
        """Every process is there, and there are new steps since."""
        nonlocal exit_code, whole_at
        if not run.alive:
            exit_code = run.process.returncode
            place.start()
        whole_at = min(whole_at, time.monotonic()) if place.whole() else float("inf")
        return watch.moved_at > whole_at

    place.lost_at = time.monotonic()
    with Watch(run) as watch:
        harm = FAULTS[fault][1](place)
        if harm is not None:
            harm.join()
        until(goes_on, f"training after this: {FAULTS[fault][0]}")
    settle(place)
    lost = lacking(place, known)
    return Outcome(exit_code is None, watch.standstill, whole_at - place.lost_at, watch.steps_lost, lost, exit_code)


@contextmanager
def _with_people(folder: Path, words: list[str], rng: random.Random) -> Iterator[Place]:
    with with_people(folder, words, rng) as (place, _):
        yield place


def _where(fault: Fault) -> Callable[..., Any]:
    return {"renderer": _with_people, "storage": at_a_url}.get(fault, on_nodes)


def _row(fault: Fault, found: list[Outcome]) -> list[str]:
    steps = [outcome.steps_lost for outcome in found]
    alone = sum(outcome.by_itself for outcome in found)
    codes = sorted({outcome.exit_code for outcome in found if outcome.exit_code is not None})
    how = "by itself" if alone == len(found) else "resumed by one command" if not alone else f"by itself {alone}x"
    return [
        FAULTS[fault][0],
        f"{how} ({len(found)} of {len(found)})",
        _median([outcome.standstill for outcome in found]),
        _median([outcome.whole_seconds for outcome in found]),
        f"{statistics.median(steps):.0f} (most {max(steps)})",
        str(sum(outcome.answers_lost for outcome in found)),
        ", ".join(map(str, codes)) or "none: it lives",
    ]


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} (most {max(seconds):.1f})"
