"""PEBBLE as the literature's programs run it: one process, one environment, everything in series.

Act, step, score the new transition, update, again. Exploration's reward compares each batch with all visited states by
broadcast differences, at every update. A session draws candidates, asks each member about them, fits member by member
with both segments in passes of their own, and relabels the replay 200 rows at a time, in the order published programs
do it (Lee et al. 2021, arXiv 2106.05091; B-Pref, arXiv 2111.03026). The update is `reference_sac.PlainSac`, the replay
its tensors: the same as `bench learner`'s reference.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayrlhf.bench.reference_reward import Weights, member_networks
from rayrlhf.bench.reference_sac import PlainLoop, PlainSac, TensorReplay
from rayrlhf.config import RewardOptions, SacOptions
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.preferences.fragments import Floats

RELABEL_ROWS = 200
STATES_PER_PASS = 500
PARTS = ("env", "act", "score", "update")


class SeriesLoop:
    """Environment, acting, scoring and update in series, and the seconds each part took."""

    def __init__(
        self,
        env: VectorEnv,
        sac: SacOptions,
        networks: Sequence[nn.Module],
        replay: TensorReplay,
        *,
        filled: int,
        neighbours: int = 0,
    ) -> None:
        """`filled` rows of `replay` are there; with `neighbours` the reward is state entropy's, else the networks'."""
        self._env, self._networks, self._neighbours = env, networks, neighbours
        self._loop = PlainLoop(PlainSac(env.spec.obs_dim, env.spec.action_dim, sac), replay)
        self._rows, self._steps, self._owed = filled, 0, 0.0
        self._obs = env.reset([0])
        self._distances = RunningStd()
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def steps(self, count: int) -> float:
        """`count` environment steps with the updates they are owed."""
        for _ in range(count):
            self._step()
        return float(count)

    def _step(self) -> None:
        with self._timed("act"):
            action = self._act()
        with self._timed("env"):
            step = self._env.step(action)
        with self._timed("score"):
            reward = 0.0 if self._neighbours else self._score(action)
        self._store(action, reward, step.next_obs, float(step.terminated[0]))
        self._obs = step.obs
        self._owed += self._loop.sac.options.updates_per_step
        with self._timed("update"):
            while self._owed >= 1:
                self._update()
                self._owed -= 1

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begin

    def _act(self) -> Floats:
        with torch.no_grad():
            noise = torch.randn(1, self._loop.sac.action_dim)
            action: Floats = self._loop.sac.sample(torch.from_numpy(self._obs), noise)[0].numpy()
        return action

    def _score(self, action: Floats) -> float:
        """The members' mean reward of the transition, each asked in turn."""
        with torch.no_grad():
            x = torch.from_numpy(np.concatenate([self._obs, action], axis=-1))
            return float(np.mean([network(x).item() for network in self._networks]))

    def _store(self, action: Floats, reward: float, next_obs: Floats, done: float) -> None:
        replay, row = self._loop.replay, self._rows % len(self._loop.replay.obs)
        replay.obs[row] = torch.from_numpy(self._obs[0])
        replay.action[row] = torch.from_numpy(action[0])
        replay.next_obs[row] = torch.from_numpy(next_obs[0])
        replay.reward[row], replay.done[row] = reward, done
        self._rows += 1

    def _update(self) -> None:
        size = min(self._rows, len(self._loop.replay.obs))
        batch = self._loop.replay.take(self._loop.draw(size))
        if self._neighbours:
            distance = kth_neighbour(batch.obs, self._loop.replay.obs[:size], self._neighbours)
            batch = TensorReplay(
                batch.obs, batch.action, self._distances.standardised(distance), batch.next_obs, batch.done
            )
        self._loop.sac.update(batch, *self._loop.noise())


@torch.no_grad()
def kth_neighbour(obs: Tensor, visited: Tensor, k: int) -> Tensor:
    """Distance `[B]` of `obs` `[B, O]` to the k-th nearest other of `visited` `[M, O]`, by broadcast differences."""
    parts = []
    for some in torch.split(visited, STATES_PER_PASS):
        parts.append(torch.norm(obs[:, None, :] - some[None, :, :], dim=-1, p=2))
    distance: Tensor = torch.kthvalue(torch.cat(parts, dim=1), k=k + 1, dim=1).values  # the nearest is the state itself
    return distance


class RunningStd:
    """Standard deviation of all distances so far."""

    def __init__(self) -> None:
        self._count, self._mean, self._square = 0, 0.0, 0.0

    def standardised(self, distance: Tensor) -> Tensor:
        """`distance` `[B]`, taken in and divided by the deviation."""
        count, mean = len(distance), float(distance.mean())
        delta, total = mean - self._mean, self._count + count
        self._square += float((distance - mean).square().sum()) + delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = total
        scaled: Tensor = distance / max((self._square / total) ** 0.5, 1e-6)
        return scaled


class SeriesSession:
    """Query, fit and relabel in one thread. `rows` `[M, D]` are the replay's inputs, `rewards` `[M]` its column."""

    def __init__(
        self, options: RewardOptions, weights: Weights, rows: Floats, episodes: Sequence[Floats], *, length: int
    ) -> None:
        """`episodes` `[L, D + 1]` each: inputs, and the true reward in the last column."""
        self._options, self._rows, self._episodes, self._length = options, rows, episodes, length
        self._networks = member_networks(options, weights)
        parameters = [parameter for network in self._networks for parameter in network.parameters()]
        self._optimizer = torch.optim.Adam(parameters, options.lr)
        self._rng = np.random.default_rng(0)
        width = rows.shape[1]
        self._left = self._right = np.zeros((0, length, width), np.float32)
        self._target = np.zeros(0, np.int64)
        self.rewards = np.zeros(len(rows), np.float32)

    def hold(self, count: int, candidates: int) -> float:
        """One session of `count` labels; returns 1."""
        self.ask(count, candidates)
        self.fit()
        self.relabel()
        return 1.0

    def ask(self, count: int, candidates: int) -> None:
        """Chooses by disagreement among `count * candidates` pairs and takes the oracle's answers."""
        left, right = self._draw(count * candidates), self._draw(count * candidates)
        chance = np.stack([self._preference(network, left, right) for network in self._networks])
        best = np.argsort(-chance.std(axis=0))[:count]
        better = right[best][..., -1].sum(1) > left[best][..., -1].sum(1)
        self._left = np.concatenate([self._left, left[best][..., :-1]])
        self._right = np.concatenate([self._right, right[best][..., :-1]])
        self._target = np.concatenate([self._target, better.astype(np.int64)])

    def _draw(self, count: int) -> Floats:
        """Random segments `[count, T, D + 1]`."""
        segments = []
        for which in self._rng.integers(len(self._episodes), size=count):
            episode = self._episodes[which]
            start = self._rng.integers(len(episode) - self._length + 1)
            segments.append(episode[start : start + self._length])
        return np.stack(segments)

    @torch.no_grad()
    def _preference(self, network: nn.Module, left: Floats, right: Floats) -> NDArray[np.float32]:
        sums = [network(torch.from_numpy(side[..., :-1].copy())).sum(dim=1) for side in (left, right)]
        chance: NDArray[np.float32] = torch.softmax(torch.cat(sums, dim=-1), dim=-1)[:, 1].numpy()
        return chance

    def fit(self) -> None:
        """`options.epochs` passes over all labels."""
        count, batch = len(self._target), self._options.batch_size
        for _ in range(self._options.epochs):
            orders = [self._rng.permutation(count) for _ in self._networks]
            for start in range(0, count, batch):
                self._optimizer.zero_grad()
                loss: Any = 0.0
                for network, order in zip(self._networks, orders, strict=True):
                    loss = loss + self._member_loss(network, order[start : start + batch])
                loss.backward()
                self._optimizer.step()

    def _member_loss(self, network: nn.Module, index: NDArray[np.int64]) -> Tensor:
        sums = [network(torch.from_numpy(side[index])).sum(dim=1) for side in (self._left, self._right)]
        target = torch.from_numpy(self._target[index])
        return nn.functional.cross_entropy(torch.cat(sums, dim=-1), target)

    def relabel(self) -> None:
        """The whole replay, 200 rows at a time, each member in turn."""
        for start in range(0, len(self._rows), RELABEL_ROWS):
            x = torch.from_numpy(self._rows[start : start + RELABEL_ROWS])
            members = [network(x).detach().numpy() for network in self._networks]
            self.rewards[start : start + RELABEL_ROWS] = np.mean(members, axis=0)[:, 0]
