"""A run's numbers in words: the table at the end of `train` and of `eval`."""

from collections.abc import Mapping
from typing import Any

from rayrlhf.tracking.progress import duration


def result_rows(summary: Mapping[str, Any], how: str) -> list[tuple[str, str]]:
    """Rows `(name, value)` for what of a summary is known; `how` is the protocol."""
    rows: list[tuple[str, str]] = []
    for key, (name, words) in _ROWS.items():
        if summary.get(key) is not None:
            rows.append((name, words(summary)))
    return [*rows, ("protocol", how)]


def _success(summary: Mapping[str, Any]) -> str:
    if not summary["success_rate"] and summary.get("suite") in _WITHOUT_SUCCESS:
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


_WITHOUT_SUCCESS = ("dmc", "gymnasium")
"""Suites whose tasks say nothing of success, but for Gymnasium's where `info` has it."""
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
