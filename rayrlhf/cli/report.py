"""A run's numbers in words: the table at the end of `train` and of `eval`."""

from collections.abc import Mapping
from typing import Any

from rayrlhf.config.protocol import WITHOUT_SUCCESS
from rayrlhf.tracking.progress import duration


def result_rows(summary: Mapping[str, Any], how: str) -> list[tuple[str, str]]:
    """Rows `(name, value)` for what of a summary is known; `how` is the protocol."""
    rows: list[tuple[str, str]] = []
    for key, (name, words) in _ROWS.items():
        if summary.get(key) is not None:
            rows.append((name, words(summary)))
    return [*rows, ("protocol", how)]


def alignment_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows `(name, value)` for what `aligning.align` found."""
    rows = [(name, words(found[key])) for key, (name, words) in _ALIGNMENT.items() if key in found]
    return [(name, text) for name, text in rows if text]


def _held_out(answers: Mapping[str, Any]) -> str:
    own = (
        f"; {answers['asked_itself']:,} left out, which the run was asked, or its model fitted to"
        if answers["asked_itself"]
        else ""
    )
    return f"{answers['labels']:,} labels from {answers['from']}{own}"


def _agreement(found: Mapping[str, Any]) -> str:
    if found["agreed"] is None:
        return f"none of {found['equal']:,} labels prefers a side"
    equal = f"; {found['equal']:,} equal ones aside" if found["equal"] else ""
    tied = f", {found['tied']:,} ties count half" if found["tied"] else ""
    interval = f"95% interval {found['low']:.0%} to {found['high']:.0%}"
    return f"{found['agreed']:.0%} of {found['decisive']:,} decisive labels ({interval}{tied}){equal}"


def _calibration(found: Mapping[str, Any]) -> str:
    return (
        f"expected error {found['expected_calibration_error']:.3f}, Brier {found['brier_score']:.3f}, "
        f"negative log-likelihood {found['negative_log_likelihood']:.3f}"
    )


def _truth(found: Mapping[str, Any]) -> str:
    parts = []
    if found["epic"] is not None:
        parts.append(f"EPIC distance {found['epic']:.3f}")
    if found["per_step"]["pearson"] is not None:
        steps = found["per_step"]
        parts.append(f"per step Pearson {steps['pearson']:.2f}, Spearman {steps['spearman']:.2f}")
    if not parts:
        return "does not vary where it was compared"
    where = f"{found['transitions']:,} transitions, {found['distribution']}"
    return f"{'; '.join(parts)} ({where}; regression of the true reward R² {found['explained']:.2f})"


def _success(summary: Mapping[str, Any]) -> str:
    if not summary["success_rate"] and summary.get("suite") in WITHOUT_SUCCESS:
        return "none is defined by this task"
    text = f"{summary['success_rate']:.0%} of {summary['eval_episodes']} episodes"
    low, high = summary.get("success_low"), summary.get("success_high")
    return text if low is None or high is None else f"{text} (95% interval {low:.0%} to {high:.0%})"


def _algorithm(summary: Mapping[str, Any]) -> str:
    learns_from = f"teacher {summary.get('teacher', 'unknown')}"
    if summary.get("mode") == "oracle":
        learns_from = "the true reward"
    elif summary.get("reward_model"):
        learns_from = f"fixed reward model {summary['reward_model']}"
    return f"{summary['algorithm']}, {learns_from}, seed {summary.get('seed', 0)}"


_ROWS: dict[str, tuple[str, Any]] = {
    "task": ("task", lambda s: str(s["task"])),
    "algorithm": ("algorithm", _algorithm),
    "success_rate": ("success", _success),
    "tasks": ("by task", lambda s: ", ".join(f"{task} {rate:.0%}" for task, rate in s["tasks"].items())),
    "true_return_mean": ("return", lambda s: f"{s['true_return_mean']:,.1f}"),
    "time_to_success": ("time to success", lambda s: f"{s['time_to_success']:,.0f} steps"),
    "smoothness": ("smoothness", lambda s: f"{s['smoothness']:.3g}"),
    "labels": ("labels", lambda s: f"{s['labels']:,}" + (f" of {s['budget']:,}" if s.get("budget") else "")),
    "env_steps": ("environment steps", lambda s: f"{s['env_steps']:,}"),
    "updates": ("updates", lambda s: f"{s['updates']:,}"),
    "reward_model_accuracy": (
        "reward model",
        lambda s: f"orders {s['reward_model_accuracy']:.0%} of pairs of segments as the true reward does",
    ),
    "reward_model_pearson": (
        "alignment",
        lambda s: f"correlation {s['reward_model_pearson']:.2f} with the true reward",
    ),
    "wall_seconds": ("time", lambda s: duration(s["wall_seconds"])),
}
"""By key of the summary: its name in the table and its words."""
_ALIGNMENT: dict[str, tuple[str, Any]] = {
    "answers": ("held-out answers", _held_out),
    "reward_model": ("reward model", str),
    "reward_model_agreement": ("reward model agrees with", _agreement),
    "policy_agreement": ("policy agrees with", _agreement),
    "calibration": ("calibration", _calibration),
    "true_reward": ("true reward", _truth),
}
"""By key of what `aligning.align` found, the same."""
