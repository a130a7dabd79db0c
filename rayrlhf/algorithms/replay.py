"""The replay that lives with a learner: preallocated columns on its device, the reward one of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.algorithms.collector import environment_of
from rayrlhf.policies import Batch
from rayrlhf.preferences.fragments import Fragment

COLUMNS = ("obs", "action", "next_obs", "true_reward", "terminated")
"""What never changes once written. `reward` is recomputed after every fit and kept apart."""
PLACES = ("episode", "step")
"""Further columns of a replay whose returns span several steps."""


@dataclass(frozen=True)
class Rows:
    """`M` transitions ready for insertion, as tensors on any device.

    episode, step: as in a fragment; for a replay whose returns span several steps
    """

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    true_reward: Tensor
    terminated: Tensor
    episode: Tensor | None = None
    step: Tensor | None = None

    def to(self, device: torch.device) -> "Rows":
        """The same rows on `device`."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Rows(**{name: column.to(device) for name, column in columns.items() if column is not None})

    @staticmethod
    def from_fragment(fragment: Fragment, *, places: bool = False) -> "Rows":
        """The fragment's transitions, environment after environment within a step; with episode and step if asked."""

        def flat(column: NDArray[np.generic], kind: type = np.float32) -> Tensor:
            # [T, N, ...] -> [T * N, ...]; a read-only view of the object store is copied
            merged: NDArray[Any] = column.reshape(-1, *column.shape[2:]).astype(kind)
            return torch.from_numpy(merged)

        return Rows(
            flat(fragment.obs),
            flat(fragment.action),
            flat(fragment.next_obs),
            flat(fragment.reward),
            flat(fragment.terminated),
            *((flat(fragment.episode, np.int64), flat(fragment.step, np.int64)) if places else ()),
        )


class Replay:
    """A ring of transitions. `inserted` counts all rows ever written, `size` those that can be drawn.

    With `n_step` above 1 it knows which row follows which, and draws returns of several steps. With `weights` `[P]`
    a reward has as many parts, of which they make one number when it is drawn: they may change without a relabelling.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        *,
        n_step: int = 1,
        gamma: float = 1.0,
        weights: Tensor | None = None,
    ) -> None:
        self.capacity, self.n_step, self.gamma, self.weights = capacity, n_step, gamma, weights
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
        if n_step > 1:
            places = {name: torch.full((capacity,), -1, dtype=torch.int64, device=self.device) for name in PLACES}
            self.columns |= places
        parts = () if weights is None else weights.shape
        self.reward = torch.zeros((capacity, *parts), dtype=torch.float32, device=self.device)
        self.successor = torch.full((capacity if n_step > 1 else 0,), -1, dtype=torch.int64, device=self.device)
        """Where the next transition of the same episode lies; -1 where it has not come, or not to this replay."""
        self._newest: dict[int, tuple[int, int, int]] = {}
        """By environment: episode, step and number of its newest row."""
        self.saved: dict[tuple[str, int], Any] = {}
        """By folder and chunk number: the files this replay wrote or came from (`shards.py`)."""

    @property
    def size(self) -> int:
        """Rows that can be drawn."""
        return min(self.inserted, self.capacity)

    def insert(self, rows: Rows, reward: Tensor) -> tuple[int, int]:
        """Writes `M` rows with their rewards `[M]` or `[M, P]`; returns where the first went and how many there are.

        More rows than the capacity raise ValueError: they would overwrite each other.
        """
        count = len(reward)
        if count > self.capacity:
            raise ValueError(f"{count} rows do not fit a replay of {self.capacity}")
        start = self.inserted % self.capacity
        head = min(count, self.capacity - start)
        if self.n_step > 1 and rows.episode is None:  # nothing follows them
            nowhere = torch.full((count,), -1, dtype=torch.int64, device=self.device)
            rows = replace(rows, episode=nowhere, step=nowhere)
        for name, column in self.columns.items():
            _write(column, start, head, getattr(rows, name))
        _write(self.reward, start, head, self._parts_of(reward))
        self.inserted += count
        if self.n_step > 1:
            self._connect(start, rows)
        return start, count

    def _parts_of(self, reward: Tensor) -> Tensor:
        """`reward` `[M]` or `[M, Q]` with as many parts as the rewards here: zeros in those that it lacks."""
        if self.weights is None:
            return reward if reward.ndim == 1 else reward[:, 0]
        missing = len(self.weights) - (1 if reward.ndim == 1 else reward.shape[1])
        return torch.nn.functional.pad(reward[:, None] if reward.ndim == 1 else reward, (0, missing))

    def _connect(self, start: int, rows: Rows) -> None:
        """Notes which rows the newest ones, from the slot `start` on, follow: each other, and those that were there."""
        assert rows.episode is not None and rows.step is not None
        episode, step = rows.episode.cpu().numpy(), rows.step.cpu().numpy()
        slots = (start + np.arange(len(step))) % self.capacity
        order = np.lexsort((step, episode))
        one, other = order[:-1], order[1:]
        same = episode[one] == episode[other]
        found = np.full(len(step), -1)
        follows = same & (step[one] + 1 == step[other])
        found[one[follows]] = slots[other[follows]]
        self.successor[torch.from_numpy(slots).to(self.device)] = torch.from_numpy(found).to(self.device)
        first, last = order[np.append(True, ~same)], order[np.append(~same, True)]
        oldest, begin = self.inserted - self.size, self.inserted - len(step)
        for head, tail in zip(first.tolist(), last.tolist(), strict=True):
            environment, number = environment_of(int(episode[head])), begin + head
            former = self._newest.get(environment)
            if former is not None and former[:2] == (episode[head], step[head] - 1) and former[2] >= oldest:
                self.successor[former[2] % self.capacity] = number % self.capacity
            self._newest[environment] = (int(episode[tail]), int(step[tail]), begin + tail)

    def gather(self, index: Tensor, reward: Tensor | None = None) -> Batch:
        """The rows at `index` `[B]`, with `reward` `[B]` in place of the reward column where it is given.

        Else each with the discounted sum of up to `n_step` rewards from there on, as far as its episode is here.
        """
        if self.n_step > 1 and reward is None:
            return self._gather_returns(index)
        take = {name: self.columns[name].index_select(0, index) for name in COLUMNS if name != "true_reward"}
        return Batch(reward=self._rewards(index) if reward is None else reward, **take)

    def _rewards(self, index: Tensor) -> Tensor:
        """The rewards `[B]` of the rows at `index` `[B]`."""
        found = self.reward.index_select(0, index)
        return found if self.weights is None else found @ self.weights

    def _gather_returns(self, index: Tensor) -> Batch:
        columns, last, going_on = self.columns, index, torch.ones_like(index, dtype=torch.bool)
        total = self._rewards(index)
        discount = torch.full_like(total, self.gamma)
        for _ in range(self.n_step - 1):
            following = self.successor[last]
            going_on = going_on & (following >= 0)
            last = torch.where(going_on, following, last)
            total = total + torch.where(going_on, discount * self._rewards(last), torch.zeros_like(total))
            discount = torch.where(going_on, discount * self.gamma, discount)
        return Batch(
            obs=columns["obs"][index],
            action=columns["action"][index],
            reward=total,
            next_obs=columns["next_obs"][last],
            terminated=columns["terminated"][last],
            discount=discount,
        )

    def relabel(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Recomputes the whole reward column as `score(obs [M, O], action [M, A]) -> [M]`, or `[M, P]`."""
        rows = slice(0, self.size)
        if self.size:
            self.reward[rows] = score(self.columns["obs"][rows], self.columns["action"][rows])

    def use_true_reward(self) -> None:
        """Oracle mode: the environment's own reward becomes the reward."""
        true = self.columns["true_reward"][: self.size]
        self.reward[: self.size] = self._parts_of(true)


def _write(column: Tensor, start: int, head: int, values: Tensor) -> None:
    column[start : start + head].copy_(values[:head])
    if head < len(values):
        column[: len(values) - head].copy_(values[head:])
