"""Fitting: what an epoch reports, and when to stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.fragments import Floats, Integers

Shown = TypeVar("Shown")


@dataclass(frozen=True)
class EpochReport:
    """One pass over the labels, per member.

    loss:     `[E]` mean cross-entropy over labels
    accuracy: `[E]` share of labels that prefer a side and that the member predicted right; equal pairs do not count;
              0 if all labels are equal
    kept:     labels that were learnt from: not all where they are sifted (`reward.denoise`)
    pseudo:   `[E]` share of the pairs that nobody was asked about that the member was sure of; none: there were none

    Both are measured on the predictions made during the epoch, each just before the step that learns from it, as
    B-Pref does: they cost nothing and lag behind the fit by up to an epoch.
    """

    loss: Floats
    accuracy: Floats
    kept: int = 0
    pseudo: Floats | None = None


@dataclass(frozen=True)
class FitReport:
    """One fit: `epochs` run, and `loss` and `accuracy` `[E]`, `kept` and `pseudo` `[E]` of the last epoch."""

    epochs: int
    loss: Floats
    accuracy: Floats
    kept: int = 0
    pseudo: Floats | None = None


def fit_together(
    groups: Sequence[Callable[..., Any]],
    labels: Shown,
    options: RewardOptions,
    gather: Callable[[list[Any]], Sequence[Any]] = list,
    probabilities: Sequence[Callable[[Shown], Any]] = (),
) -> FitReport:
    """Runs epochs on all groups of members side by side until the mean accuracy over ALL members is reached.

    `groups` are `fit_epoch` methods, of local ensembles or of actors; all of one epoch's calls are made before
    `gather` waits for their reports (`list` for local ones, `ray.get` for actors, with `labels` an object reference).
    Members come in the groups' order. The result does not depend on how the members are split into groups: where
    labels are sifted by what all members predict, `probabilities` are the groups' methods of that name.
    """
    report = FitReport(0, np.zeros(0, np.float32), np.zeros(0, np.float32))
    for epoch in range(1, options.epochs + 1):
        whole: tuple[NDArray[np.float64], ...] = ()
        if probabilities:
            whole = (mean_over_members(gather([predict(labels) for predict in probabilities])),)
        reports: Sequence[EpochReport] = gather([group(labels, *whole) for group in groups])
        loss = np.concatenate([part.loss for part in reports])
        accuracy = np.concatenate([part.accuracy for part in reports])
        sure = [part.pseudo for part in reports if part.pseudo is not None]
        pseudo = np.concatenate(sure) if sure else None
        report = FitReport(epoch, loss, accuracy, reports[0].kept, pseudo)
        if accuracy.mean() > options.target_accuracy:
            break
    return report


def mean_over_members(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean `[N]` over the members of all `parts` `[E_g, N]`; to the last digit, in whichever order they come."""
    mean: NDArray[np.float64] = np.sort(np.concatenate(parts), axis=0).mean(axis=0, dtype=np.float64)
    return mean


def reward_scale(rewards: Sequence[NDArray[np.float32]]) -> float:
    """What brings the members' mean to unit standard deviation: 1 / std, or 1 if it hardly varies.

    `rewards` are the groups' unscaled rewards `[E_g, ...]` of the labelled segments, in the members' order.
    """
    std = float(np.concatenate(rewards).mean(axis=0, dtype=np.float64).std())
    return 1.0 / std if std > 1e-8 else 1.0


def shuffles(members: Sequence[int], count: int, generator: Callable[[int], np.random.Generator]) -> Integers:
    """An order of `count` labels for each member, `[E, count]`, each from the member's own generator."""
    return np.stack([generator(member).permutation(count) for member in members])
