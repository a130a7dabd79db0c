"""What `rayrlhf eval --answers` and the end of training found out about the reward models of a comparison's sides."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from rayrlhf.plotting.numbers import Words, per_cent
from rayrlhf.plotting.runs import ABSENT, Doubles, Method

_ALIGNED: dict[str, tuple[str, tuple[str, ...], Words]] = {
    "epic": ("EPIC distance from the true reward", ("true_reward", "epic"), "{:.3f}".format),
    "pearson": ("Pearson, per step", ("true_reward", "per_step", "pearson"), "{:.2f}".format),
    "spearman": ("Spearman, per step", ("true_reward", "per_step", "spearman"), "{:.2f}".format),
    "model": ("reward model agrees with held-out answers", ("reward_model_agreement", "agreed"), per_cent),
    "policy": ("policy agrees with them", ("policy_agreement", "agreed"), per_cent),
    "error": ("calibration error on them", ("calibration", "expected_calibration_error"), "{:.3f}".format),
    "brier": ("Brier score", ("calibration", "brier_score"), "{:.3f}".format),
    "likelihood": ("negative log-likelihood", ("calibration", "negative_log_likelihood"), "{:.3f}".format),
}
"""What `rayrlhf eval --answers` found: its name, where it is in `alignment.json`, its words."""
_MEASURED: dict[str, tuple[str, Words]] = {
    "reward_model_accuracy": ("orders pairs as the true reward", per_cent),
    "reward_model_pearson": ("Pearson, per segment", "{:.2f}".format),
}
"""What the final evaluation of training found, on its own episodes, with its words."""


def alignment_columns() -> list[str]:
    """Heads of `alignment_cells`."""
    return [name for name, _ in _MEASURED.values()] + [name for name, _, _ in _ALIGNED.values()]


def alignment_cells(side: Method) -> list[str]:
    """Means over the side's runs, with the lowest and highest where several differ."""
    summaries = [curve.run.summary() or {} for curve in side.curves]
    found = [alignment for curve in side.curves if (alignment := curve.run.alignment()) is not None]
    cells = [
        _mean([s[key] for s in summaries if s.get(key) is not None], words) for key, (_, words) in _MEASURED.items()
    ]
    for _, path, words in _ALIGNED.values():
        values = [_at(alignment, path) for alignment in found]
        cells.append(_mean([float(value) for value in values if value is not None], words))
    return cells


def _mean(values: Sequence[float], words: Words) -> str:
    if not values:
        return ABSENT
    spread = f" ({words(min(values))} to {words(max(values))})" if len(values) > 1 else ""
    return f"{words(fmean(values))}{spread}"


def _at(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def earlier_of(side: Method) -> list[str]:
    """Runs of the side that have gone on since they were measured, and at which step that was."""
    found = []
    for curve in side.curves:
        measured, trained = _at(curve.run.alignment(), ("env_steps",)), curve.env_steps[-1]
        if measured is not None and measured < trained:
            found.append(f"{curve.run.name} at {measured:,} of {trained:,.0f} steps")
    return found


def answers_of(side: Method) -> set[str]:
    """Where the held-out answers came from that the side's runs were measured by."""
    found = [_at(curve.run.alignment(), ("answers", "from")) for curve in side.curves]
    return {str(where) for where in found if where is not None}


def reliability(side: Method) -> tuple[Doubles, Doubles, Doubles] | None:
    """Mean predicted and observed P(right) and pairs of each bin, `[K]` each, of all the side's runs together.
    As `Calibration` has them, each pair in both orders.

    None where no run was measured. Empty bins are left out.
    """
    bins = [_at(curve.run.alignment(), ("calibration", "bins")) for curve in side.curves]
    bins = [found for found in bins if found is not None]
    if not bins:
        return None
    count = np.array([found["count"] for found in bins], dtype=np.float64)  # [R, K]
    sums = [np.array([found[name] for found in bins], dtype=np.float64) for name in ("predicted", "observed")]
    total = count.sum(axis=0)
    predicted, observed = (np.nansum(count * values, axis=0)[total > 0] / total[total > 0] for values in sums)
    return predicted, observed, total[total > 0]
