"""Labels as tensors on the members' device, converted once and appended to."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards.members import Members, as_tensor
from rayrlhf.rewards.running import RunningMoments

_MIN_CAPACITY = 256


def _marks(labels: Labels, stop: int) -> Floats:
    """What tells the first `stop` labels from others at little cost: the ends of both segments, `[stop, M]`."""
    ends = [side.obs[:stop, step] for side in (labels.left, labels.right) for step in (0, -1)]
    acts = [side.action[:stop, step] for side in (labels.left, labels.right) for step in (0, -1)]
    return np.concatenate(ends + acts, axis=1)


class LabelTable:
    """All labels so far: `inputs` `[N, 2, S, D]` (left, right) as the networks take them, `target` `[N]`.

    `S` are the `T` steps that the teacher saw, with as many before and after as segments may be cut longer by
    (`reward.crop`); `known` `[N, 2, 2]` says from which step on to which they are there, the others are zeros.

    With `normalize_inputs` it also keeps the running moments of the labelled observations: each label enters them
    once, however often the labels are shown.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self.moments = RunningMoments((members.obs_dim,), device=members.device)
        self.seen = 0
        """Labels that have entered the moments."""
        self.known = np.empty((0, 2, 2), np.int64)
        self.length = 0
        """Steps that the teacher saw."""
        self._margin = members.options.crop
        self._given = False
        self._rows = 0
        self._marks: Floats | None = None
        self._inputs = torch.empty(0, 2, 0, members.obs_dim + members.action_dim, device=members.device)
        self._target = torch.empty(0, device=members.device)

    def __len__(self) -> int:
        return self._rows

    @property
    def inputs(self) -> Tensor:
        """`[N, 2, S, D]`, a view."""
        return self._inputs[: self._rows]

    @property
    def target(self) -> Tensor:
        """`[N]`, a view."""
        return self._target[: self._rows]

    def decisive_among(self, kept: NDArray[np.int64]) -> int:
        """Labels of those at `kept` that prefer a side."""
        return int((self.target[torch.from_numpy(kept).to(self.target.device)] != 0.5).sum())

    def turn_round(self, flipped: NDArray[np.bool_]) -> None:
        """Makes the opposite of the labels `flipped` `[N]`, until the next update."""
        mask = torch.from_numpy(flipped).to(self.target.device)
        self.target.copy_(torch.where(mask, 1.0 - self.target, self.target))

    def update(self, labels: Labels) -> None:
        """Makes the table hold exactly `labels`: all labels so far, the new ones last.

        What it holds already is not converted again; a changed target is taken over. Raises ValueError on segments
        of unequal length or other widths.
        """
        self._check(labels)
        self._see(labels)
        kept = self._rows if self._extends(labels) else 0
        if len(labels) > kept and self._members.options.normalize_inputs:
            kept = 0  # the moments have moved under the rows that are held
        self.length = labels.left.length
        self._grow(len(labels), self.length + 2 * self._margin)
        if len(labels) > kept:  # else nothing is to be done for a further epoch
            sides = labels.left, labels.right
            for side, segments in enumerate(sides):
                self._convert(segments, kept, self._inputs[kept : len(labels), side])
            if self._margin:
                self.known = np.stack([self._known(segments) for segments in sides], axis=1)
        self._rows = len(labels)
        self.target.copy_(as_tensor(labels.target, self._members.device))
        smoothing = self._members.options.label_smoothing
        if smoothing:
            self.target.lerp_(torch.full_like(self.target, 0.5), smoothing)
        self._marks = _marks(labels, len(labels))

    def _convert(self, segments: Segments, kept: int, out: Tensor) -> None:
        """Writes the segments from `kept` on into `out` `[K, S, D]`."""
        device, margin = self._members.device, self._margin
        obs, action = (as_tensor(column[kept:], device) for column in (segments.obs, segments.action))
        if not margin:
            self._members.inputs(obs, action, out)
            return
        context = torch.split(as_tensor(segments.with_margin(margin)[kept:], device), self._members.widths, dim=-1)
        wide = [
            torch.cat([around[:, :margin], column, around[:, margin:]], dim=1)
            for around, column in zip(context, (obs, action), strict=True)
        ]
        self._members.inputs(wide[0], wide[1], out).nan_to_num_(nan=0.0)

    def _known(self, segments: Segments) -> NDArray[np.int64]:
        """First step and end of what is there of each segment, `[N, 2]`."""
        margin = self._margin
        there = np.logical_and.reduce(np.isfinite(segments.with_margin(margin)), axis=2)
        before, after = there[:, :margin].sum(axis=1), there[:, margin:].sum(axis=1)
        return np.stack([margin - before, margin + segments.length + after], axis=1)

    def standardise_by(self, moments: Mapping[str, Tensor]) -> None:
        """Takes others' moments (`RunningMoments.state`) for those of the labelled observations, from now on."""
        self.moments.load_state(dict(moments))
        self._given = True
        self._members.set_input_moments(self.moments.mean, self.moments.std)
        self.forget_inputs()

    def keep_moments(self) -> None:
        """The members' moments are others' and stay as they are."""
        self._given = True
        self.forget_inputs()

    def forget_inputs(self) -> None:
        """Drops the converted labels, not the moments: the next update converts all again."""
        self._rows, self._marks = 0, None

    def _check(self, labels: Labels) -> None:
        wide = (self._members.obs_dim, self._members.action_dim)
        for segments in (labels.left, labels.right):
            if (segments.obs.shape[2], segments.action.shape[2]) != wide:
                raise ValueError(f"labels of other widths than obs {wide[0]} and action {wide[1]}")
        if labels.left.length != labels.right.length:
            raise ValueError(f"left segments have {labels.left.length} steps, right ones {labels.right.length}")

    def _see(self, labels: Labels) -> None:
        """Takes the observations of labels that were not seen before into the moments."""
        if not self._members.options.normalize_inputs or self._given or len(labels) <= self.seen:
            return
        for segments in (labels.left, labels.right):
            obs = as_tensor(segments.obs[self.seen :], self._members.device)
            self.moments.update(obs.reshape(-1, self._members.obs_dim))
        self.seen = len(labels)
        self._members.set_input_moments(self.moments.mean, self.moments.std)

    def _extends(self, labels: Labels) -> bool:
        """Whether the rows held are the first of `labels`."""
        same_length = self._inputs.shape[2] == labels.left.length + 2 * self._margin
        return (
            self._marks is not None
            and same_length
            and len(labels) >= self._rows
            and np.array_equal(_marks(labels, self._rows), self._marks)
        )

    def _grow(self, rows: int, steps: int) -> None:
        """Room for `rows` labels; capacity doubles, so that addresses rarely change."""
        if rows <= len(self._target) and steps == self._inputs.shape[2]:
            return
        capacity = max(_MIN_CAPACITY, len(self._target))
        while capacity < rows:
            capacity *= 2
        held, target = self.inputs, self.target
        width = self._inputs.shape[3]
        self._inputs = torch.empty(capacity, 2, steps, width, device=self._members.device)
        self._target = torch.empty(capacity, device=self._members.device)
        if held.shape[2] == steps:
            self._inputs[: len(held)] = held
            self._target[: len(target)] = target
