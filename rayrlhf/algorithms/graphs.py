"""CUDA graphs of the whole update: drawing, gathering and learning replayed as one launch."""

from collections.abc import Callable

import torch

WARM_UP_CALLS = 3
"""Eager calls before the capture: they create the optimisers' state and cuBLAS' workspaces."""


class GraphedUpdate:
    """Replays `update(move_target)` from a graph; one graph with and one without the target's move.

    `update` reads and writes only tensors that stay where they are between calls, and numbers of `generator`.
    Resetting an optimiser needs a new instance, and so does another `layout` of what is read.
    """

    def __init__(
        self, update: Callable[[bool], None], generator: torch.Generator, layout: tuple[int, ...] | None = None
    ) -> None:
        self.layout = layout
        self._update, self._generator = update, generator
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}
        self._warm = 0

    def __call__(self, move_target: bool) -> None:
        """One update."""
        if self._warm < WARM_UP_CALLS:
            self._warm += 1
            self._on_side_stream(move_target)
            return
        if move_target not in self._graphs:
            self._graphs[move_target] = self._capture(move_target)
        self._graphs[move_target].replay()

    def _on_side_stream(self, move_target: bool) -> None:
        stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._update(move_target)
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, move_target: bool) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            self._update(move_target)
        return graph
