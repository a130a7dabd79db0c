"""PrefPPO's learner: an iteration's fragments are rewarded, turned into advantages, learnt from, and forgotten."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.algorithms.files import Arrays, Files
from rayrlhf.algorithms.graphs import GraphedUpdate
from rayrlhf.algorithms.learner import PreferenceLearner
from rayrlhf.algorithms.shards import ShardEntry
from rayrlhf.policies import PpoNetworks, PpoUpdate
from rayrlhf.policies.ppo import Rows, advantages, standardised
from rayrlhf.preferences.fragments import Fragment

KL_COEFFICIENT = "kl_coefficient"
"""Its name among a checkpoint's arrays."""


class PrefPpoLearner(PreferenceLearner):
    """The networks, and the fragments of the iteration that is to be learnt from."""

    update_step: PpoUpdate

    def build(self) -> None:
        """Builds networks and optimiser."""
        super().build()
        self.batch_size = self.run.ppo.batch_size // self.learners
        self._fragments: list[Fragment] = []
        # what a step reads and adds to stays in place: a graph holds the addresses
        self._rows: Rows | None = None
        self._index = torch.zeros(self.batch_size, dtype=torch.int64, device=self._device)
        self._clip = torch.zeros((), device=self._device)
        self._sums = torch.zeros(len(PpoUpdate.MEASURES), dtype=torch.float64, device=self._device)

    def _make_update(self, networks: PpoNetworks, average: Any) -> PpoUpdate:
        parts = self.run.resources.gradient_parts
        return PpoUpdate(networks, self.run.ppo, average=average, learners=self.learners, parts=parts)

    # --- what the driver asks for ---

    def _insert(self, fragment: Fragment) -> None:
        self._fragments.append(fragment)

    def learn(self, epochs: int, batches: int, clip: float, env_steps: int = 0) -> dict[str, float]:
        """One iteration: `epochs` passes of `batches` minibatches each, in another order every time.

        All learners are told the same number of minibatches; what a pass leaves out the next may take. The statistics
        of observations move afterwards. Without an epoch, nothing else does.
        `env_steps` are the run's so far: the weight of a bonus falls with them.
        """
        if not epochs:
            self._observe(self._column("obs"))
            self._fragments = []
            return {}
        self._weigh_bonus(env_steps)
        seen, rows = self._take_rows()
        self._hold(rows)
        self._clip.fill_(clip)
        self._sums.zero_()
        for _ in range(epochs):
            order = torch.randperm(len(rows.advantage), generator=self.generator, device=self._device)
            for start in range(0, batches * self.batch_size, self.batch_size):
                self._index.copy_(order[start : start + self.batch_size])
                self._one_step()
        steps = epochs * batches
        self.updates += steps
        sums = self._sums / steps
        if self.learners > 1:
            self._average([sums])
        means = dict(zip(PpoUpdate.MEASURES, sums.tolist(), strict=True))
        self._finite(means, self.updates)
        if self.run.ppo.kl_coefficient:
            self.update_step.adapt(means["kl"])
            means[KL_COEFFICIENT] = float(self.update_step.kl_coefficient)
        self._observe(seen)
        return means | {"learned_reward": float(self._mean_reward)}

    def _one_step(self) -> None:
        if not self._graphed:
            self._step()
            return
        if self._graphs is None:
            self._graphs = GraphedUpdate(lambda _: self._step(), self.generator)
        self._graphs(False)

    def _step(self) -> None:
        assert self._rows is not None
        self._sums += self.update_step(self._rows.take(self._index), clip=self._clip)

    def _hold(self, rows: Rows) -> None:
        if self._rows is None or len(self._rows.advantage) != len(rows.advantage):
            self._rows, self._graphs = rows, None
        else:
            self._rows.copy_(rows)

    @torch.no_grad()
    def _take_rows(self) -> tuple[Tensor, Rows]:
        """The observations `[T, N, O]` of what was inserted, and its rows; nothing is left."""
        column = self._column
        obs, next_obs, terminated = column("obs"), column("next_obs"), column("terminated")
        reward = self._rewards(obs, column("action"), column("reward"))
        self._mean_reward = reward.mean()
        networks: PpoNetworks = self.networks
        seen = self._as_seen(obs)
        value = networks.value(seen)
        done = torch.maximum(terminated, column("truncated"))
        last = done.bool()
        last[-1] = True
        next_value = torch.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[last] = networks.value(self._as_seen(next_obs)[last])
        ppo = self.run.ppo
        advantage = advantages(reward, value, next_value, terminated, done, gamma=ppo.gamma, lam=ppo.gae_lambda)
        parts = seen, column("raw_action"), column("log_prob"), advantage, advantage + value
        self._fragments = []
        return obs, Rows(*(part.flatten(0, 1) for part in parts))

    def _as_seen(self, obs: Tensor) -> Tensor:
        """`[T, N, O]` standardised as each fragment's policy did: against it the ratio is taken.

        In the asynchronous mode that is not the newest one. Fragments that do not tell are taken to be its own.
        """
        columns = []
        for fragment in self._fragments:
            if fragment.standard is None:
                seen: Tensor = self.networks.actor.standardise(obs)
                return seen
            columns.append(np.repeat(fragment.standard[:, None], fragment.reward.shape[1], axis=1))
        mean, std = torch.from_numpy(np.concatenate(columns, axis=1)).to(self._device)  # [N, O] each
        return standardised(obs, mean, std)

    def _column(self, name: str) -> Tensor:
        """`[T, N, ...]` of all fragments, side by side, as float32."""
        joined = np.concatenate([getattr(fragment, name) for fragment in self._fragments], axis=1)
        return torch.from_numpy(joined.astype(np.float32, copy=False)).to(self._device)

    def _rewards(self, obs: Tensor, action: Tensor, true: Tensor) -> Tensor:
        """`[T, N]` of transitions `[T, N, ...]`: actions are those that the environments executed."""
        if self.source == "true":
            return true
        flat = obs.flatten(0, 1)
        if self.source == "ensemble":
            reward = self._learned_reward(flat, action.flatten(0, 1))
            return (reward if self.bonus is None or reward.ndim == 1 else reward @ self.bonus).view_as(true)
        if self.entropy is None:
            return torch.zeros_like(true)
        before = len(self.entropy)
        self._add_states(flat)
        return self.entropy.reward(torch.arange(before, len(self.entropy), device=self._device)).view_as(true)

    def _observe(self, obs: Tensor) -> None:
        """Takes observations `[..., O]` into the statistics, and those of the other learners."""
        moments = self.networks.actor.moments
        if moments is None:
            return
        rows = obs.flatten(0, -2).double()
        mean = rows.mean(0)
        whole = torch.stack([torch.full_like(mean, len(rows)), mean, (rows - mean).square().sum(0)])
        shares = [whole]
        if self.learners > 1:
            shares = [torch.empty_like(whole) for _ in range(self.learners)]
            torch.distributed.all_gather(shares, whole)
        for count, mean, square in shares:  # in one order, so that they stay equal to the last digit
            moments.merge(count[0], mean, square)

    # --- checkpoints ---

    def arrays(self) -> Arrays:
        """Networks with the statistics of observations, the optimiser, the penalty's weight at the start and now."""
        weights = [self.run.ppo.kl_coefficient, float(self.update_step.kl_coefficient)]
        return super().arrays() | {KL_COEFFICIENT: np.array(weights)}

    def load_arrays(self, flat: Arrays, same_run: bool = True) -> None:
        """The reverse of `arrays`; the penalty's weight begins anew where the run, or its option, is another."""
        super().load_arrays(flat, same_run)
        begun_with, weight = flat[KL_COEFFICIENT].tolist()
        if same_run and begun_with == self.run.ppo.kl_coefficient:
            self.update_step.kl_coefficient.fill_(weight)

    def _save_rows(self, rows: Files) -> tuple[ShardEntry, Arrays]:
        """None: a checkpoint is made between two iterations."""
        return ShardEntry(index=self._learner_index, first=0, inserted=0, chunks=[]), {}

    def _load_rows(self, rows: Files, entries: list[ShardEntry], states: list[Arrays], share: slice) -> None:
        self._fragments = []

    def _entropy_anew(self, states: list[NDArray[np.float32]], share: slice) -> None:
        if self.entropy is not None and states:  # what a shard saved
            self.entropy.add(torch.from_numpy(np.concatenate(states)[share]))
