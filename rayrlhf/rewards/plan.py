"""How the members are computed on a device: the one place that decides, and the buffers they share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rayrlhf.cores import free_cores

_CPU_ROWS = 2048
"""Transitions per chunk and thread: activations 256 wide then stay in a core's second-level cache (2 MB)."""


@dataclass(frozen=True)
class Plan:
    """How members are computed.

    stacked:    all members fitted in one batched product; otherwise one after the other
    fit_rows:   transitions of one member per forward and backward pass; larger batches are summed over chunks
    score_rows: transitions per forward pass
    threads:    members computed at the same time, each in a thread of its own
    padded:     the last batch of an epoch is filled up with weightless pairs, so that every step has one shape
    graphed:    steps are replayed from a CUDA graph
    row_groups: into how many groups the rows of a weight's gradient are cut at most, each summed by itself
    """

    stacked: bool
    fit_rows: int
    score_rows: int
    threads: int = 1
    padded: bool = False
    graphed: bool = False
    row_groups: int = 1


def choose_plan(device: torch.device, *, members: int, handwritten: bool, threads: int | None = None) -> Plan:
    """The fastest plan for `members` on `device`; `handwritten`: the network has a hand-written pass (`MLPBlock`).

    `threads` is how many members may be computed at the same time on a CPU; by default as many as help.

    On a CPU one member's chunk fills the cache and the core, so that stacking only costs memory traffic; members that
    are computed each for itself also make results independent of how they are split over threads and processes. Twice
    as many threads as cores: three members on two cores take one and a half times as long as one, not twice. On a GPU
    a member's kernels in a fit are too short to hide their launches. A user's network runs ungraphed everywhere.
    """
    if device.type != "cuda":
        rows = _CPU_ROWS * torch.get_num_threads()
        cores = free_cores() // torch.get_num_threads()
        helpful = 2 * cores if cores > 1 else 1
        return Plan(stacked=False, fit_rows=rows, score_rows=rows, threads=min(members, threads or helpful))
    return Plan(
        stacked=handwritten,
        fit_rows=1 << 20,
        score_rows=1 << 17,
        padded=handwritten,
        graphed=handwritten,
        row_groups=32,
    )


class Workspace:
    """Named scratch tensors that are allocated once and grow when a larger one is asked for.

    `generation` counts reallocations: whoever keeps addresses (a CUDA graph) must drop them when it moves.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, Tensor] = {}
        self.generation = 0

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised float32 tensor of `shape`; the next `take` of `name` reuses its memory."""
        size = 1
        for length in shape:
            size *= length
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = torch.empty(size, device=self._device)
            self.generation += 1
        return held[:size].view(shape)
