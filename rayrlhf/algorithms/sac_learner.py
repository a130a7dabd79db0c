"""PEBBLE's learner: SAC updates on a replay of its own, relabelled by the reward ensemble's weights.

Rows are inserted, relabelled, drawn and learnt from without leaving this process.
"""

from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf import seeding
from rayrlhf.algorithms.files import Arrays, Files
from rayrlhf.algorithms.graphs import GraphedUpdate
from rayrlhf.algorithms.learner import PreferenceLearner, RewardSource
from rayrlhf.algorithms.meta_reward import FirstSteps, outer_gradients
from rayrlhf.algorithms.replay import Replay, Rows
from rayrlhf.algorithms.roles import Ref
from rayrlhf.algorithms.shards import ShardEntry, load_rows, reward_column, save_rows
from rayrlhf.policies import SacNetworks, SacUpdate
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Fragment


class PebbleLearner(PreferenceLearner):
    """One shard of the replay and the networks that learn from it."""

    update_step: SacUpdate

    def build(self) -> None:
        """Builds networks and optimisers, then the replay."""
        super().build()
        sac = self.run.sac
        capacity = min(-(-sac.replay_capacity // self.learners), self.most_rows)
        widths, steps = (self.networks.obs_dim, self.networks.action_dim), sac.n_step
        self.replay = Replay(capacity, *widths, self._device, n_step=steps, gamma=sac.gamma, weights=self.bonus)
        self.batch_size = sac.batch_size // self.learners
        # what an update reads and adds to stays in place: a graph holds the addresses
        self._size = torch.zeros((), dtype=torch.float64, device=self._device)
        self.recent = round(sac.recent_share * self.batch_size)
        """Rows of a batch that are drawn from the newest ones."""
        self._window = torch.zeros((), dtype=torch.float64, device=self._device)
        self._newest = torch.zeros((), dtype=torch.int64, device=self._device)
        self._sums = torch.zeros(len(SacUpdate.MEASURES), dtype=torch.float64, device=self._device)

    def _make_update(self, networks: SacNetworks, average: Any) -> SacUpdate:
        return SacUpdate(networks, self.run.sac, average=average, parts=self.run.resources.gradient_parts)

    # --- what the driver asks for ---

    def _insert(self, fragment: Fragment) -> None:
        """Writes it to the replay, scored by the newest reward."""
        rows = Rows.from_fragment(fragment, places=self.run.sac.n_step > 1).to(self._device)
        self._add_states(rows.obs)
        self.replay.insert(rows, self._score(rows))

    def _score(self, rows: Rows) -> Tensor:
        if self.source == "true":
            return rows.true_reward
        if self.source == "ensemble":
            return self._learned_reward(rows.obs, rows.action)
        return torch.zeros(len(rows.obs), device=self._device)

    def reward_with(self, source: RewardSource, weights: Arrays | Ref | None = None, version: int = 0) -> None:
        """Makes `source` the reward and recomputes the whole column."""
        super().reward_with(source, weights, version)
        if source == "true":
            self.replay.use_true_reward()
        if source == "ensemble":
            self.replay.relabel(self._learned_reward)

    def learn(self, updates: int, env_steps: int = 0, labels_to_come: bool = False) -> dict[str, float]:
        """Runs `updates` SAC updates; the means of losses, values, entropy and temperature over them.

        env_steps:      the run's so far: the weight of a bonus falls with them
        labels_to_come: whether some rows are drawn from the newest ones, if the run's options say so
        """
        if not updates or not self.replay.size:
            return {}
        self._weigh_bonus(env_steps)
        self._newest.fill_(self.replay.inserted - 1)
        self._window.fill_(float(self._recent_rows() if labels_to_come else self.replay.size))
        self._size.fill_(float(self.replay.size))
        self._sums.zero_()
        for _ in range(updates):
            if (every := self.run.sac.reset_interval) and self.updates and self.updates % every == 0:
                self._reset_networks()
            self.updates += 1
            self._one_update(self.updates % self.run.sac.target_update_interval == 0)
        means = dict(zip(SacUpdate.MEASURES, (self._sums / updates).tolist(), strict=True))
        return self._finite(means, self.updates)

    def explored(self) -> Ref:
        """Reference to `obs`, `action` and `target` of all rows of exploration (RIME, section 4.2).

        The target is the state entropy, of mean 0, scaled into [-1, 1], the range of the networks.
        """
        assert self.entropy is not None
        rows = torch.arange(min(len(self.entropy), self.replay.size), device=self._device)
        distance = self.entropy.distance(rows)
        centred = distance - distance.mean()
        target = centred / centred.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        columns = {"obs": self.replay.columns["obs"][rows], "action": self.replay.columns["action"][rows]}
        arrays = {name: value.cpu().numpy() for name, value in (columns | {"target": target}).items()}
        return ray.put(arrays)

    def outer_gradients(self, labels: Labels | Ref) -> tuple[Arrays, float]:
        """The ensemble's gradients, `network/NAME` `[E, ...]`, of what the critic makes of it, and that loss (MRN)."""
        labels = ray.get(labels) if isinstance(labels, ray.ObjectRef) else labels
        uniform = torch.rand(self.batch_size, dtype=torch.float64, generator=self.generator, device=self._device)
        noise = torch.randn((self.batch_size, self.networks.action_dim), generator=self.generator, device=self._device)
        sac, reward = self.run.sac, self.run.reward
        gradients, loss = outer_gradients(
            self.networks,
            self.scorer.differentiable,
            self.scorer.parameters(),
            self.replay.gather((uniform * self.replay.size).long()),
            noise,
            FirstSteps.of(labels, self._device),
            gamma=sac.gamma,
            lr=sac.critic_lr,
            weight=reward.meta_weight,
        )
        return self.scorer.by_name(gradients), float(loss)

    def _one_update(self, move_target: bool) -> None:
        if not self._graphed:
            self._draw_and_update(move_target)
            return
        layout = self.entropy.layout if self.entropy is not None else None
        if self._graphs is None or self._graphs.layout != layout:
            self._graphs = GraphedUpdate(self._draw_and_update, self.generator, layout)
        self._graphs(move_target)

    def _draw_and_update(self, move_target: bool) -> None:
        uniform = torch.rand(self.batch_size, dtype=torch.float64, generator=self.generator, device=self._device)
        index = (uniform * self._size).long()
        if self.recent:
            ago = (uniform[: self.recent] * self._window).long()
            index[: self.recent] = (self._newest - ago) % self.replay.capacity
        noise = torch.randn(
            (2, self.batch_size, self.networks.action_dim), generator=self.generator, device=self._device
        )
        intrinsic = self.entropy.reward(index) if self.source == "entropy" and self.entropy is not None else None
        batch = self.replay.gather(index, intrinsic)
        found = self.update_step(batch, noise[0], noise[1], move_target=move_target)
        self._sums += torch.stack([found[name] for name in SacUpdate.MEASURES])

    def _recent_rows(self) -> int:
        """Rows of the newest episodes in this shard, the ones that questions are about."""
        steps = self.run.queries.recent_episodes * (self.run.env.horizon or 0)
        rows: int = min(self.replay.size, max(1, steps // self.learners))
        return rows

    def _reset_networks(self) -> None:
        """Forgets all that was learnt but the replay (Nikishin et al. 2022, arXiv 2205.07802)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer_seed(self.run.seed, "reset", self.updates))
            self.update_step.reset()
        self._graphs = None

    def replay_size(self) -> int:
        """Transitions in this shard that can be drawn."""
        return self.replay.size

    # --- checkpoints ---

    def _save_rows(self, rows: Files) -> tuple[ShardEntry, Arrays]:
        return save_rows(self.replay, rows, self._learner_index), {"reward": reward_column(self.replay)}

    def _load_rows(self, rows: Files, entries: list[ShardEntry], states: list[Arrays], share: slice) -> None:
        load_rows(self.replay, rows, entries, [state["reward"] for state in states], share)

    def _entropy_anew(self, states: list[NDArray[np.float32]], share: slice) -> None:
        if self.replay.size:
            self._add_states(self.replay.columns["obs"][: self.replay.size])
