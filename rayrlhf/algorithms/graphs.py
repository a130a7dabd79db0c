"""CUDA graphs of the whole update: drawing, gathering and learning replayed as one launch."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Eager calls before the capture: they create the optimisers' state and cuBLAS' workspaces."""


class GraphedUpdate:
    """Replays `update(size, move_target)` from a graph; one graph with and one without the target's move.

    The replay grows between calls, so its size is a tensor that the graph reads. What `update` returns is written
    anew by each replay: read it before the next one. Resetting an optimiser needs a new instance.
    """

    def __init__(
        self,
        update: Callable[[Tensor, bool], dict[str, Tensor]],
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._update, self._generator = update, generator
        self._size = torch.zeros((), dtype=torch.float64, device=device)
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self._warm = 0

    def __call__(self, size: int, move_target: bool) -> dict[str, Tensor]:
        """One update on the first `size` rows."""
        self._size.fill_(float(size))
        if self._warm < WARM_UP_CALLS:
            self._warm += 1
            return self._on_side_stream(move_target)
        if move_target not in self._graphs:
            self._graphs[move_target] = self._capture(move_target)
        graph, losses = self._graphs[move_target]
        graph.replay()
        return losses

    def _on_side_stream(self, move_target: bool) -> dict[str, Tensor]:
        stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self._update(self._size, move_target)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _capture(self, move_target: bool) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            losses = self._update(self._size, move_target)
        return graph, losses
