"""`bench faults`: each process of a run, and what it stands on, is lost at random moments, and what came of it is told.

The run is PEBBLE on the toy, on a Ray cluster of this machine: of three nodes, the driver on the head node, learner
and reward actors on a second, rollout actors on a third, as on spot machines; for the renderer with people, who
answer by the true reward; for the storage with a copy at an S3 server. After each loss the next is not before
everything is back and a checkpoint has been written. A row says whether the run went on by itself or by the one
command that resumes it; the seconds from the loss until steps are counted that were not counted before, and until
every process is there; the steps it went back by; the answered questions that its log lacks afterwards; the driver's
exit code where that ended.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from rayrlhf.bench.faulty import until
from rayrlhf.bench.places import ENDLESS, Place, at_a_url, on_nodes, settle, with_people
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.config.options import Options
from rayrlhf.errors import UserError

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
    "storage",
]
FAULTS: dict[Fault, tuple[str, Callable[[Place], None]]] = {
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
    """What came of one loss. seconds: until training moved; whole_seconds: until every process was there."""

    by_itself: bool
    seconds: float
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
    columns = ("fault", "went on", "moves, s", "whole, s", "steps lost", "answers lost", "exit code")
    return result | {"table": {"columns": columns, "rows": rows}}


def _lose(place: Place, fault: Fault, before: int, times: int) -> Outcome:
    found = lose(place, fault)
    how = f"moves after {found.seconds:.1f} s, is whole after {found.whole_seconds:.1f} s"
    print(f"{fault} {before + 1} of {times}: {how}", file=sys.stderr, flush=True)
    return found


def lose(place: Place, fault: Fault) -> Outcome:
    """One loss, at a random moment, and what came of it."""
    run = place.run
    time.sleep(place.rng.uniform(0.0, MOST_REST_SECONDS))
    answered, resumes, steps, lost_at = run.answered(), len(run.resumes()), run.steps(), time.monotonic()
    FAULTS[fault][1](place)
    if fault == "evaluation":  # it waited for one
        answered, steps, lost_at = run.answered(), run.steps(), time.monotonic()
    exit_code: int | None = None

    def moved() -> bool:
        nonlocal exit_code
        if not run.alive:
            exit_code = run.process.returncode
            place.start()
        again = run.resumes()[resumes:]
        return run.steps() > (again[-1] if again else steps)

    until(moved, f"training after this: {FAULTS[fault][0]}")
    seconds = time.monotonic() - lost_at
    until(place.whole, f"all processes after this: {FAULTS[fault][0]}", run.require_alive)
    whole_seconds = time.monotonic() - lost_at
    again = run.resumes()[resumes:]
    steps_lost = max(0, steps - again[-1]) if again else 0
    settle(place)
    until(lambda: _reads(place), "what the run has logged", run.require_alive)
    if place.bucket is not None:
        until(lambda: answered <= place.answered(), "the copy", run.require_alive)
    lost = len(answered - place.answered())
    return Outcome(exit_code is None, seconds, whole_seconds, steps_lost, lost, exit_code)


def _reads(place: Place) -> bool:
    """Whether the log can be read: a storage may be away."""
    try:
        place.answered()
    except UserError:
        return False
    return True


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
        _median([outcome.seconds for outcome in found]),
        _median([outcome.whole_seconds for outcome in found]),
        f"{statistics.median(steps):.0f} (most {max(steps)})",
        str(sum(outcome.answers_lost for outcome in found)),
        ", ".join(map(str, codes)) or "none: it lives",
    ]


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} (most {max(seconds):.1f})"
