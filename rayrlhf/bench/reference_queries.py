"""k-center as it is usually written: all distances anew for every pick."""

import torch
from torch import Tensor


def k_center_anew(candidates: Tensor, centres: Tensor, count: int) -> list[int]:
    """Farthest-first picks of `candidates` `[N, D]` from `centres` `[M, D]`; each pick becomes a centre."""
    picks: list[int] = []
    for _ in range(count):
        all_centres = torch.cat([centres, candidates[picks]])
        nearest = torch.cdist(candidates, all_centres).amin(dim=1)
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    return picks
