"""Pairs that nobody was asked about, for pseudo-labels (SURF: Park et al. 2022, arXiv 2203.10050, section 4.1).

The paper keeps ten unlabelled pairs for each label, drawn when it was asked for. Here each step of a fit draws fresh
ones from the newest episodes, the same that questions are made of: nothing is kept, and no pair is shown twice.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.preferences.fragments import Floats, Integers
from rayrlhf.rewards.crops import draw_crops


@dataclass(frozen=True)
class Episodes:
    """Steps of episodes one after another: `rows` `[M, O + A]`, observations and actions side by side.

    lengths: `[K]` of the episodes, in order
    """

    rows: Floats
    lengths: Integers

    def starts(self, steps: int) -> Integers:
        """The rows at which `steps` steps of one episode begin."""
        firsts = np.cumsum(self.lengths) - self.lengths
        last = np.maximum(self.lengths - steps + 1, 0)
        within = np.arange(int(last.sum())) - np.repeat(np.cumsum(last) - last, last)
        found: Integers = np.repeat(firsts, last) + within
        return found


@dataclass(frozen=True)
class Drawn:
    """Pairs for the steps of an epoch: `K` steps of `U` pairs, of `G` members.

    inputs: `[M, D]` the episodes as the networks take them
    start:  `[G, K, U, 2]` the first row of both segments, context included
    crops:  `[G, K, U, 2, 2]`
    """

    inputs: Tensor
    start: Tensor
    crops: Tensor


def draw(
    starts: Integers, steps: int, pairs: int, length: int, most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of one member: first rows `[steps, pairs, 2]` of both segments and their crops `[steps, pairs, 2, 2]`."""
    start = rng.choice(starts, (steps, pairs, 2))
    known = np.broadcast_to(np.array([0, length + 2 * most]), (steps * pairs, 2, 2))
    return start, draw_crops(known, length, most, rng).reshape(steps, pairs, 2, 2)


def segments_at(inputs: Tensor, start: Tensor, steps: int, out: Tensor) -> Tensor:
    """Writes the `steps` rows from each of `start` on into `out` `[start.numel(), steps, D]`."""
    rows = start.reshape(-1, 1) + torch.arange(steps, device=start.device)
    return torch.index_select(inputs, 0, rows.reshape(-1), out=out.view(-1, inputs.shape[1]))
