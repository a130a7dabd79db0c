"""`bench driver`: what a fragment costs the driver, for small fragments and for large ones.

The driver moves references. Its own work per fragment (asking, collecting, counting, handing on to the learner, which
is a process of its own here, and to the trajectory store) is measured in processor seconds of its thread; it sleeps
until the fragment is there, and while the learner writes it. The note has those of the whole process too, Ray's threads
included, less what they spend in as long when idle.
"""

import time
from typing import Any

import numpy as np

from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.data import ray_session
from rayrlhf.bench.program import program
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import torch_threads
from rayrlhf.config import EnvOptions, ExploreOptions, QueryOptions, ResourceOptions, RolloutOptions, RunConfig


class DriverBench(BenchOptions):
    """Options of `bench driver`."""

    rounds: Count = 40
    """Fragments of each size."""
    envs: Count = 64
    small: Count = 10
    large: Count = 500
    """Steps per fragment: transitions are `envs` times as many."""


def run(**given: Any) -> dict[str, Any]:
    """Measures fragments of two sizes in turn."""
    options = options_from(DriverBench, given, "driver")
    report = Report("driver")
    with torch_threads(options.threads), ray_session():
        with program(_run(options, options.small)) as small, program(_run(options, options.large)) as large:
            _measure(report, options, {"small": small, "large": large})
        return report.as_dict()


def _measure(report: Report, options: DriverBench, sides: dict[str, Pebble]) -> None:
    # as long for both: after a longer sleep a thread finds colder caches
    pause = max(_seconds_per_fragment(algorithm) for algorithm in sides.values())
    thread: dict[str, list[float]] = {name: [] for name in sides}
    process: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, algorithm in sides.items():
            own, everything, taken = _one_fragment(algorithm, pause)
            thread[name].append(own)
            process[name].append(everything - _idle(taken))
    rows = {"small": options.envs * options.small, "large": options.envs * options.large}
    seconds = {name: float(np.median(spent)) for name, spent in thread.items()}
    unit = "fragments/second of the driver's thread"
    against = f"the same for fragments of {rows['small']} transitions"
    report.cases[f"{rows['large']}_transitions"] = Case(1 / seconds["large"], 1 / seconds["small"], unit, against)
    report.notes["milliseconds"] = {
        name: {"thread": 1000 * seconds[name], "process_less_idle": 1000 * float(np.median(process[name]))}
        for name in sides
    }


def _idle(seconds: float) -> float:
    """Processor seconds that this process spends in `seconds` while nothing is asked of it."""
    begin = time.process_time()
    time.sleep(seconds)
    return time.process_time() - begin


def _run(options: DriverBench, length: int) -> RunConfig:
    return RunConfig(
        total_steps=10_000_000,
        env=EnvOptions(suite="toy", task="point", horizon=50),
        explore=ExploreOptions(seed_steps=0, unsupervised_steps=0),
        queries=QueryOptions(segment_length=10, budget=10, per_session=10),
        rollout=RolloutOptions(actors=1, envs_per_actor=options.envs, fragment_length=length),
        resources=ResourceOptions(learners=1),
    )


def _seconds_per_fragment(algorithm: Pebble) -> float:
    """How long to sleep for one, with room to spare."""
    longest = 0.0
    for _ in range(4):
        begin = time.perf_counter()
        _one_fragment(algorithm, 0.0)
        longest = max(longest, time.perf_counter() - begin)
    return 1.5 * longest + 0.02


def _one_fragment(algorithm: Pebble, pause: float) -> tuple[float, float, float]:
    """From request to replay and store: processor seconds of this thread and of this process, and seconds taken."""
    begin = time.thread_time(), time.process_time(), time.perf_counter()
    algorithm.request_fragments()
    time.sleep(pause)
    algorithm.insert(algorithm.collect())
    return time.thread_time() - begin[0], time.process_time() - begin[1], time.perf_counter() - begin[2]
