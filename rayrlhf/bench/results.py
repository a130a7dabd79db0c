"""Results of runs in Parquet files, one for each: they are found again, merged, and committed one by one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayrlhf.bench.suites import Planned, digest_of
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.plotting import Curve
from rayrlhf.plotting.runs import MEASURES, evaluations
from rayrlhf.preferences.storage import locate, whole_file
from rayrlhf.tracking import RunDirectory

_KEY = b"rayrlhf"
"""Of the JSON object in a file's schema that says which run it was."""
COLUMNS = ("env_steps", "labels", "success_rate", "true_return_mean", "wall_seconds")


@dataclass(frozen=True)
class Result:
    """A run that came to its end.

    curve: its evaluations   success: of the final evaluation's episodes, 0 to 1
    facts: device, date, versions, command, mean true return
    """

    task: str
    method: str
    seed: int
    curve: Curve
    success: float
    facts: dict[str, Any]

    def score(self, measure: str) -> float:
        """`success`, or `true_return` of the final evaluation; of an older result the last one's during training."""
        if measure == "success":
            return self.success
        return float(self.facts.get("true_return", self.curve.values["true_return_mean"][-1]))


def place_of(folder: Path, run: Planned) -> Path:
    """Where the result of `run` is, or will be."""
    return folder / run.method / run.task / f"seed-{run.seed}.parquet"


def store(folder: Path, run: Planned, done: RunDirectory) -> None:
    """Writes the result of `run`, whose folder is `done`; whole or not at all. It must have ended."""
    summary, config = done.summary(), done.config()
    begun = json.loads(done.manifest_file.read_text(encoding="utf-8"))
    assert summary is not None and digest_of(config) == run.digest
    columns = {name: [row.get(name) for row in evaluations(done)] for name in COLUMNS}
    facts = {
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "config": config.model_dump(mode="json", by_alias=True),
        "success": summary["success_rate"],
        "true_return": summary["true_return_mean"],
        "episodes": summary["eval_episodes"],
        "wall_seconds": summary["wall_seconds"],
        "device": summary.get("device", "unknown"),
        "date": begun["started"][:10],
        "versions": begun["versions"],
        "command": " ".join(begun["command"]),
    }
    table = pa.table({name: pa.array(values, pa.float64()) for name, values in columns.items()})
    place = place_of(folder, run)
    with whole_file(*locate(place)) as stream:
        pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(facts)}), stream)


def read(folder: Path, run: Planned) -> Result | None:
    """The result of `run`, if it is there; none, too, where it is of other options. `UserError` for a broken file.

    Compared are options, not what they were written as: a result from before an option was added still counts.
    """
    place = place_of(folder, run)
    if not place.is_file():
        return None
    try:
        table = pq.read_table(place)
        facts = json.loads(table.schema.metadata[_KEY])
        columns = {name: np.array(table.column(name).to_pylist(), np.float64) for name in COLUMNS}
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{place} is no result of a run: {in_one_line(error)}") from error
    try:  # what was run: options that came later were at their defaults then
        config = RunConfig.model_validate(facts["config"])
    except ValueError:  # an option is gone: it is no run of today's
        return None
    if digest_of(config) != run.digest or config.seed != run.seed:
        return None
    values = {name: columns[name] for name in MEASURES}
    curve = Curve(RunDirectory(place), config, columns["env_steps"], columns["labels"], values)
    return Result(run.task, run.method, run.seed, curve, float(facts["success"]), facts)
