"""Fitting an ensemble to the labels of a dataset, until what it has not seen is predicted no better any more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config import RewardOptions
from rayrlhf.evaluation.calibration import calibration
from rayrlhf.fitting.labelled import Labelled
from rayrlhf.fitting.split import Split
from rayrlhf.preferences.answers import Labels
from rayrlhf.rewards import RewardEnsemble, reward_scale
from rayrlhf.rewards.fit import mean_over_members
from rayrlhf.rewards.members import Arrays

Measures = dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training labels: its number from 1 on, mean loss and accuracy of the members while they learnt,
    and the held-out negative log-likelihood after it; none where nothing is held out."""

    number: int
    loss: float
    accuracy: float
    held_out: float | None


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    weights: of the best epoch, by the held-out labels, or of the last one   best: its number
    ended:   why it ended, in words   interrupted: by Ctrl-C
    training, held_out: measures of the weights; the latter none where nothing is held out
    """

    weights: Arrays
    epochs: list[Epoch]
    best: int
    ended: str
    interrupted: bool
    training: Measures
    held_out: Measures | None


def fit_labels(
    data: Labelled,
    split: Split | None,
    options: RewardOptions,
    *,
    seed: int,
    most: int,
    patience: int,
    device: str = "cpu",
    tell: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Fits to the training labels of `split` (none: to all) for up to `most` epochs; keeps the best epoch's weights.

    Ends once `patience` epochs in a row were no better on the held-out labels than the best one. Ctrl-C ends it, too:
    what is best so far is what it leaves. Before the first epoch's end that is nothing: KeyboardInterrupt is raised.

    Raises:
        FloatingPointError: the fit diverged.
    """
    training = data.labels if split is None else data.labels.take(split.training)
    held_out = None if split is None else data.labels.take(split.held_out)
    ensemble = RewardEnsemble(
        options, training.left.obs.shape[2], training.left.action.shape[2], seed=seed, device=device
    )
    epochs: list[Epoch] = []
    best, weights, ended = 0, ensemble.weights(), f"all {most} epochs"
    try:
        while len(epochs) < most:
            epochs.append(_epoch(ensemble, training, held_out, len(epochs) + 1))
            if held_out is None or not best or _loss(epochs[-1]) < _loss(epochs[best - 1]):
                best, weights = len(epochs), ensemble.weights()
            tell(epochs[-1])
            if len(epochs) - best >= patience:
                ended = f"no better on held-out labels for {patience} epochs"
                break
    except KeyboardInterrupt:
        if not best:
            raise
        ended = "Ctrl-C"
    ensemble.load_weights(weights)
    if options.normalize_rewards:
        ensemble.set_reward_scale(reward_scale([ensemble.labelled_rewards(training)]))
    tested = None if held_out is None else measures(ensemble, held_out)
    known = measures(ensemble, training)
    return Fitted(ensemble.weights(), epochs, best, ended, ended == "Ctrl-C", known, tested)


def _epoch(ensemble: RewardEnsemble, training: Labels, held_out: Labels | None, number: int) -> Epoch:
    report = ensemble.fit_epoch(training)
    loss = None if held_out is None else calibration(_probability(ensemble, held_out), held_out.target).log_likelihood
    return Epoch(number, float(report.loss.mean()), float(report.accuracy.mean()), loss)


def _loss(epoch: Epoch) -> float:
    assert epoch.held_out is not None
    return epoch.held_out


def _probability(ensemble: RewardEnsemble, labels: Labels) -> NDArray[np.float64]:
    """The ensemble's P(right) of each pair, `[N]`."""
    probability = mean_over_members([ensemble.probabilities(labels)])
    if not np.isfinite(probability).all():
        raise FloatingPointError("a probability is not a number")
    return probability


def measures(ensemble: RewardEnsemble, labels: Labels) -> Measures:
    """How well the ensemble predicts `labels`, all of them and, where there are several, by instruction.

    `accuracy` is the share of labels that prefer a side and whose side is predicted; none where all are equal.
    """
    probability = _probability(ensemble, labels)
    found = _measures(probability, labels.target)
    said = np.array(labels.instructions, object)
    if len(set(labels.instructions)) > 1:
        rows = {sentence: said == sentence for sentence in sorted(set(labels.instructions))}
        found["by_instruction"] = {
            sentence: _measures(probability[mask], labels.target[mask]) for sentence, mask in rows.items()
        }
    return found


def _measures(probability: NDArray[np.float64], target: NDArray[np.floating]) -> Measures:
    decisive = target != 0.5
    right = (probability > 0.5) == (target > 0.5)
    return {
        "labels": len(target),
        "decisive": int(decisive.sum()),
        "accuracy": float(right[decisive].mean()) if decisive.any() else None,
        **calibration(probability, target).row(),
    }
