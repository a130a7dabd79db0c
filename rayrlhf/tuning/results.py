"""What a trial tells the search: one flat row for each evaluation."""

from collections.abc import Mapping
from pathlib import Path

from rayrlhf.tracking import RunDirectory
from rayrlhf.tuning.options import SearchConfig

STEPS = "env_steps"
OBJECTIVE = "objective"
FINISHED = "finished"
"""Key of the row after the final evaluation: nothing of the trial is left to do."""
Result = dict[str, float]


def result_of(search: SearchConfig, row: Mapping[str, float | None]) -> Result:
    """The row of an evaluation in `metrics.jsonl`, or a run's summary, as the search sees it."""
    success, labels = row.get("success_rate") or 0.0, row.get("labels") or 0.0
    per_label = success / labels if labels else 0.0
    return {
        STEPS: row.get("env_steps") or 0.0,
        "success_rate": success,
        "true_return": row.get("true_return_mean") or 0.0,
        "labels": labels,
        "minutes": (row.get("wall_seconds") or 0.0) / 60,
        OBJECTIVE: success if search.objective == "success_rate" else per_label,
    }


def folder_name(trial_id: str) -> str:
    """The folder of the trial with this id of Tune's: numbers in the order of drawing where Tune gives them."""
    return f"trial-{trial_id.rpartition('_')[2]}"


def past(search: SearchConfig, name: str) -> list[Result]:
    """What the trial in the folder `name` has told so far, oldest first."""
    run = RunDirectory(Path(search.folder) / name)
    return [result_of(search, row) for row in run.metrics() if row.get("success_rate") is not None]
