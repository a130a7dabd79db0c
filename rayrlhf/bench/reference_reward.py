"""Reward ensembles as they are usually written: networks in a list, or their weights stacked, and autograd."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rayrlhf.bench.timing import alternate
from rayrlhf.config import RewardOptions

Weights = Mapping[str, NDArray[Any]]
CHUNKS = {"cpu": (512, 1024, 2048, 4096, 16384), "cuda": (16384, 65536, 262144, 1 << 20)}
"""Rows per forward pass that are tried before the bare forward is measured."""


def member_networks(options: RewardOptions, weights: Weights, device: str = "cpu") -> list[nn.Sequential]:
    """One plain network per member, with the ensemble's `weights`."""
    return [_network(options, weights, m, device) for m in range(len(weights["network/layers.0.weight"]))]


def _network(options: RewardOptions, weights: Weights, member: int, device: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(len(options.hidden) + 1):
        weight, bias = weights[f"network/layers.{i}.weight"][member], weights[f"network/layers.{i}.bias"][member]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": torch.from_numpy(weight.copy()), "bias": torch.from_numpy(bias.copy())})
        layers += [linear, nn.LeakyReLU()]
    layers[-1] = nn.Tanh() if options.output == "tanh" else nn.Identity()
    return nn.Sequential(*layers).to(device)


@torch.no_grad()
def bare_forward(networks: Sequence[nn.Module], inputs: Tensor, chunk: int) -> Tensor:
    """The members' rewards `[E, M]` of inputs `[M, D]` that lie ready: the least that scoring can be."""
    parts = [torch.cat([network(part) for part in torch.split(inputs, chunk)]) for network in networks]
    return torch.stack(parts).squeeze(-1)


def fastest_chunk(networks: Sequence[nn.Module], inputs: Tensor) -> int:
    """The rows per pass with which the bare forward is fastest here."""
    some = inputs[: max(1, min(len(inputs), 4 * max(CHUNKS[inputs.device.type])))]
    sides = {str(chunk): _timed(networks, some, chunk) for chunk in CHUNKS[inputs.device.type]}
    rates = alternate(sides, rounds=2)
    return int(max(sides, key=rates.median))


def _timed(networks: Sequence[nn.Module], inputs: Tensor, chunk: int) -> Any:
    def side() -> float:
        bare_forward(networks, inputs, chunk)
        return float(len(inputs))

    return side


class LoopedFit:
    """Member after member: both segments of all pairs of a batch in one forward pass, autograd, Adam."""

    def __init__(self, options: RewardOptions, weights: Weights, device: str = "cpu") -> None:
        self.networks = member_networks(options, weights, device)
        self._optimizers = [torch.optim.Adam(network.parameters(), options.lr) for network in self.networks]
        self._batch = options.batch_size

    def epoch(self, pairs: Tensor, target: Tensor, orders: NDArray[np.int64]) -> list[float]:
        """One pass over `pairs` `[N, 2, T, D]` in each member's order `[E, N]`; mean losses."""
        members = zip(self.networks, self._optimizers, orders, strict=True)
        return [self._member_epoch(pairs, target, *member) for member in members]

    def _member_epoch(
        self, pairs: Tensor, target: Tensor, network: nn.Module, optimizer: torch.optim.Adam, order: NDArray[np.int64]
    ) -> float:
        total = torch.zeros((), device=pairs.device)
        for index in torch.split(torch.from_numpy(order).to(pairs.device), self._batch):
            sums = network(pairs[index]).squeeze(-1).sum(-1)  # [b, 2]
            loss = functional.binary_cross_entropy_with_logits(sums[:, 1] - sums[:, 0], target[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(index)
        return float(total) / len(order)


class StackedFit:
    """All members at once: weights `[E, in, out]` and `baddbmm`, autograd, Adam on the summed loss."""

    def __init__(self, options: RewardOptions, weights: Weights, device: str = "cpu") -> None:
        depth = len(options.hidden) + 1
        kernels = [weights[f"network/layers.{i}.weight"].swapaxes(1, 2) for i in range(depth)]
        biases = [weights[f"network/layers.{i}.bias"][:, None] for i in range(depth)]
        self._weights = [self._parameter(kernel, device) for kernel in kernels]
        self._biases = [self._parameter(bias, device) for bias in biases]
        self._optimizer = torch.optim.Adam([*self._weights, *self._biases], options.lr)
        self._batch, self._tanh = options.batch_size, options.output == "tanh"

    @staticmethod
    def _parameter(value: NDArray[Any], device: str) -> nn.Parameter:
        return nn.Parameter(torch.from_numpy(np.ascontiguousarray(value)).to(device))

    def _rewards(self, x: Tensor) -> Tensor:
        """Rewards `[E, R]` of `x` `[E, R, D]`."""
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            x = functional.leaky_relu(torch.baddbmm(bias, x, weight))
        reward = torch.baddbmm(self._biases[-1], x, self._weights[-1]).squeeze(-1)
        return reward.tanh() if self._tanh else reward

    def epoch(self, pairs: Tensor, target: Tensor, orders: NDArray[np.int64]) -> list[float]:
        """As `LoopedFit.epoch`."""
        members, count = orders.shape
        order = torch.from_numpy(orders).to(pairs.device)
        total = torch.zeros(members, device=pairs.device)
        for start in range(0, count, self._batch):
            index = order[:, start : start + self._batch]  # [E, b]
            x = pairs[index]  # [E, b, 2, T, D]
            sums = self._rewards(x.flatten(1, 3)).view(x.shape[:4]).sum(-1)  # [E, b, 2]
            logit = sums[..., 1] - sums[..., 0]
            loss = functional.binary_cross_entropy_with_logits(logit, target[index], reduction="none").mean(1)
            self._optimizer.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach() * index.shape[1]
        return [float(value) / count for value in total]
