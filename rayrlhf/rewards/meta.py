"""Few-shot pre-training: weights from which a few labels of a new task lead far (Hejna & Sadigh, arXiv 2212.03363).

Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400) on preferences, with a learning rate of its own for
each parameter tensor (Li et al. 2017, arXiv 1707.09835). Of each of `K` tasks, `support` labels are learnt from in some
steps of gradient descent, and `query` labels judge the outcome; the outer step goes down the latter's loss, through
the inner steps.

Tasks and members are computed side by side (`torch.func.vmap`). Shape letters: `K` tasks, `E` members, `B` labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

Parameters = dict[str, Tensor]
"""By name, `[E, ...]`."""
Rates = dict[str, Tensor]
"""By the same names, one number each."""


@dataclass(frozen=True)
class Pairs:
    """Labels as tensors: `inputs` `[..., B, 2, T, D]` (left, right) as the networks take them, `target` `[..., B]`."""

    inputs: Tensor
    target: Tensor

    def to(self, device: torch.device | str) -> "Pairs":
        """The same on another device."""
        return Pairs(self.inputs.to(device), self.target.to(device))

    def take(self, rows: slice) -> "Pairs":
        """Some of the first axis."""
        return Pairs(self.inputs[rows], self.target[rows])


class Learner:
    """The inner learner, as functions of parameters and rates. `network` is one member; its weights do not count."""

    def __init__(self, network: nn.Module, obs_dim: int, inner_steps: int) -> None:
        self._network, self._obs_dim, self._steps = network, obs_dim, inner_steps

    def logits(self, member: Parameters, inputs: Tensor) -> Tensor:
        """Of one member `[B]`: the sum over steps of the right segment's reward, less the left one's."""
        obs, action = inputs[..., : self._obs_dim], inputs[..., self._obs_dim :]
        sums = functional_call(self._network, member, (obs, action)).sum(-1)
        logits: Tensor = sums[..., 1] - sums[..., 0]
        return logits

    def loss(self, member: Parameters, inputs: Tensor, target: Tensor) -> Tensor:
        """One member's mean cross-entropy."""
        return nn.functional.binary_cross_entropy_with_logits(self.logits(member, inputs), target)

    def adapted(self, member: Parameters, rates: Rates, inputs: Tensor, target: Tensor) -> Parameters:
        """One member after `inner_steps` steps of gradient descent on a task's support."""
        for _ in range(self._steps):
            gradients = grad(self.loss)(member, inputs, target)
            member = {name: value - rates[name] * gradients[name] for name, value in member.items()}
        return member

    def judged(self, members: Parameters, rates: Rates, support: Pairs, query: Pairs) -> tuple[Tensor, Tensor]:
        """Loss and accuracy on the query of each task and member after adaptation, `[K, E]` each."""

        def of_member(
            member: Parameters, learnt: Tensor, said: Tensor, asked: Tensor, true: Tensor
        ) -> tuple[Tensor, Tensor]:
            own = self.adapted(member, rates, learnt, said)
            logits = self.logits(own, asked)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, true)
            return loss, _accuracy(logits, true)

        over_members = vmap(of_member, in_dims=(0, None, None, None, None))
        over_tasks = vmap(over_members, in_dims=(None, 0, 0, 0, 0))
        loss, accuracy = over_tasks(members, support.inputs, support.target, query.inputs, query.target)
        return loss, accuracy

    def outer_gradients(
        self, members: Parameters, rates: Rates, support: Pairs, query: Pairs
    ) -> tuple[Parameters, Rates, Tensor, Tensor]:
        """Gradients of the outer loss by parameters and by rates, the loss, and the accuracy.

        The loss is the mean over tasks of the sum over members.
        """

        def outer(members: Parameters, rates: Rates) -> tuple[Tensor, Tensor]:
            loss, accuracy = self.judged(members, rates, support, query)
            return loss.sum(1).mean(), accuracy.mean()

        (by_members, by_rates), (loss, accuracy) = grad_and_value(outer, argnums=(0, 1), has_aux=True)(members, rates)
        return by_members, by_rates, loss, accuracy


def over_devices(
    compute: Callable[[Parameters, Rates, Pairs, Pairs], tuple[Parameters, Rates, Tensor, Tensor]],
    devices: Sequence[torch.device],
    members: Parameters,
    rates: Rates,
    support: Pairs,
    query: Pairs,
) -> tuple[Parameters, Rates, Tensor, Tensor]:
    """`compute` with the `K` tasks dealt to `devices`, each weighted by its share: as one device would do all.

    What is computed on a GPU is only queued here, so several work at the same time.
    """
    tasks, parts = len(support.target), []
    for device, rows in zip(devices, _shares(tasks, len(devices)), strict=True):
        if rows.stop > rows.start:
            near, paces = ({name: value.to(device) for name, value in of.items()} for of in (members, rates))
            parts.append((rows, compute(near, paces, support.take(rows).to(device), query.take(rows).to(device))))
    first = devices[0]
    weights = [(rows.stop - rows.start) / tasks for rows, _ in parts]

    def joined(pick: Callable[[tuple[Parameters, Rates, Tensor, Tensor]], Tensor]) -> Tensor:
        terms = [weight * pick(part).to(first) for weight, (_, part) in zip(weights, parts, strict=True)]
        return torch.stack(terms).sum(0)

    by_members = {name: joined(lambda part, name=name: part[0][name]) for name in members}  # type: ignore[misc]
    by_rates = {name: joined(lambda part, name=name: part[1][name]) for name in rates}  # type: ignore[misc]
    return by_members, by_rates, joined(lambda part: part[2]), joined(lambda part: part[3])


def _shares(tasks: int, devices: int) -> list[slice]:
    ends = [round(tasks * i / devices) for i in range(devices + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends)]


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the labels that prefer a side whose side is predicted."""
    decisive = (target != 0.5).to(logits.dtype)
    right = ((logits > 0) == (target > 0.5)).to(logits.dtype)
    return (right * decisive).sum() / decisive.sum().clamp(min=1.0)


def stacked(networks: Sequence[nn.Module]) -> Parameters:
    """The trainable parameters of alike networks, `[E, ...]`, copied."""
    by_member = [dict(network.named_parameters()) for network in networks]
    return {name: torch.stack([own[name].detach() for own in by_member]) for name in by_member[0]}


def rates_of(arrays: Mapping[str, Tensor], rate: float) -> Rates:
    """The same rate for each tensor."""
    return {name: torch.tensor(rate, dtype=value.dtype, device=value.device) for name, value in arrays.items()}
