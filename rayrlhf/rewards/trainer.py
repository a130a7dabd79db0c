"""One epoch over the labels: the Bradley-Terry loss, its gradient and Adam on one block of members.

P(right) = sigmoid(sum_t r(right) - sum_t r(left)). A member's loss is the binary cross-entropy against the target in
[0, 1], averaged over the batch; the ensemble's is the sum over members, so that each member learns at the scale of
its own learning rate (B-Pref; Christiano et al. 2017, section 2.2.3). No bootstrap: every member sees every label, in
an order of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.rewards.blocks import Block
from rayrlhf.rewards.crops import inside
from rayrlhf.rewards.plan import Plan, Workspace
from rayrlhf.rewards.table import LabelTable
from rayrlhf.rewards.unlabelled import Drawn, segments_at

_ADAM_EPS = 1e-8
_REGRESSION_BATCH = 512
Step = dict[str, Tensor]
"""What a step learns from: `index` `[G, b]` and `weight` `[b]` of its labels, with their `crops` `[G, b, 2, 2]`, and
`start` `[G, U, 2]` and crops `drawn` `[G, U, 2, 2]` of pairs that nobody was asked about; what there is of it."""


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
        self._rates: Tensor | None = None
        self._loss = torch.zeros(len(block.networks), device=device)
        self._right = torch.zeros(len(block.networks), device=device)
        self._sure = torch.zeros(len(block.networks), device=device)
        self._confidence, self._unlabelled_weight = options.unlabelled_confidence, options.unlabelled_weight
        self._sides = torch.tensor([-1.0, 1.0], device=device)
        self._graph: Any = None  # torch.cuda.CUDAGraph, untyped in PyTorch
        self._graph_key: tuple[int, ...] = ()
        self._held: dict[str, Tensor] = {}

    def epoch(
        self,
        table: LabelTable,
        order: Tensor,
        batch_size: int,
        crops: Tensor | None = None,
        drawn: Drawn | None = None,
    ) -> Tensor:
        """One pass in `order` `[G, N]`. Returns sums `[3, G]`.

        Over labels of the loss and of right predictions, and over the pairs `drawn` of those that got a pseudo-label.

        crops: `[G, N, 2, 2]` what of each label's segments counts, by label
        drawn: pairs for each step that nobody was asked about
        """
        for sums in (self._loss, self._right, self._sure):
            sums.zero_()
        batch = min(batch_size, order.shape[1])
        for number, (index, weight) in enumerate(self._batches(order, batch)):
            step = {"index": index, "weight": weight}
            if crops is not None:
                step["crops"] = crops.gather(1, index[..., None, None].expand(-1, -1, 2, 2))
            if drawn is not None:
                step |= {"start": drawn.start[:, number], "drawn": drawn.crops[:, number]}
            if self._plan.graphed:
                self._replay(table, drawn, step)
            else:
                self._step(table, drawn, step)
        return torch.stack([self._loss, self._right, self._sure])

    @torch.no_grad()
    def regress(self, inputs: Tensor, target: Tensor, order: Tensor) -> None:
        """One pass over `inputs` `[M, D]` in `order` `[G, M]`, by the mean squared error of `target` `[M]`."""
        for index in torch.split(order, _REGRESSION_BATCH, dim=1):
            self._block.parameters.gradients.zero_()
            x = inputs[index][:, :, None]
            error = self._block.forward(x, self._space)[..., 0] - target[index]
            self._block.backward((2.0 / index.shape[1]) * error[..., None], self._space)
            self._adam.step()

    def descend_by(self, rates: Mapping[str, float]) -> None:
        """From now on steps are those of gradient descent, with a rate for each parameter by its name, not Adam's."""
        flat = self._block.parameters
        self._rates = torch.zeros_like(flat.values)
        for name, rate in rates.items():
            flat.view(self._rates, name).fill_(rate)
        self._graph = None

    def _optimise(self) -> None:
        """One step by the gradients that are there."""
        if self._rates is None:
            self._adam.step()
        else:
            flat = self._block.parameters
            flat.values.addcmul_(self._rates, flat.gradients, value=-1.0)

    @torch.no_grad()
    def step_by(self, gradients: dict[str, Tensor]) -> None:
        """One Adam step by `gradients`, by parameter's name `[G, ...]`."""
        flat = self._block.parameters
        flat.gradients.zero_()
        for name, gradient in gradients.items():
            flat.view(flat.gradients, name).copy_(gradient)
        self._adam.step()

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
    def _step(self, table: LabelTable, drawn: Drawn | None, step: Step) -> None:
        """One Adam step on the pairs of `step`, gradients summed over chunks that fit the plan."""
        self._block.parameters.gradients.zero_()
        index, weight, crops = step["index"], step["weight"], step.get("crops")
        for part in self._parts(index.shape[1], table.inputs.shape[2]):
            self._chunk(table, index[:, part], weight[part], None if crops is None else crops[:, part])
        if drawn is not None:
            pairs = step["start"].shape[1]
            for part in self._parts(pairs, table.inputs.shape[2]):
                self._pseudo(table, drawn.inputs, step["start"][:, part], step["drawn"][:, part], pairs)
        self._optimise()

    def _parts(self, pairs: int, steps: int) -> list[slice]:
        """Pairs of segments of `steps` steps in chunks that fit the plan."""
        chunks = -(-pairs // max(1, self._plan.fit_rows // (2 * steps)))
        size = -(-pairs // chunks)
        return [slice(start, start + size) for start in range(0, pairs, size)]

    def _chunk(self, table: LabelTable, index: Tensor, weight: Tensor, crops: Tensor | None) -> None:
        """Adds the gradients, losses and right predictions of the pairs at `index` `[G, c]`."""
        members, pairs = index.shape
        _, _, steps, width = table.inputs.shape
        flat = index.reshape(-1)
        x = self._space.take("pairs", members * pairs, 2, steps, width)
        torch.index_select(table.inputs, 0, flat, out=x)
        target = table.target.index_select(0, flat).view(members, pairs)
        reward = self._block.forward(x.view(members, pairs * 2, steps, width), self._space)
        reward = reward.view(members, pairs, 2, steps)
        counted = None if crops is None else inside(crops, steps)
        sums = (reward if counted is None else reward * counted).sum(-1)
        logit = sums[..., 1] - sums[..., 0]
        present = weight.sign()
        loss = nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
        self._loss += (loss * present).sum(1)
        self._right += ((logit * (target - 0.5) > 0) * present).sum(1)
        # d loss / d logit = P(right) - target; each step of a segment has that, with its side's sign
        self._back((torch.sigmoid(logit) - target) * weight, counted, steps)

    def _back(self, slope: Tensor, counted: Tensor | None, steps: int) -> None:
        """From d loss / d logit `[G, c]` to the parameters, through the steps that were `counted` `[G, c, 2, S]`."""
        members, pairs = slope.shape
        by_side = (slope[..., None] * self._sides)[..., None]
        gradient = by_side.expand(-1, -1, -1, steps) if counted is None else by_side * counted
        self._block.backward(gradient.reshape(members, pairs * 2, steps), self._space)

    def _pseudo(self, table: LabelTable, inputs: Tensor, start: Tensor, crops: Tensor, total: int) -> None:
        """Adds the gradients of `c` of `total` pairs that nobody was asked about, `start` `[G, c, 2]`.

        Each member labels what it is sure of: by the steps that a teacher would have seen, for a crop. Its loss is the
        mean over all of the pairs, sure or not (SURF, section 4.1).
        """
        members, pairs = start.shape[:2]
        _, _, steps, width = table.inputs.shape
        x = self._space.take("drawn", members * pairs * 2, steps, width)
        segments_at(inputs, start, steps, x)
        reward = self._block.forward(x.view(members, pairs * 2, steps, width), self._space)
        reward = reward.view(members, pairs, 2, steps)
        margin = (steps - table.length) // 2
        shown = reward[..., margin : steps - margin].sum(-1)
        logit = shown[..., 1] - shown[..., 0]
        sure = torch.sigmoid(logit.abs()) >= self._confidence
        self._sure += sure.sum(1)
        counted = inside(crops, steps)
        sums = (reward * counted).sum(-1)
        error = torch.sigmoid(sums[..., 1] - sums[..., 0]) - (logit > 0).float()
        self._back(error * sure * (self._unlabelled_weight / total), counted, steps)

    def _replay(self, table: LabelTable, drawn: Drawn | None, step: Step) -> None:
        """The same step from a CUDA graph. It is captured anew when a shape or an address it holds has changed.

        The step before a capture runs eagerly and counts: it also sizes the workspace and wakes the libraries.
        """
        fixed = {name: self._fixed(name, value) for name, value in step.items()}
        if self._graph is not None and self._graph_key == self._key(table, drawn, step):
            self._graph.replay()
            return
        self._graph = None
        self._step(table, drawn, fixed)
        torch.cuda.synchronize(step["index"].device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(table, drawn, fixed)
        self._graph, self._graph_key = graph, self._key(table, drawn, step)

    def _fixed(self, name: str, value: Tensor) -> Tensor:
        """`value` copied to an address that a graph can hold, the same until its shape changes."""
        held = self._held.get(name)
        if held is None or held.shape != value.shape:
            held = self._held[name] = torch.empty_like(value)
            self._graph = None
        return held.copy_(value)

    def _key(self, table: LabelTable, drawn: Drawn | None, step: Step) -> tuple[int, ...]:
        tensors = [table.inputs, table.target, *([] if drawn is None else [drawn.inputs])]
        addresses = [tensor.data_ptr() for tensor in tensors]
        return (*addresses, *table.inputs.shape, table.length, step["index"].shape[1], self._space.generation)
