"""Temporal cropping (SURF: Park et al. 2022, arXiv 2203.10050, section 4.2): a label holds for shorter and longer cuts.

Each time a pair is learnt from, its two segments are cut to one length, `most` steps shorter to `most` longer than what
the teacher saw, each from a start of its own within what is known of the steps around it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def draw_crops(known: NDArray[np.int64], length: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """First step and end of a crop of each segment, `[N, 2, 2]`, both of a pair of one length.

    `known` `[N, 2, 2]` are first step and end of what is known of each segment, at least the `length` steps that the
    teacher saw. Lengths are uniform in `[length - most, length + most]` as far as so many steps are known, starts
    uniform over what is possible.
    """
    there = known[..., 1] - known[..., 0]
    longest = np.minimum(length + most, there.min(axis=1))
    size = rng.integers(length - most, longest + 1)[:, None]
    first = known[..., 0] + rng.integers(0, there - size + 1)
    return np.stack([first, first + size], axis=-1)


def inside(crops: Tensor, steps: int) -> Tensor:
    """1 within each crop and 0 elsewhere, `[..., steps]` of `crops` `[..., 2]`."""
    step = torch.arange(steps, device=crops.device)
    return ((step >= crops[..., :1]) & (step < crops[..., 1:])).float()
