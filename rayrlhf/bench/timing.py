"""Rates of several sides measured in turn within one run, so that a busy machine slows all of them alike."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from rayrlhf.cores import processor_name

Clock = Literal["wall", "cpu"]
"""`cpu` counts this process' own seconds on a processor: for a machine that others use too. Never with a GPU."""

Side = Callable[[], float]
"""Does one portion of work and returns how much it was, in the case's unit."""

_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Rates:
    """By side: work per second in each round, in the order of the rounds."""

    per_round: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """The middle round's rate."""
        return float(np.median(self.per_round[side]))

    def ratios(self, ours: str, reference: str) -> list[float]:
        """The ratio within each round."""
        return [a / b for a, b in zip(self.per_round[ours], self.per_round[reference], strict=True)]


def alternate(
    sides: Mapping[str, Side],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Clock = "wall",
    before: Mapping[str, Callable[[], Any]] | None = None,
) -> Rates:
    """Runs each side once per round, in an order that turns with the rounds; `before[side]` is not timed."""
    if rounds < 1:
        raise ValueError(f"{rounds} rounds")
    now, names = _CLOCKS[clock], list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if before is not None and name in before:
                before[name]()
            _finish_device_work()
            begin = now()
            work = sides[name]()
            _finish_device_work()
            if number >= 0:
                found[name].append(work / (now() - begin))
    return Rates(found)


def _finish_device_work() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """`count` threads for torch in this process, and what it had before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def confined(threads: int) -> Iterator[None]:
    """`threads` cores for this process, and as many threads for torch: so that both sides have the same.

    Not around anything that starts Ray: its processes would inherit the confinement.
    """
    with torch_threads(threads):
        if not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(before)[-threads:])
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def best_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on."""
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "processor": processor_name(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
