"""The reward ensemble: its members behind one call, fitted to labels, saved whole."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards.fit import EpochReport, FitReport, fit_together, reward_scale, shuffles
from rayrlhf.rewards.members import Arrays, Members
from rayrlhf.rewards.plan import Plan, Workspace
from rayrlhf.rewards.table import LabelTable
from rayrlhf.rewards.trainer import BlockTrainer
from rayrlhf.seeding import generator


class RewardEnsemble:
    """Some or all members of the reward ensemble in one process.

    `members` are the indices held here, all by default. Member `m`'s start and shuffles come from `(seed, "reward",
    m)` alone, and on a CPU members are computed one by one: any split over processes gives identical results.
    `threads` limits how many members are computed at the same time; `plan` overrides how the device computes
    (`plan.choose_plan`).
    """

    def __init__(
        self,
        options: RewardOptions,
        obs_dim: int,
        action_dim: int,
        *,
        seed: int,
        members: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        plan: Plan | None = None,
        threads: int | None = None,
    ) -> None:
        indices = range(options.members) if members is None else members
        self._members = Members(
            options, obs_dim, action_dim, indices, seed=seed, device=device, plan=plan, threads=threads
        )
        self._options, self._seed = options, seed
        self._table = LabelTable(self._members)
        self._epochs = 0
        plan, blocks, device = self._members.plan, self._members.blocks, self._members.device
        self._trainers = [BlockTrainer(block, options, plan, Workspace(device)) for block in blocks]

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the members held here."""
        return self._members.indices

    def member_rewards(self, obs: Tensor | Floats, action: Tensor | Floats) -> Tensor:
        """Each member's reward `[E, ...]` of `obs` `[..., O]` and `action` `[..., A]`, scaled as `reward` is.

        With three axes or more the last but one is time; one or two axes are single transitions.
        """
        return self._members.rewards(obs, action).mul_(self._members.reward_scale)

    def reward(self, obs: Tensor | Floats, action: Tensor | Floats) -> Tensor:
        """The mean over members `[...]`; with `normalize_rewards` of unit deviation over the labelled segments."""
        return self.member_rewards(obs, action).mean(0)

    def pair_logits(self, left: Segments, right: Segments) -> Tensor:
        """`[E, N]`: sum over steps of each member's reward, right less left; P(right) is its sigmoid.

        Of the unscaled rewards, which the labels were fitted with, whatever `normalize_rewards` says.
        """
        sums = [self._members.rewards(side.obs, side.action).sum(-1) for side in (left, right)]
        return sums[1] - sums[0]

    def standardise_by(self, moments: Mapping[str, Tensor]) -> None:
        """Takes the policy's moments of observations (`RunningMoments.state`) for inputs, with `normalize_inputs`."""
        if self._options.normalize_inputs:
            self._table.standardise_by(moments)

    def restart(self) -> None:
        """Forgets what fits have taught the members, and Adam what it remembers; the next fit begins from nothing."""
        self._members.restart(self._epochs)
        for trainer in self._trainers:
            for value in trainer.adam_state.values():
                value.zero_()

    def fit(self, labels: Labels) -> FitReport:
        """Fits to `labels`, ALL labels so far with new ones last, until accurate or out of epochs.

        For an instance that holds the whole ensemble; several are driven by `fit_together`, `reward_scale` and
        `set_reward_scale`. No labels: nothing is done.
        """
        if len(labels) == 0:
            nothing = np.zeros(len(self.members), np.float32)
            return FitReport(0, nothing, nothing)
        report = fit_together([self.fit_epoch], labels, self._options, list)
        if self._options.normalize_rewards:
            self.set_reward_scale(reward_scale([self.labelled_rewards(labels)]))
        return report

    def fit_epoch(self, labels: Labels) -> EpochReport:
        """One pass over `labels` (all so far, new ones last; at least one), each member in an order of its own."""
        if len(labels) == 0:
            raise ValueError("no labels to fit to")
        self._table.update(labels)
        order = torch.from_numpy(shuffles(self.members, len(labels), self._shuffler)).to(self._members.device)
        self._epochs += 1
        sums = self._members.threads.map(
            lambda i: self._trainers[i].epoch(self._table, order[self._members.rows[i]], self._options.batch_size),
            range(len(self._trainers)),
        )
        loss, right = torch.cat(sums, dim=1).cpu().numpy()
        return EpochReport(loss / len(labels), right / np.float32(max(self._table.decisive, 1)))

    def _shuffler(self, member: int) -> np.random.Generator:
        return generator(self._seed, "reward", member, "shuffle", self._epochs)

    def labelled_rewards(self, labels: Labels) -> NDArray[np.float32]:
        """Each member's unscaled rewards `[E, N, 2, T]` of the labelled segments (left, right)."""
        sides = [self._members.rewards(side.obs, side.action) for side in (labels.left, labels.right)]
        return torch.stack(sides, dim=2).cpu().numpy()

    def set_reward_scale(self, scale: float) -> None:
        """Multiply rewards by `scale` from now on."""
        self._members.reward_scale = scale

    def weights(self) -> Arrays:
        """What scoring needs: the networks, the normaliser of inputs, the scale of rewards. Copies."""
        return self._members.weights()

    def load_weights(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes in `weights()` of the same members. Raises ValueError on another ensemble's."""
        self._members.load_weights(weights)
        self._table.forget_inputs()

    def state(self) -> Arrays:
        """Everything that a fit after `load_state` needs to continue bit for bit. Copies, flat, no pickle."""
        arrays = self.weights()
        arrays["epochs"] = np.array(self._epochs, dtype=np.int64)
        arrays["seen"] = np.array(self._table.seen, dtype=np.int64)
        for name, value in self._table.moments.state().items():
            arrays[f"moments/{name}"] = value.numpy()
        adams = [trainer.adam_state for trainer in self._trainers]
        for name in ("exp_avg", "exp_avg_sq"):
            arrays[f"adam/{name}"] = torch.cat([adam[name] for adam in adams]).cpu().numpy()
        arrays["adam/step"] = np.array([float(adam["step"]) for adam in adams for _ in adam["exp_avg"]], np.float32)
        return arrays

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Restores `state()` of an ensemble with the same options, seed and members. Raises ValueError on others."""
        self.load_weights(state)
        self._epochs, self._table.seen = int(state["epochs"]), int(state["seen"])
        self._table.moments.load_state(
            {name: torch.from_numpy(state[f"moments/{name}"].copy()) for name in self._table.moments.state()}
        )
        first = 0
        for trainer in self._trainers:
            held = slice(first, first + len(trainer.adam_state["exp_avg"]))
            trainer.adam_state["step"].fill_(float(state["adam/step"][first]))
            for name in ("exp_avg", "exp_avg_sq"):
                trainer.adam_state[name].copy_(torch.from_numpy(state[f"adam/{name}"][held].copy()))
            first = held.stop
