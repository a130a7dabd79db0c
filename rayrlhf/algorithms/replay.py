"""The replay that lives with a learner: preallocated columns on its device, the reward one of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.policies import Batch
from rayrlhf.preferences.fragments import Fragment

COLUMNS = ("obs", "action", "next_obs", "true_reward", "terminated")
"""What never changes once written. `reward` is recomputed after every fit and kept apart."""


@dataclass(frozen=True)
class Rows:
    """`M` transitions ready for insertion, as tensors on any device."""

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    true_reward: Tensor
    terminated: Tensor

    def to(self, device: torch.device) -> "Rows":
        """The same rows on `device`."""
        return Rows(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @staticmethod
    def from_fragment(fragment: Fragment) -> "Rows":
        """The fragment's transitions, environment after environment within a step."""

        def flat(column: NDArray[np.generic]) -> Tensor:
            # [T, N, ...] -> [T * N, ...]; a read-only view of the object store is copied
            merged = column.reshape(-1, *column.shape[2:]).astype(np.float32)
            return torch.from_numpy(merged)

        return Rows(
            flat(fragment.obs),
            flat(fragment.action),
            flat(fragment.next_obs),
            flat(fragment.reward),
            flat(fragment.terminated),
        )


class Replay:
    """A ring of transitions. `inserted` counts all rows ever written, `size` those that can be drawn."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.inserted = 0
        self.device = torch.device(device)
        widths = {
            "obs": (obs_dim,),
            "action": (action_dim,),
            "next_obs": (obs_dim,),
            "true_reward": (),
            "terminated": (),
        }
        self.columns = {
            name: torch.empty((capacity, *width), dtype=torch.float32, device=self.device)
            for name, width in widths.items()
        }
        self.reward = torch.zeros(capacity, dtype=torch.float32, device=self.device)
        self.saved: dict[tuple[str, int], Any] = {}
        """By folder and chunk number: the files this replay wrote or came from (`shards.py`)."""

    @property
    def size(self) -> int:
        """Rows that can be drawn."""
        return min(self.inserted, self.capacity)

    def insert(self, rows: Rows, reward: Tensor) -> tuple[int, int]:
        """Writes `M` rows with their rewards `[M]`; returns where the first went and how many there are.

        More rows than the capacity raise ValueError: they would overwrite each other.
        """
        count = len(reward)
        if count > self.capacity:
            raise ValueError(f"{count} rows do not fit a replay of {self.capacity}")
        start = self.inserted % self.capacity
        head = min(count, self.capacity - start)
        for name, column in self.columns.items():
            _write(column, start, head, getattr(rows, name))
        _write(self.reward, start, head, reward)
        self.inserted += count
        return start, count

    def gather(self, index: Tensor, reward: Tensor | None = None) -> Batch:
        """The rows at `index` `[B]`, with `reward` `[B]` in place of the reward column where it is given."""
        take = {name: column.index_select(0, index) for name, column in self.columns.items() if name != "true_reward"}
        return Batch(reward=self.reward.index_select(0, index) if reward is None else reward, **take)

    def relabel(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Recomputes the whole reward column as `score(obs [M, O], action [M, A]) -> [M]`."""
        rows = slice(0, self.size)
        if self.size:
            self.reward[rows] = score(self.columns["obs"][rows], self.columns["action"][rows])

    def use_true_reward(self) -> None:
        """Oracle mode: the environment's own reward becomes the reward."""
        self.reward[: self.size] = self.columns["true_reward"][: self.size]


def _write(column: Tensor, start: int, head: int, values: Tensor) -> None:
    column[start : start + head].copy_(values[:head])
    if head < len(values):
        column[: len(values) - head].copy_(values[head:])
