"""`bench memory`: whether a long run leaves the driver's memory as it was.

The toy environment with a small replay and few updates, through the whole program. Once the replay is full nothing may
grow: the resident memory of the driver's process (learner and replay in it) near the end is set against that at a
quarter of the run.
"""

import gc
from pathlib import Path
from typing import Any

from rayrlhf.bench.data import ray_session
from rayrlhf.bench.program import program
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import torch_threads
from rayrlhf.config import (
    EnvOptions,
    ExploreOptions,
    QueryOptions,
    RewardOptions,
    RolloutOptions,
    RunConfig,
    SacOptions,
    TrackingOptions,
)


class MemoryBench(BenchOptions):
    """Options of `bench memory`."""

    steps: Count = 200_000
    replay: Count = 10_000
    updates_per_step: float = 0.02
    actors: Count = 2
    envs: Count = 8


def run(**given: Any) -> dict[str, Any]:
    """Runs once and reads the memory sixteen times."""
    options = options_from(MemoryBench, given, "memory")
    report = Report("memory")
    with torch_threads(options.threads), ray_session(), program(_run(options)) as algorithm:
        readings: list[tuple[int, float]] = []
        for part in range(1, 17):
            while algorithm.progress.env_steps < options.steps * part // 16:
                algorithm.train()
            gc.collect()
            readings.append((algorithm.progress.env_steps, resident_megabytes()))
    early, late = readings[3][1], max(megabytes for _, megabytes in readings[-3:])
    against = f"the same process after {readings[3][0]} steps"
    report.cases["driver"] = Case(late, early, "MB resident (less is better)", against)
    report.notes["megabytes_by_steps"] = readings
    return report.as_dict()


def _run(options: MemoryBench) -> RunConfig:
    return RunConfig(
        total_steps=options.steps + 100_000,
        env=EnvOptions(suite="toy", task="point", horizon=50),
        sac=SacOptions(
            hidden=(64, 64),
            batch_size=64,
            replay_capacity=options.replay,
            updates_per_step=options.updates_per_step,
        ),
        explore=ExploreOptions(seed_steps=200, unsupervised_steps=800, critic_reset_updates=10),
        reward=RewardOptions(hidden=(64, 64), epochs=5),
        queries=QueryOptions(
            budget=10 * max(1, options.steps // 10_000), per_session=10, interval=10_000, segment_length=10
        ),
        rollout=RolloutOptions(actors=options.actors, envs_per_actor=options.envs, fragment_length=25),
        tracking=TrackingOptions(log_interval=1000),
    )


def resident_megabytes() -> float:
    """This process' memory that is in RAM."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS")
