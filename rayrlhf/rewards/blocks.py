"""Blocks of members: parameters in one flat buffer, forward and backward passes on it.

Shape letters: `G` members of the block, `S` segments, `T` steps, `D` = obs + action.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rayrlhf.rewards.networks import LEAK, MLPReward
from rayrlhf.rewards.plan import Workspace

_ALIGNMENT = 16
"""Floats to which each parameter's place is rounded: 64 bytes, so that BLAS sees the same alignment everywhere."""
_ROWS_PER_GROUP = 128
"""Fewest rows worth a sum of their own."""


class FlatParameters:
    """All trainable parameters of `G` networks of one kind as `values` `[G, P]`, with `gradients` alike.

    The networks' own parameters become views of the buffers, their `.grad` too. The gaps left by alignment are zero
    and stay zero.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._places: dict[str, tuple[int, torch.Size]] = {}
        size = 0
        for name, parameter in networks[0].named_parameters():
            if parameter.requires_grad:
                self._places[name] = (size, parameter.shape)
                size += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        device = next(networks[0].parameters()).device
        self.values = torch.zeros(len(networks), size, device=device)
        self.gradients = torch.zeros_like(self.values)
        for row, network in enumerate(networks):
            self._adopt(row, dict(network.named_parameters()))

    def _adopt(self, row: int, parameters: dict[str, nn.Parameter]) -> None:
        for name in self._places:
            parameter, view = parameters[name], self.view(self.values, name)[row]
            view.copy_(parameter.detach())
            parameter.data = view
            parameter.grad = self.view(self.gradients, name)[row]

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """Parameter `name` of all members, `[G, *shape]`, inside `buffer` `[G, P]`."""
        start, shape = self._places[name]
        return buffer[:, start : start + shape.numel()].view(len(buffer), *shape)


class Block(ABC):
    """What scoring and fitting need of a block. Every call runs without autograd outside the block."""

    networks: Sequence[nn.Module]
    parameters: FlatParameters

    @abstractmethod
    def rewards(self, x: Tensor, space: Workspace) -> Tensor:
        """Rewards `[G, S, T]` of `x` `[S, T, D]`, the same for all members. Valid until the next call."""

    @abstractmethod
    def forward(self, x: Tensor, space: Workspace) -> Tensor:
        """Rewards `[G, S, T]` of `x` `[G, S, T, D]`, keeping what `backward` needs."""

    @abstractmethod
    def backward(self, gradient: Tensor, space: Workspace) -> None:
        """Adds to the gradients what d loss / d rewards = `gradient` `[G, S, T]` makes of them."""


class ModuleBlock(Block):
    """One network of any kind, differentiated by autograd."""

    def __init__(self, network: nn.Module, obs_dim: int) -> None:
        self.networks = [network]
        self.parameters = FlatParameters(self.networks)
        self._obs_dim = obs_dim
        self._pending: Tensor | None = None

    def _run(self, x: Tensor) -> Tensor:
        reward: Tensor = self.networks[0](x[..., : self._obs_dim], x[..., self._obs_dim :])
        return reward

    def rewards(self, x: Tensor, space: Workspace) -> Tensor:
        with torch.no_grad():
            return self._run(x)[None]

    def forward(self, x: Tensor, space: Workspace) -> Tensor:
        with torch.enable_grad():
            self._pending = self._run(x[0])[None]
        return self._pending.detach()

    def backward(self, gradient: Tensor, space: Workspace) -> None:
        if self._pending is None:
            raise ValueError("backward before forward")
        torch.autograd.backward(self._pending, gradient)
        self._pending = None


class MLPBlock(Block):
    """`G` `MLPReward` networks at once: batched products into buffers that are reused, derivatives by hand.

    It computes what autograd would (tested), without allocating and without passes over memory that a chunk in the
    cache does not need.
    """

    def __init__(self, networks: Sequence[MLPReward], *, row_groups: int = 1) -> None:
        self.networks = networks
        self._row_groups = row_groups
        self.parameters = FlatParameters(networks)
        self._bounded = networks[0].bounded
        self._depth = len(networks[0].layers)
        flat = self.parameters
        names = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(self._depth)]
        # [G, out, in] and [G, 1, out]
        self._weights = [flat.view(flat.values, weight) for weight, _ in names]
        self._biases = [flat.view(flat.values, bias)[:, None] for _, bias in names]
        self._weight_gradients = [flat.view(flat.gradients, weight) for weight, _ in names]
        self._bias_gradients = [flat.view(flat.gradients, bias)[:, None] for _, bias in names]
        self._activations: list[Tensor] = []

    def _layers(self, x: Tensor, space: Workspace, *, keep: bool) -> list[Tensor]:
        """Outputs of the layers for `x` `[G, R, D]`, after their nonlinearities; unless `keep`, two take turns."""
        outputs = []
        last = self._depth - 1
        for i, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            slot = i if keep or i == last else i % 2
            out = space.take(f"output {slot}" if i < last else "reward", *x.shape[:2], weight.shape[1])
            # A product and an addition: `baddbmm` would first spread the bias over `out`, which costs more.
            torch.bmm(x, weight.transpose(1, 2), out=out)
            x = self._bend(i, out.add_(bias))
            outputs.append(x)
        return outputs

    def _bend(self, i: int, out: Tensor) -> Tensor:
        """Layer `i`'s nonlinearity, in place."""
        if i < self._depth - 1:
            return nn.functional.leaky_relu_(out, LEAK)
        return out.tanh_() if self._bounded else out

    @torch.no_grad()
    def rewards(self, x: Tensor, space: Workspace) -> Tensor:
        if len(self.networks) == 1:
            return self._layers(x.reshape(1, -1, x.shape[-1]), space, keep=False)[-1].view(-1, *x.shape[:2])
        return self._in_turn(x.reshape(-1, x.shape[-1]), space).view(-1, *x.shape[:2])

    def _in_turn(self, rows: Tensor, space: Workspace) -> Tensor:
        """The members one after the other on `rows` `[R, D]`: a GPU is full with one, and adds the bias on the way."""
        reward = space.take("reward", len(self.networks), len(rows), 1)
        for member in range(len(self.networks)):
            x = rows
            for i, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
                last = i == self._depth - 1
                out = reward[member] if last else space.take(f"output {i % 2}", len(rows), weight.shape[1])
                x = self._bend(i, torch.addmm(bias[member, 0], x, weight[member].T, out=out))
        return reward

    @torch.no_grad()
    def forward(self, x: Tensor, space: Workspace) -> Tensor:
        rows = x.view(len(x), -1, x.shape[-1])
        self._activations = [rows, *self._layers(rows, space, keep=True)]
        return self._activations[-1].view(x.shape[:3])

    @torch.no_grad()
    def backward(self, gradient: Tensor, space: Workspace) -> None:
        reward = self._activations[-1]
        delta = space.take("delta reward", *reward.shape)
        delta.copy_(gradient.reshape(reward.shape))
        if self._bounded:
            delta.addcmul_(delta * reward, reward, value=-1.0)  # d tanh = 1 - tanh^2
        groups = self._groups(reward.shape[1])
        ones = space.take("ones", len(reward), 1, reward.shape[1]).fill_(1.0) if groups == 1 else None
        for i in reversed(range(self._depth)):
            if ones is None:
                self._add_in_groups(i, delta, groups, space)
            else:
                self._weight_gradients[i].baddbmm_(delta.transpose(1, 2), self._activations[i])
                self._bias_gradients[i].baddbmm_(ones, delta)
            if i > 0:
                delta = self._through(i, delta, space)

    def _groups(self, rows: int) -> int:
        """The most groups, a power of two, that `rows` can be cut into evenly with enough in each."""
        groups = 1
        while 2 * groups <= min(self._row_groups, rows // _ROWS_PER_GROUP) and rows % (2 * groups) == 0:
            groups *= 2
        return groups

    def _add_in_groups(self, i: int, delta: Tensor, groups: int, space: Workspace) -> None:
        """Adds layer `i`'s gradients, each group of rows summed by itself first.

        One product over thousands of rows has few results and leaves most of a GPU idle.
        """
        below = self._activations[i]
        members, rows, width = delta.shape
        parts = delta.view(members * groups, rows // groups, width)
        product = space.take("product", members * groups, width, below.shape[2])
        torch.bmm(parts.transpose(1, 2), below.view(members * groups, rows // groups, -1), out=product)
        self._weight_gradients[i].add_(product.view(members, groups, width, -1).sum(1))
        self._bias_gradients[i].add_(parts.sum(1).view(members, groups, width).sum(1, keepdim=True))

    def _through(self, i: int, delta: Tensor, space: Workspace) -> Tensor:
        """D loss / d (layer `i`'s input before its LeakyReLU) from `delta`, that of layer `i`'s own sums."""
        below = self._activations[i]
        out = space.take(f"delta {i % 2}", *below.shape)
        torch.bmm(delta, self._weights[i], out=out)
        # LeakyReLU keeps the sign, so its result says where it leaked (`self_is_result`).
        torch.ops.aten.leaky_relu_backward.grad_input(out, below, LEAK, True, grad_input=out)
        return out


def make_blocks(networks: Sequence[nn.Module], obs_dim: int, *, stacked: bool, row_groups: int = 1) -> list[Block]:
    """The networks in blocks, in order: all in one if `stacked` and they are MLPs, else one a block."""
    perceptrons = [network for network in networks if type(network) is MLPReward]
    if len(perceptrons) < len(networks):
        return [ModuleBlock(network, obs_dim) for network in networks]
    shares = [perceptrons] if stacked else [[network] for network in perceptrons]
    return [MLPBlock(share, row_groups=row_groups) for share in shares]
