"""Questions far from each other and from those already answered (Sener & Savarese 2018, as B-Pref uses it)."""

import torch
from torch import Tensor

CENTRES_PER_BLOCK = 1024
"""Centres compared at once: bounds the memory of the distance block."""
MOST_AT_ONCE = 8192
"""Candidates of which all pairs' products are held at once (float64: 512 MB)."""
TIE = 1e-12
"""Squared distances closer than this, relative to the largest squared length of a vector, are tied."""


def k_center(candidates: Tensor, centres: Tensor, count: int) -> Tensor:
    """Greedy farthest-first: each pick is the candidate farthest (L2) from all centres and earlier picks.

    Keeps every candidate's distance to its nearest centre and lowers it by each pick, O(N (M + count) D) in all
    instead of O(N (M + count) D) per pick. Products run in float64: there `|x|^2 + |y|^2 - 2xy` loses nothing that
    float32 observations hold, while in float32 it confuses segments that differ little.

    Args:
        candidates: `[N, D]`
        centres: `[M, D]`; without any (M = 0) the first pick is candidate 0.
        count: picks, at most `N`.

    Returns:
        `[count]` int64 indices of candidates in the order they were picked, no index twice; on ties the lowest.
    """
    if candidates.ndim != 2 or centres.ndim != 2 or candidates.shape[1] != centres.shape[1]:
        raise ValueError(
            f"candidates {list(candidates.shape)} and centres {list(centres.shape)} must be [N, D], [M, D]"
        )
    if not 0 <= count <= len(candidates):
        raise ValueError(f"cannot pick {count} of {len(candidates)} candidates")
    points = candidates.double()
    length = points.square().sum(dim=1)  # [N]
    nearest = torch.full_like(length, torch.inf)
    for first in range(0, len(centres), CENTRES_PER_BLOCK):
        block = centres[first : first + CENTRES_PER_BLOCK].double()
        nearest = torch.minimum(nearest, _nearest_squared(points, length, block))
    products = _Products(points, count)
    length, nearest = length.to(products.device), nearest.to(products.device)
    tolerance = TIE * length.amax() if count else length.new_zeros(())
    picks = torch.empty(count, dtype=torch.int64, device=products.device)
    for turn in range(count):
        pick = (nearest >= nearest.amax() - tolerance).to(torch.uint8).argmax()  # the first of the farthest
        picks[turn] = pick
        nearest = torch.minimum(nearest, length + length[pick] - 2.0 * products.of(pick))
        nearest[picks[: turn + 1]] = -torch.inf  # a duplicate of a pick may follow it, the pick itself may not
    return picks.to(candidates.device)


class _Products:
    """Inner products of all points with one of them.

    On a GPU all are computed at once and the picking goes on beside the CPU: a pick is a chain of small steps, each
    of which would wait for a launch.
    """

    def __init__(self, points: Tensor, count: int) -> None:
        at_once = _pays_at_once(points, count)
        self._points = points
        self._all = (points @ points.T).cpu() if at_once else None
        self.device = torch.device("cpu") if at_once else points.device

    def of(self, pick: Tensor) -> Tensor:
        """`[N]`."""
        return self._points @ self._points[pick] if self._all is None else self._all[pick]


def _nearest_squared(points: Tensor, length: Tensor, centres: Tensor) -> Tensor:
    """Squared distance of each of `points` `[N, D]`, squared lengths `[N]`, to the nearest of `centres` `[M, D]`."""
    return length + torch.addmm(centres.square().sum(dim=1), points, centres.T, alpha=-2.0).amin(dim=1)


def _pays_at_once(points: Tensor, count: int) -> bool:
    return points.is_cuda and count > 1 and len(points) <= MOST_AT_ONCE
