"""Where meta-weights have the learnt rates of the inner steps: beside the weights, a number for each tensor."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

RATES = "rates/"
"""How their names begin."""


def rates_in(weights: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """The learnt rates in what `Pretraining.weights` gave, by parameter's name."""
    return {name.removeprefix(RATES): value for name, value in weights.items() if name.startswith(RATES)}
