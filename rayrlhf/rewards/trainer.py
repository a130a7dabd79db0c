"""One epoch over the labels: the Bradley-Terry loss, its gradient and Adam on one block of members.

P(right) = sigmoid(sum_t r(right) - sum_t r(left)). A member's loss is the binary cross-entropy against the target in
[0, 1], averaged over the batch; the ensemble's is the sum over members, so that each member learns at the scale of
its own learning rate (B-Pref; Christiano et al. 2017, section 2.2.3). No bootstrap: every member sees every label, in
an order of its own.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.rewards.blocks import Block
from rayrlhf.rewards.plan import Plan, Workspace
from rayrlhf.rewards.table import LabelTable

_ADAM_EPS = 1e-8


class BlockTrainer:
    """Adam on one block of members, and the loss and accuracy it sees on the way. Nothing waits for the device."""

    def __init__(self, block: Block, options: RewardOptions, plan: Plan, space: Workspace) -> None:
        self._block, self._plan, self._space = block, plan, space
        flat = block.parameters
        device = flat.values.device
        self._parameter = nn.Parameter(flat.values)  # shares memory with the networks' parameters
        self._parameter.grad = flat.gradients
        self._adam = torch.optim.Adam(
            [self._parameter], options.lr, eps=_ADAM_EPS, fused=True, capturable=device.type == "cuda"
        )
        self.adam_state = {
            "step": torch.zeros((), device=device),
            "exp_avg": torch.zeros_like(flat.values),
            "exp_avg_sq": torch.zeros_like(flat.values),
        }
        self._adam.state[self._parameter] = self.adam_state
        self._loss = torch.zeros(len(block.networks), device=device)
        self._right = torch.zeros(len(block.networks), device=device)
        self._sides = torch.tensor([-1.0, 1.0], device=device)
        self._graph: Any = None  # torch.cuda.CUDAGraph, untyped in PyTorch
        self._graph_key: tuple[int, ...] = ()
        self._held: dict[str, Tensor] = {}

    def epoch(self, table: LabelTable, order: Tensor, batch_size: int) -> Tensor:
        """One pass in `order` `[G, N]`. Returns sums over labels `[2, G]`: of the loss, and of right predictions."""
        self._loss.zero_()
        self._right.zero_()
        batch = min(batch_size, order.shape[1])
        for index, weight in self._batches(order, batch):
            if self._plan.graphed:
                self._replay(table, index, weight)
            else:
                self._step(table, index, weight)
        return torch.stack([self._loss, self._right])

    def _batches(self, order: Tensor, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Indices `[G, b]` and weights `[b]` of each batch's pairs; a weight is 1 / pairs, or 0 for padding."""
        batches = []
        for start in range(0, order.shape[1], batch):
            index = order[:, start : start + batch]
            real = index.shape[1]
            weight = torch.full((batch if self._plan.padded else real,), 1.0 / real, device=order.device)
            if self._plan.padded and real < batch:
                index = nn.functional.pad(index, (0, batch - real))
                weight[real:] = 0.0
            batches.append((index, weight))
        return batches

    @torch.no_grad()
    def _step(self, table: LabelTable, index: Tensor, weight: Tensor) -> None:
        """One Adam step on the pairs at `index` `[G, b]`, gradients summed over chunks that fit the plan."""
        self._block.parameters.gradients.zero_()
        pairs = index.shape[1]
        steps = table.inputs.shape[2]
        chunks = -(-pairs // max(1, self._plan.fit_rows // (2 * steps)))
        size = -(-pairs // chunks)
        for start in range(0, pairs, size):
            self._chunk(table, index[:, start : start + size], weight[start : start + size])
        self._adam.step()

    def _chunk(self, table: LabelTable, index: Tensor, weight: Tensor) -> None:
        """Adds the gradients, losses and right predictions of the pairs at `index` `[G, c]`."""
        members, pairs = index.shape
        _, _, steps, width = table.inputs.shape
        flat = index.reshape(-1)
        x = self._space.take("pairs", members * pairs, 2, steps, width)
        torch.index_select(table.inputs, 0, flat, out=x)
        target = table.target.index_select(0, flat).view(members, pairs)
        reward = self._block.forward(x.view(members, pairs * 2, steps, width), self._space)
        sums = reward.view(members, pairs, 2, steps).sum(-1)
        logit = sums[..., 1] - sums[..., 0]
        present = weight.sign()
        loss = nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
        self._loss += (loss * present).sum(1)
        self._right += ((logit * (target - 0.5) > 0) * present).sum(1)
        # d loss / d logit = P(right) - target; each step of a segment has that, with its side's sign
        slope = (torch.sigmoid(logit) - target) * weight
        gradient = (slope[..., None] * self._sides).view(members, pairs * 2, 1).expand(-1, -1, steps)
        self._block.backward(gradient, self._space)

    def _replay(self, table: LabelTable, index: Tensor, weight: Tensor) -> None:
        """The same step from a CUDA graph. It is captured anew when a shape or an address it holds has changed.

        The step before a capture runs eagerly and counts: it also sizes the workspace and wakes the libraries.
        """
        fixed_index, fixed_weight = self._fixed("index", index), self._fixed("weight", weight)
        if self._graph is not None and self._graph_key == self._key(table, index):
            self._graph.replay()
            return
        self._graph = None
        self._step(table, fixed_index, fixed_weight)
        torch.cuda.synchronize(index.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(table, fixed_index, fixed_weight)
        self._graph, self._graph_key = graph, self._key(table, index)

    def _fixed(self, name: str, value: Tensor) -> Tensor:
        """`value` copied to an address that a graph can hold, the same until its shape changes."""
        held = self._held.get(name)
        if held is None or held.shape != value.shape:
            held = self._held[name] = torch.empty_like(value)
            self._graph = None
        return held.copy_(value)

    def _key(self, table: LabelTable, index: Tensor) -> tuple[int, ...]:
        addresses = (table.inputs.data_ptr(), table.target.data_ptr())
        return (*addresses, *table.inputs.shape, index.shape[1], self._space.generation)
