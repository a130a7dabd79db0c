"""Linear layers with tanh between them, whose gradients are written out.

For networks of these sizes autograd's bookkeeping takes as long as the arithmetic; this is the chain rule and no more.
"""

import math

import torch
from torch import Tensor, nn

from rayrlhf.policies.networks import orthogonal


class TanhMlp(nn.Sequential):
    """Orthogonal layers with biases of zero; `gain` is the last one's, the others have the square root of 2."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, *, gain: float) -> None:
        linear = [nn.Linear(before, after) for before, after in zip((inputs, *hidden), (*hidden, outputs), strict=True)]
        layers: list[nn.Module] = []
        for layer in linear[:-1]:
            layers += [orthogonal(layer, math.sqrt(2)), nn.Tanh()]
        super().__init__(*layers, orthogonal(linear[-1], gain))
        self._linear = tuple(linear)

    @torch.no_grad()
    def activations(self, inputs: Tensor) -> list[Tensor]:
        """What each linear layer is given `[B, ...]`, the first one the inputs, and at the end the outputs."""
        values = [inputs]
        for layer in self._linear:
            value = torch.addmm(layer.bias, values[-1], layer.weight.t())
            values.append(value if layer is self._linear[-1] else value.tanh_())
        return values

    @torch.no_grad()
    def add_gradients(self, activations: list[Tensor], slope: Tensor) -> None:
        """Adds to the `grad` of each parameter, which must be there; `slope` `[B, ...]` is the loss's by outputs."""
        for layer, given in zip(reversed(self._linear), reversed(activations[:-1]), strict=True):
            weight = layer.weight
            assert weight.grad is not None and layer.bias.grad is not None
            weight.grad.addmm_(slope.t(), given)
            layer.bias.grad.add_(slope.sum(0))
            if layer is not self._linear[0]:
                slope = torch.ops.aten.tanh_backward(slope @ weight, given)
