"""Runs as curves, and which of them are one method: those that differ in nothing but their seed.

(And in where and how often they write.)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config.load import flat as flattened
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.tracking.directory import Row, RunDirectory

Doubles = NDArray[np.float64]

SUCCESS, RETURN, LABELS = "success_rate", "true_return_mean", "labels"
"""Columns of `metrics.jsonl` that curves are made of."""
MEASURES = {SUCCESS: "success", RETURN: "true return of an episode"}


ABSENT = "—"


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run, `P` of them, in the order of their steps.

    env_steps, labels: `[P]`   values: by column of `metrics.jsonl`, `[P]`
    """

    run: RunDirectory
    config: RunConfig
    env_steps: Doubles
    labels: Doubles
    values: dict[str, Doubles]

    @property
    def uses_labels(self) -> bool:
        """Whether any labels were spent."""
        return bool(self.labels[-1] > 0)


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed alone, and perhaps in their task."""

    name: str
    curves: tuple[Curve, ...]


def read_curve(path: Path) -> Curve:
    """The evaluations of the run in `path`. Raises `UserError` where there are none to draw."""
    run = RunDirectory.open(path)
    rows = evaluations(run)
    if not rows:
        raise UserError(f"{str(path)!r} has no evaluation to draw yet: see evaluation.interval")
    values = {name: _column(rows, name) for name in MEASURES}
    return Curve(run, run.config(), _column(rows, "env_steps"), _column(rows, LABELS, 0.0), values)


def evaluations(run: RunDirectory) -> list[Row]:
    """The rows of a run's evaluations in the order of their steps; the final one may repeat the last step."""
    newest = {row["env_steps"] or 0: row for row in run.metrics() if row.get(SUCCESS) is not None}
    return [newest[step] for step in sorted(newest)]


def methods_of(curves: Sequence[Curve], *, across_tasks: bool = False) -> list[Method]:
    """Groups runs by all that matters in their configs; the names say where the groups differ.

    With `across_tasks` runs of different tasks may be one method.
    """
    trees = [_tree(curve.config, across_tasks) for curve in curves]
    groups: dict[str, list[Curve]] = {}
    for curve, tree in zip(curves, trees, strict=True):
        groups.setdefault(json.dumps(tree, sort_keys=True), []).append(curve)
    names = _names([group[0].config for group in groups.values()], across_tasks)
    return [Method(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True)]


def _column(rows: Sequence[Row], name: str, default: float = float("nan")) -> Doubles:
    values = (row.get(name) for row in rows)
    return np.array([default if value is None else value for value in values], dtype=np.float64)


def _tree(config: RunConfig, across_tasks: bool) -> dict[str, Any]:
    """What of a config makes a method: all but seed, names, what it writes and what its algorithm does not look at."""
    aside: Any = dict.fromkeys(
        ("seed", "name", "storage_path", "work_path", "tracking", "checkpoint", "resources"), True
    )
    aside |= {"explore": {"save", "from_"}, "evaluation": {"videos"}}
    aside |= {"env": {"threads", "task"} if across_tasks else {"threads"}}
    aside["sac" if config.algorithm == "prefppo" else "ppo"] = True
    if config.mode == "oracle":
        aside |= dict.fromkeys(("queries", "teacher", "reward"), True)
    return config.model_dump(mode="json", by_alias=True, exclude=aside)


def differing_options(configs: Sequence[RunConfig], *, across_tasks: bool = True) -> dict[str, list[Any]]:
    """By option: its value in each config, where they differ; `ABSENT` where it means nothing to one."""
    flats = [flattened(_tree(config, across_tasks)) for config in configs]
    every = dict.fromkeys(key for flat in flats for key in flat)
    different = [key for key in every if len({json.dumps(flat[key]) for flat in flats if key in flat}) > 1]
    return {key: [flat.get(key, ABSENT) for flat in flats] for key in different}


def _names(configs: Sequence[RunConfig], across_tasks: bool) -> list[str]:
    """A name for each config: its method, and the options (three at most) in which it differs from the others."""
    different = differing_options(configs, across_tasks=across_tasks)
    names = []
    for i, config in enumerate(configs):
        method = "true reward" if config.mode == "oracle" else config.algorithm.upper()
        own = {key: values[i] for key, values in different.items() if values[i] != ABSENT and key != "mode"}
        said = [f"{key} {in_words(value)}" for key, value in list(own.items())[:3]] + (["…"] if len(own) > 3 else [])
        names.append(", ".join([method, *said]))
    return names


def in_words(value: Any) -> str:
    """An option's value as one word."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
