"""The reward ensemble: its members behind one call, fitted to labels, saved whole."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats, Integers
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards.crops import draw_crops
from rayrlhf.rewards.denoise import Denoiser
from rayrlhf.rewards.fit import EpochReport, FitReport, fit_together, mean_over_members, reward_scale, shuffles
from rayrlhf.rewards.members import Arrays, Members, as_tensor, take_members
from rayrlhf.rewards.plan import Plan, Workspace
from rayrlhf.rewards.rates import RATES, rates_in
from rayrlhf.rewards.table import LabelTable
from rayrlhf.rewards.trainer import BlockTrainer
from rayrlhf.rewards.unlabelled import Drawn, Episodes, draw
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
        self._denoiser = Denoiser(options) if options.denoise else None
        self._unlabelled: Episodes | None = None
        self._beginning: Arrays | None = None
        self._epochs = 0
        plan, blocks, device = self._members.plan, self._members.blocks, self._members.device
        self._trainers = [BlockTrainer(block, options, plan, Workspace(device)) for block in blocks]
        self._space = Workspace(device)

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
        if self._options.normalize_inputs and self._beginning is None:
            self._table.standardise_by(moments)

    def take_unlabelled(self, episodes: Episodes | None) -> None:
        """The episodes from which the next fits draw pairs that nobody was asked about (`reward.unlabelled`)."""
        self._unlabelled = episodes

    def begin_from(self, meta: Mapping[str, NDArray[np.generic]]) -> None:
        """Begins from `Pretraining.weights`, of the whole ensemble, now and after each `restart`.

        Observations are standardised as they were there. With `reward.adaptation` `inner` fits go down the gradient
        with the rates learnt there; what else they do stays. Raises ValueError on another ensemble's.
        """
        own = take_members({name: value for name, value in meta.items() if not name.startswith(RATES)}, self.members)
        self.load_weights(own)
        self._beginning = own
        self._table.keep_moments()
        if self._options.adaptation == "inner":
            for trainer in self._trainers:
                trainer.descend_by({name: float(rate) for name, rate in rates_in(meta).items()})

    def restart(self) -> None:
        """Forgets what fits have taught the members, and Adam what it remembers; the next fit begins at the start."""
        if self._beginning is None:
            self._members.restart(self._epochs)
        else:
            self.load_weights({**self._beginning, "reward_scale": np.array(self._members.reward_scale)})
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

    def fit_epoch(self, labels: Labels, probability: NDArray[np.floating] | None = None) -> EpochReport:
        """One pass over `labels` (all so far, new ones last; at least one), each member in an order of its own.

        `probability` `[N]` is the whole ensemble's of the right side, by which labels are sifted (`reward.denoise`);
        none: these members are the whole ensemble.
        """
        if len(labels) == 0:
            raise ValueError("no labels to fit to")
        self._table.update(labels)
        kept = self._sifted(labels, probability)
        if not len(kept):  # nothing that is trusted: the epoch teaches nothing
            self._epochs += 1
            nothing = np.zeros(len(self.members), np.float32)
            return EpochReport(nothing, nothing, kept=0)
        order = self._on_device(kept[shuffles(self.members, len(kept), partial(self._stream, "shuffle"))])
        crops, drawn = self._crops(labels), self._drawn(labels, -(-len(kept) // self._options.batch_size))
        self._epochs += 1

        def epoch(i: int) -> Tensor:
            rows = self._members.rows[i]
            own = None if drawn is None else Drawn(drawn.inputs, drawn.start[rows], drawn.crops[rows])
            cropped = None if crops is None else crops[rows]
            return self._trainers[i].epoch(self._table, order[rows], self._options.batch_size, cropped, own)

        sums = self._members.threads.map(epoch, range(len(self._trainers)))
        loss, right, sure = torch.cat(sums, dim=1).cpu().numpy()
        decisive = np.float32(max(self._table.decisive_among(kept), 1))
        pseudo = None if drawn is None else sure / np.float32(drawn.start.shape[1] * drawn.start.shape[2])
        return EpochReport(loss / len(kept), right / decisive, kept=len(kept), pseudo=pseudo)

    def pretrain(self, obs: Floats, action: Floats, target: Floats) -> None:
        """`reward.pretrain_epochs` passes over transitions `[M, ...]` by least squares of `target` `[M]`.

        With `normalize_inputs` observations are standardised by their own moments, until a fit takes the labels' own.
        After an epoch of anything nothing happens: a run that was interrupted in its first session has done it.
        """
        if self._epochs:
            return
        device = self._members.device
        columns = [as_tensor(column, device) for column in (obs, action, target)]
        if self._options.normalize_inputs:
            self._members.set_input_moments(columns[0].mean(0), columns[0].std(0, correction=0))
        inputs = torch.empty(len(obs), sum(self._members.widths), device=device)
        self._members.inputs(columns[0], columns[1], inputs)
        for _ in range(self._options.pretrain_epochs):
            order = self._on_device(shuffles(self.members, len(obs), partial(self._stream, "pretrain")))
            self._epochs += 1
            self._members.threads.map(
                lambda i, order=order: self._trainers[i].regress(inputs, columns[2], order[self._members.rows[i]]),  # type: ignore[misc]
                range(len(self._trainers)),
            )

    def step(self, gradients: Mapping[str, NDArray[np.generic]]) -> None:
        """One step of the optimiser by `gradients` `network/NAME` `[E, ...]` of these members, such as MRN's."""
        for trainer, rows in zip(self._trainers, self._members.rows, strict=True):
            own = {name.removeprefix("network/"): value[rows].copy() for name, value in gradients.items()}
            trainer.step_by({name: torch.from_numpy(value).to(self._members.device) for name, value in own.items()})

    def probabilities(self, labels: Labels) -> NDArray[np.float64]:
        """Each member's P(right) of the pairs of `labels`, `[E, N]`."""
        logits = self.pair_logits(labels.left, labels.right).cpu().numpy().astype(np.float64)
        # torch's sigmoid differs in its last digit from place to place in a tensor, and so with the members beside it
        probability: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
        return probability

    def _sifted(self, labels: Labels, probability: NDArray[np.floating] | None) -> Integers:
        """The labels to fit to; in the table those that are not believed are turned round."""
        if self._denoiser is None:
            return np.arange(len(labels))
        if probability is None:
            probability = mean_over_members([self.probabilities(labels)])
        kept, flipped = self._denoiser.sift(labels.target, probability)
        self._table.turn_round(flipped)
        return np.flatnonzero(kept)

    def _crops(self, labels: Labels) -> Tensor | None:
        """Of each member and label, `[E, N, 2, 2]`."""
        most = self._options.crop
        if not most:
            return None
        known, length = self._table.known, labels.left.length
        return self._on_device(
            np.stack([draw_crops(known, length, most, self._stream("crop", member)) for member in self.members])
        )

    def _drawn(self, labels: Labels, steps: int) -> Drawn | None:
        """Pairs that nobody was asked about, for each of `steps` steps and each member."""
        episodes, options, length = self._unlabelled, self._options, labels.left.length
        if not options.unlabelled or episodes is None:
            return None
        starts = episodes.starts(length + 2 * options.crop)
        if not len(starts):
            return None
        pairs = options.unlabelled * min(options.batch_size, len(labels))
        of_members = [
            draw(starts, steps, pairs, length, options.crop, self._stream("unlabelled", member))
            for member in self.members
        ]
        obs, action = np.split(episodes.rows, [self._members.obs_dim], axis=1)
        inputs = self._space.take("episodes", len(obs), sum(self._members.widths))
        self._members.inputs(as_tensor(obs, inputs.device), as_tensor(action, inputs.device), inputs)
        start, crops = (self._on_device(np.stack(column)) for column in zip(*of_members, strict=True))
        return Drawn(inputs, start, crops)

    def _on_device(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._members.device)

    def _stream(self, name: str, member: int) -> np.random.Generator:
        return generator(self._seed, "reward", member, name, self._epochs)

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
        if self._denoiser is not None:
            arrays["denoiser"] = self._denoiser.state()
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
        if self._denoiser is not None and "denoiser" in state:
            self._denoiser.load_state(state["denoiser"])
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
