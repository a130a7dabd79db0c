"""How far people agree: Krippendorff's alpha."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from rayrlhf.preferences.answers import TARGETS, Choice


def krippendorff_alpha(
    units: Sequence[Mapping[str, float]], difference: Literal["nominal", "interval"] = "interval"
) -> float | None:
    """Krippendorff's alpha of `units`, each the values that people gave it, by person. 1 is agreement, 0 chance.

    `interval` weighs two values by their squared difference, `nominal` by whether they differ. Units with fewer than
    two values say nothing. None where no value is paired, or all are the same: chance cannot be told from agreement.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections C and D.
    """
    paired = [np.array(list(unit.values()), dtype=np.float64) for unit in units if len(unit) > 1]
    if not paired:
        return None
    values, index = np.unique(np.concatenate(paired), return_inverse=True)
    coincidences = np.zeros((len(values), len(values)))
    start = 0
    for unit in paired:
        counts = np.bincount(index[start : start + len(unit)], minlength=len(values)).astype(np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
        start += len(unit)
    apart = values[:, None] - values[None, :]
    weight = apart**2 if difference == "interval" else (apart != 0).astype(np.float64)
    totals = coincidences.sum(axis=1)
    count = totals.sum()
    expected = (np.outer(totals, totals) * weight).sum() / (count - 1)
    return None if expected == 0 else float(1 - (coincidences * weight).sum() / expected)


def agreement(votes: Sequence[Mapping[str, Choice]]) -> float | None:
    """Alpha of what people said of questions, by person: left 0, equal 0.5, right 1; a skip is no value."""
    return krippendorff_alpha(
        [{who: TARGETS[choice] for who, choice in said.items() if choice != "skip"} for said in votes]
    )
