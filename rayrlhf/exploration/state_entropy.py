"""PEBBLE's reward before the first question: states far from all visited ones are worth visiting (arXiv 2106.05091).

The usual code compares each batch with the whole buffer at every update. Here each stored state keeps the distances to
its `k` nearest neighbours, and a new state is compared with the stored ones once, when it comes: `m` new states among
`n` cost `m n` distances once, and a batch of rewards afterwards costs a gather.
"""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.rewards.running import RunningMoments

DISTANCES_PER_BLOCK = 1 << 20
"""Distances computed at once (4 MB): bounds memory and stays in the processor's cache."""
FIRST_ROWS = 1024
"""Rows allocated at first; doubled when full."""
GROUP = 32
"""Columns per group in the search for a row's smallest values."""
MIN_RELATIVE_STD = 1e-6
"""Below this part of the mean the distances do not differ, and are not divided by their deviation."""

MOMENTS = "moments."
"""Prefix of the running statistics' names in a saved state."""


class StateEntropy:
    """Distance of every stored state to its k-th nearest neighbour, kept up to date as states come.

    Distances are float32 sums of squared differences, not `|x|^2 + |y|^2 - 2xy`, which loses the small distances
    between successive robot states to cancellation. The values equal a brute-force search bit for bit. A state is not
    its own neighbour; another state with the same observation is one, at distance 0. With only `n <= k` states the
    farthest of the `n - 1` others stands for the k-th, and 0 where there is no other.

    Row `i` is the `i`-th state added, for good: `index` counts arrivals.
    """

    def __init__(self, obs_dim: int, k: int, *, capacity: int, device: torch.device | str = "cpu") -> None:
        """Makes an empty set.

        Args:
            obs_dim: width `O` of an observation.
            k: which neighbour counts; PEBBLE uses 5.
            capacity: states that may be added in all; memory is taken as they come.
            device: where distances are computed and kept.
        """
        if min(obs_dim, k, capacity) <= 0:
            raise ValueError(f"obs_dim {obs_dim}, k {k} and capacity {capacity} must be above zero")
        self.k = k
        self.capacity = capacity
        self._count = 0
        rows = min(FIRST_ROWS, capacity)
        self._obs = torch.zeros(rows, obs_dim, device=device)
        self._nearest = torch.full((rows, k), torch.inf, device=device)  # ascending; inf where there are fewer
        self._moments = RunningMoments(device=device)

    def __len__(self) -> int:
        return self._count

    @torch.no_grad()
    def add(self, obs: Tensor) -> None:
        """Stores states `[m, O]` and updates all neighbour lists.

        Raises:
            ValueError: wrong width, or more states than the capacity.
        """
        if obs.ndim != 2 or obs.shape[1] != self._obs.shape[1]:
            raise ValueError(f"states must be [m, {self._obs.shape[1]}], not {list(obs.shape)}")
        if self._count + len(obs) > self.capacity:
            raise ValueError(f"{self._count} + {len(obs)} states exceed the capacity of {self.capacity}")
        obs = obs.to(self._obs)
        self._reserve(self._count + len(obs))
        while len(obs):
            rows = max(1, min(FIRST_ROWS, DISTANCES_PER_BLOCK // max(1, self._count)))
            self._add_block(obs[:rows])
            obs = obs[rows:]

    @torch.no_grad()
    def distance(self, index: Tensor) -> Tensor:
        """Distance of the states `index` (any shape) to their k-th nearest neighbour among all stored now."""
        if self._neighbours < 1:
            return torch.zeros_like(index, dtype=torch.float32)
        column = self._nearest[:, self._neighbours - 1]
        # whole on a GPU: what a graph captures must hold for states to come
        return column[index] if column.is_cuda else column[: self._count][index]

    @torch.no_grad()
    def reward(self, index: Tensor) -> Tensor:
        """Distances of `index` (any shape) over their running standard deviation, which takes them in first."""
        distance = self.distance(index)
        self._moments.update(distance.flatten())
        std = self._moments.std
        scale = torch.where(std > MIN_RELATIVE_STD * self._moments.mean, std, torch.ones_like(std))
        return (distance / scale).float()

    @property
    def _neighbours(self) -> int:
        """Which neighbour counts now."""
        return min(self.k, self._count - 1)

    @property
    def layout(self) -> tuple[int, int, int]:
        """Where the lists lie, how many, and which column counts: a captured `reward` holds as long as this stays."""
        return self._nearest.data_ptr(), len(self._nearest), self._neighbours

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything as flat arrays, on the CPU."""
        arrays = {"obs": self._obs[: self._count], "nearest": self._nearest[: self._count]}
        moments = {MOMENTS + name: value for name, value in self._moments.state().items()}
        return {name: value.cpu().numpy().copy() for name, value in (arrays | moments).items()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restores what `state` gave; afterwards all values are equal bit for bit.

        Raises:
            ValueError: the state is of another width, another `k`, or larger than the capacity.
        """
        obs, nearest = torch.from_numpy(state["obs"]), torch.from_numpy(state["nearest"])
        if obs.shape[1:] != self._obs.shape[1:] or nearest.shape != (len(obs), self.k) or len(obs) > self.capacity:
            raise ValueError(
                f"stored states {list(obs.shape)} with lists {list(nearest.shape)} do not fit "
                f"width {self._obs.shape[1]}, k {self.k} and capacity {self.capacity}"
            )
        self._count = 0
        self._reserve(len(obs))
        self._count = len(obs)
        self._obs[: self._count] = obs.to(self._obs)
        self._nearest[: self._count] = nearest.to(self._nearest)
        moments = {name.removeprefix(MOMENTS): value for name, value in state.items() if name.startswith(MOMENTS)}
        self._moments.load_state({name: torch.from_numpy(value) for name, value in moments.items()})

    def _reserve(self, rows: int) -> None:
        """Makes room for `rows` states, doubling so that growth costs little in all."""
        have = len(self._obs)
        if rows <= have:
            return
        more = min(max(rows, 2 * have), self.capacity) - have
        self._obs = torch.cat([self._obs, self._obs.new_zeros(more, self._obs.shape[1])])
        self._nearest = torch.cat([self._nearest, self._nearest.new_full((more, self.k), torch.inf)])

    def _add_block(self, obs: Tensor) -> None:
        """Stores `obs` `[m, O]`, few enough that `[m, n + m]` distances fit one block."""
        old, new = self._count, self._count + len(obs)
        self._obs[old:new] = obs
        distance = _distances(obs, self._obs[:new])  # [m, n + m]
        distance[:, old:].fill_diagonal_(torch.inf)
        self._nearest[old:new] = _smallest(distance, self.k)
        self._merge(distance[:, :old])
        self._count = new

    def _merge(self, distance: Tensor) -> None:
        """Lets new states, at `distance` `[m, n]` from the `n` oldest rows, into those rows' lists."""
        nearest = self._nearest[: distance.shape[1]]
        closer = (distance < nearest[:, -1]).any(dim=0).nonzero().squeeze(1)
        both = torch.cat([nearest[closer], distance[:, closer].T], dim=1)  # [c, k + m]
        nearest[closer] = both.topk(self.k, dim=1, largest=False).values


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """Euclidean distances `[m, n]` of `left` `[m, O]` to `right` `[n, O]`, from differences."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


def _smallest(values: Tensor, k: int) -> Tensor:
    """The `k` smallest of each row of `[m, n]`, ascending, `[m, k]`; inf where a row has fewer.

    They lie in the `k` groups of columns with the smallest minima, which is a far shorter search than the row.
    """
    missing = k - values.shape[1]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=torch.inf)
    groups = values.shape[1] // GROUP
    if groups > 4 * k:
        whole = values[:, : groups * GROUP].view(len(values), groups, GROUP)
        best = whole.amin(dim=2).topk(k, dim=1, largest=False).indices  # [m, k] groups
        kept = whole.gather(1, best[:, :, None].expand(-1, -1, GROUP)).flatten(1)
        values = torch.cat([kept, values[:, groups * GROUP :]], dim=1)
    return values.topk(k, dim=1, largest=False).values
