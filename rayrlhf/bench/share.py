"""`bench share`: how many runs one device carries.

So many learners, each a process of its own as several runs on one GPU have them, update at the same time; a case is the
updates per second of all of them together, against one alone. Where it stops growing, another run only slows the others
down. On a CPU each has one thread, and the limit is the number of cores.
"""

import time
from typing import Annotated, Any

import ray
import torch
from pydantic import Field

from rayrlhf.bench.data import filled_learner, random_fragment, ray_session
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import Rates
from rayrlhf.config import SacOptions

UNIT = "updates/s of all together"


class ShareBench(DeviceOptions):
    """Options of `bench share`."""

    rounds: Count = 3
    runs: Annotated[tuple[Count, ...], Field(min_length=1)] = (2, 4, 8)
    """Numbers of learners to measure against one."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """That each of them updates for, every time."""
    hidden: tuple[Count, ...] = (256, 256, 256)
    batch_size: Count = 512
    rows: Count = 100_000
    """In each one's replay."""


def run(**given: Any) -> dict[str, Any]:
    """Measures each number of learners in turn."""
    options = options_from(ShareBench, given, "share")
    report = Report("share", options.chosen_device)
    counts = (1, *options.runs)
    with ray_session(cpus=max(counts)):
        share = 1 / max(counts) if report.device == "cuda" else 0.0
        kind = ray.remote(_Learner).options(num_cpus=0, num_gpus=share)
        learners: list[Any] = [kind.remote(options.model_dump(), report.device) for _ in range(max(counts))]
        ray.get([learner.rate.remote(0.0) for learner in learners])
        found: dict[str, list[float]] = {_name(count): [] for count in counts}
        for _ in range(options.rounds):
            for count in counts:
                together = [learner.rate.remote(options.seconds) for learner in learners[:count]]
                found[_name(count)].append(sum(ray.get(together)))
        memory = ray.get([learner.megabytes.remote() for learner in learners])
        for learner in learners:
            ray.kill(learner)
    for count in options.runs:
        report.add(_name(count), Rates(found), _name(count), _name(1), unit=UNIT, against="one alone")
    report.notes["gpu_megabytes_of_each"] = memory
    return report.as_dict()


def _name(count: int) -> str:
    return f"{count}_runs"


class _Learner:
    """PEBBLE's learner with a full replay."""

    def __init__(self, options: dict[str, Any], device: str) -> None:
        chosen = ShareBench.model_validate(options)
        torch.set_num_threads(chosen.threads)
        sac, fragment = SacOptions(hidden=chosen.hidden, batch_size=chosen.batch_size), random_fragment(chosen.rows)
        self._learner = filled_learner(fragment, sac, threads=chosen.threads, device=device, mode="oracle")
        self._portion = 50 if device == "cuda" else 2

    def rate(self, seconds: float) -> float:
        """Updates per second, for so long; a portion of them at least, which warms it up."""
        done, begin = 0, time.perf_counter()
        while not done or time.perf_counter() < begin + seconds:
            self._learner.learn(self._portion)
            done += self._portion
        return done / (time.perf_counter() - begin)

    def megabytes(self) -> float:
        """Of the GPU's memory, at the most."""
        return torch.cuda.max_memory_reserved() / 1e6 if torch.cuda.is_available() else 0.0
