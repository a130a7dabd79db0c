"""Which labels to trust (RIME: Cheng et al. 2024, arXiv 2402.17257, section 4.1).

A label is compared with what the whole ensemble predicts: the divergence is KL(label || prediction), which for a label
that prefers a side is minus the logarithm of that side's probability. A label is

- trusted where it is below `-ln(rho) + alpha rho + min(beta s, 3)`: `rho` is the largest divergence of a trusted label
  (moved a tenth of the way each epoch, as the authors' code does), `s` the standard deviation of the trusted labels'
  divergences so far, and `beta` falls linearly from its first value to its last;
- turned round where it is above `-ln(denoise_flip)`: a label that the ensemble is almost sure to be wrong;
- else left out.

All of it is decided anew before each epoch, for all labels. At first every label is trusted.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.fragments import Bools, Floats

_RATE = 0.1
_MOST_UNCERTAINTY = 3.0
_TINY = 1e-8


def divergence(target: Floats, probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """KL(target || probability) in nats, `[N]`, of P(right preferred) `[N]`."""
    found = np.zeros(len(target))
    for said, predicted in ((target, probability), (1.0 - target, 1.0 - np.asarray(probability, np.float64))):
        said, predicted = np.asarray(said, np.float64), np.clip(predicted, _TINY, 1.0)
        found += said * (np.log(np.clip(said, _TINY, 1.0)) - np.log(predicted))
    return found


class Denoiser:
    """Keeps what it takes to decide, over all fits of a run."""

    def __init__(self, options: RewardOptions) -> None:
        self._options = options
        self._epochs = 0
        self._largest = 0.0
        self._count, self._mean, self._square = 0.0, 0.0, 0.0

    def sift(self, target: Floats, probability: NDArray[np.floating]) -> tuple[Bools, Bools]:
        """Which labels to fit to, which of these to turn round, `[N]` each; `probability` `[N]` is the ensemble's."""
        found = divergence(target, probability)
        trusted = found < self._threshold()
        flipped = found > -math.log(self._options.denoise_flip)
        self._epochs += 1
        if trusted.any():
            self._see(found[trusted])
        return trusted | flipped, flipped

    def _threshold(self) -> float:
        first, last = self._options.denoise_beta
        beta = max(last, first - (first - last) * self._epochs / self._options.denoise_epochs)
        deviation = math.sqrt(self._square / self._count) if self._count else 0.0
        base = -math.log(self._largest + _TINY) + self._options.denoise_alpha * self._largest
        return base + min(beta * deviation, _MOST_UNCERTAINTY)

    def _see(self, trusted: NDArray[np.float64]) -> None:
        self._largest += _RATE * (float(trusted.max()) - self._largest)
        delta, total = float(trusted.mean()) - self._mean, self._count + len(trusted)
        self._square += float(trusted.var()) * len(trusted) + delta * delta * self._count * len(trusted) / total
        self._mean += delta * len(trusted) / total
        self._count = total

    def state(self) -> NDArray[np.float64]:
        """Everything, `[5]`."""
        return np.array([self._epochs, self._largest, self._count, self._mean, self._square])

    def load_state(self, state: NDArray[np.generic]) -> None:
        """Restores what `state` gave."""
        epochs, self._largest, self._count, self._mean, self._square = state.tolist()
        self._epochs = int(epochs)
