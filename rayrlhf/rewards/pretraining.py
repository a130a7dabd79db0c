"""The outer loop of few-shot pre-training, its held-out tasks, and the weights as a file holds them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rayrlhf import seeding
from rayrlhf.config.meta import MetaOptions
from rayrlhf.config.schema import RewardOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards.members import MIN_STD, Arrays, member_networks
from rayrlhf.rewards.meta import Learner, Pairs, Parameters, Rates, over_devices, rates_of, stacked
from rayrlhf.rewards.rates import RATES


@dataclass(frozen=True)
class Look:
    """What the held-out tasks say after `step` outer steps.

    loss, accuracy: on the query after adaptation, means over tasks and members
    before: accuracy on the query without adaptation
    training: accuracy on the query of the training tasks since the last look; NaN before the first step
    """

    step: int
    loss: float
    accuracy: float
    before: float
    training: float


class Pretraining:
    """Weights and rates that are learnt over tasks, each the labels of one draw.

    Every random draw follows from the options' seed and the outer step's number.
    """

    def __init__(
        self,
        tasks: Sequence[Labels],
        reward: RewardOptions,
        options: MetaOptions,
        devices: Sequence[torch.device | str] = ("cpu",),
    ) -> None:
        """Raises `UserError` where tasks differ in shape, have too few labels, or are too few."""
        _require_fitting(tasks, options)
        self.reward, self.options = reward, options
        self.obs_dim, self.action_dim = tasks[0].left.obs.shape[2], tasks[0].left.action.shape[2]
        self._devices = [torch.device(device) for device in devices]
        rng = seeding.generator(options.seed, "meta", "held out")
        order = rng.permutation(len(tasks))
        held_out = max(1, round(options.held_out * len(tasks)))
        self.training = [tasks[i] for i in order[held_out:]]
        self.held_out = [tasks[i] for i in order[:held_out]]
        self.mean, self.std = _moments(self.training, normalize=reward.normalize_inputs)
        networks = member_networks(reward, self.obs_dim, self.action_dim, seed=options.seed)
        self._learner = Learner(networks[0].to(self._devices[0]), self.obs_dim, options.inner_steps)
        self.members: Parameters = {name: value.to(self._devices[0]) for name, value in stacked(networks).items()}
        self.rates: Rates = rates_of(self.members, options.inner_lr)
        learnt = [*self.members.values(), *(self.rates.values() if options.learn_inner_lr else [])]
        self._adam = torch.optim.Adam(learnt, options.lr)
        self.step = 0

    def advance(self) -> float:
        """One outer step; the accuracy on its queries."""
        options, rng = self.options, seeding.generator(self.options.seed, "meta", "step", self.step)
        chosen = rng.choice(len(self.training), min(options.tasks, len(self.training)), replace=False)
        drawn = [self._drawn(self.training[i], rng) for i in chosen]
        support, query = (_side_by_side([pair[part] for pair in drawn]) for part in range(2))
        compute = self._learner.outer_gradients
        by_members, by_rates, _, accuracy = over_devices(
            compute, self._devices, self.members, self.rates, support, query
        )
        for name, gradient in by_members.items():
            self.members[name].grad = gradient
        for name, gradient in by_rates.items():
            self.rates[name].grad = gradient
        self._adam.step()
        self.step += 1
        return float(accuracy)

    @torch.no_grad()
    def look(self, training: float = float("nan")) -> Look:
        """At the held-out tasks, each with the same labels every time."""
        found = []
        for number, task in enumerate(self.held_out):
            support, query = self._drawn(task, seeding.generator(self.options.seed, "meta", "look", number))
            pair = [_side_by_side([part]).to(self._devices[0]) for part in (support, query)]
            loss, accuracy = self._learner.judged(self.members, self.rates, *pair)
            still = {name: torch.zeros_like(rate) for name, rate in self.rates.items()}
            _, before = self._learner.judged(self.members, still, *pair)
            found.append([float(value.mean()) for value in (loss, accuracy, before)])
        loss_, accuracy_, before_ = np.mean(found, axis=0).tolist()
        return Look(self.step, loss_, accuracy_, before_, training)

    def run(self, say: Callable[[Look], None]) -> tuple[Arrays, list[Look]]:
        """Steps until nothing gets better; the weights that were best on held-out tasks, and all looks.

        Ctrl-C ends it, too, with the best so far.
        """
        looks = [self.look()]
        best, weights = looks[0], self.weights()
        say(best)
        try:
            while self.step < self.options.steps and self.step - best.step < self._patience:
                accuracy = [self.advance() for _ in range(min(self.options.evaluate_every, self._left))]
                looks.append(self.look(float(np.mean(accuracy))))
                say(looks[-1])
                if looks[-1].loss < best.loss:
                    best, weights = looks[-1], self.weights()
        except KeyboardInterrupt:
            pass
        return weights, looks

    def weights(self) -> Arrays:
        """The ensemble's, as `RewardEnsemble.weights` has them, and the rates. Copies."""
        arrays: Arrays = {
            "members": np.arange(self.reward.members, dtype=np.int64),
            "inputs/mean": self.mean.copy(),
            "inputs/std": self.std.copy(),
            "reward_scale": np.array(1.0),
        }
        arrays |= {f"network/{name}": value.detach().cpu().numpy().copy() for name, value in self.members.items()}
        return arrays | {f"{RATES}{name}": rate.detach().cpu().numpy().copy() for name, rate in self.rates.items()}

    @property
    def _left(self) -> int:
        return self.options.steps - self.step

    @property
    def _patience(self) -> int:
        return self.options.patience * self.options.evaluate_every

    def _drawn(self, task: Labels, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
        """Support and query of a task, no label in both."""
        rows = rng.choice(len(task), self.options.support + self.options.query, replace=False)
        support, query = rows[: self.options.support], rows[self.options.support :]
        return self._pairs(task.take(support)), self._pairs(task.take(query))

    def _pairs(self, labels: Labels) -> Pairs:
        sides = [
            np.concatenate([(side.obs - self.mean) / self.std, side.action], axis=-1)
            for side in (labels.left, labels.right)
        ]
        return Pairs(torch.from_numpy(np.stack(sides, axis=1)), torch.from_numpy(labels.target))


def _side_by_side(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(torch.stack([part.inputs for part in parts]), torch.stack([part.target for part in parts]))


def _moments(tasks: Sequence[Labels], *, normalize: bool) -> tuple[Floats, Floats]:
    """Mean and deviation `[O]` that observations are standardised by; 0 and 1 where they are not."""
    width = tasks[0].left.obs.shape[2]
    if not normalize:
        return np.zeros(width, np.float32), np.ones(width, np.float32)
    rows = np.concatenate([side.obs.reshape(-1, width) for task in tasks for side in (task.left, task.right)])
    mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)


def _require_fitting(tasks: Sequence[Labels], options: MetaOptions) -> None:
    if len(tasks) < 2:
        raise UserError(f"few-shot pre-training wants several tasks, and the data have {len(tasks)}")
    wanted = options.support + options.query
    for number, task in enumerate(tasks):
        if len(task) < wanted:
            raise UserError(
                f"task {number} has {len(task)} labels, and support and query together want {wanted}: lower them, or "
                "generate more pairs"
            )
        shapes = {(side.obs.shape[1:], side.action.shape[1:]) for side in (task.left, tasks[0].left)}
        if len(shapes) > 1:
            raise UserError(f"tasks differ in segment length or widths: {sorted(shapes)}")
