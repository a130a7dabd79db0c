"""The numbers of a comparison, as they stand in its tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from statistics import fmean

import numpy as np

from rayrlhf.evaluation.statistics import bootstrap_interval, improvement_interval, mann_whitney
from rayrlhf.plotting.runs import ABSENT, RETURN, SUCCESS, Curve, Doubles, Method
from rayrlhf.seeding import generator

Words = Callable[[float], str]
ALL_TASKS = "all tasks"


def per_cent(value: float) -> str:
    """`87%`."""
    return f"{round(value, 4) + 0.0:.0%}"  # of what rounding left below 0, 0


def number(value: float) -> str:
    """`1,234.5`, with as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"


WORDS: dict[str, Words] = {SUCCESS: per_cent, RETURN: number}


def tasks_of(methods: Sequence[Method]) -> list[str]:
    """The tasks of all runs, in order."""
    return list(dict.fromkeys(curve.config.env.task for method in methods for curve in method.curves))


def of_task(method: Method, task: str) -> Method:
    """The method's runs of one task."""
    return Method(method.name, tuple(curve for curve in method.curves if curve.config.env.task == task))


def ends(method: Method, measure: str, tasks: Sequence[str]) -> list[Doubles]:
    """The last evaluation of each run `[n]`, a stratum for each of `tasks` that there are runs of."""
    strata = [of_task(method, task).curves for task in tasks]
    return [np.array([curve.values[measure][-1] for curve in curves]) for curves in strata if curves]


def with_interval(strata: Sequence[Doubles], words: Words, rng: np.random.Generator) -> str:
    """The interquartile mean, with its 95% interval where every task has two runs."""
    if not strata:
        return ABSENT
    found = bootstrap_interval(strata, rng)
    middle = words(float(found.value))
    if any(len(stratum) < 2 for stratum in strata):
        return middle
    return f"{middle} ({words(float(found.low))} to {words(float(found.high))})"


@dataclass(frozen=True)
class Ending:
    """What a side's runs of a task, or of all, amount to, in words. `side` is its number."""

    side: int
    task: str
    runs: int
    success: str
    true_return: str
    labels: str
    env_steps: str
    minutes: str


def endings(sides: Sequence[Method]) -> list[Ending]:
    """A row for each task and side that has runs of it, and for all tasks where there are several.

    Returns of several tasks do not compare, nor does a side that lacks one of them.
    """
    tasks = tasks_of(sides)
    groups = [[task] for task in tasks] + ([tasks] if len(tasks) > 1 else [])
    return [
        _ending(index, side, chosen)
        for chosen in groups
        for index, side in enumerate(sides)
        if all(of_task(side, task).curves for task in chosen)
    ]


def _ending(index: int, side: Method, tasks: Sequence[str]) -> Ending:
    curves = [curve for task in tasks for curve in of_task(side, task).curves]
    success, returns = (
        with_interval(ends(side, measure, tasks), WORDS[measure], generator(0, "compare", measure))
        for measure in (SUCCESS, RETURN)
    )
    return Ending(
        side=index,
        task=_name(tasks),
        runs=len(curves),
        success=success,
        true_return=returns if len(tasks) == 1 else ABSENT,
        labels=_average([float(curve.labels[-1]) for curve in curves], "{:,.0f}"),
        env_steps=_average([float(curve.env_steps[-1]) for curve in curves], "{:,.0f}"),
        minutes=_average([spent for curve in curves if (spent := minutes(curve)) is not None], "{:,.1f}"),
    )


def _name(tasks: Sequence[str]) -> str:
    return tasks[0] if len(tasks) == 1 else ALL_TASKS


def minutes(curve: Curve) -> float | None:
    """How long the run took, by the clock; none while it has not ended."""
    seconds = (curve.run.summary() or {}).get("wall_seconds")
    return None if seconds is None else float(seconds) / 60.0


def _average(values: Sequence[float], form: str) -> str:
    return form.format(fmean(values)) if values else ABSENT


@dataclass(frozen=True)
class Improvement:
    """How probable it is that a run of `better` ends above one of `worse`; both are sides' numbers."""

    better: int
    worse: int
    task: str
    measure: str
    probability: float
    interval: tuple[float, float] | None
    p: float | None
    least_p: float | None
    """No lower p is possible with so few runs."""


def improvements(sides: Sequence[Method], measures: Sequence[str]) -> list[Improvement]:
    """Each later side against each earlier one, task by task, and averaged over common tasks where there are several.

    An average has no p: ranks of different tasks do not compare.
    """
    rows = []
    for measure in measures:
        for worse, better in combinations(range(len(sides)), 2):
            common = [t for t in tasks_of(sides) if all(of_task(sides[i], t).curves for i in (better, worse))]
            for tasks in [[task] for task in common] + ([common] if len(common) > 1 else []):
                rows.append(_improvement(sides, better, worse, tasks, measure))
    return rows


def _improvement(sides: Sequence[Method], better: int, worse: int, tasks: Sequence[str], measure: str) -> Improvement:
    ours, theirs = (ends(sides[index], measure, tasks) for index in (better, worse))
    several = all(len(stratum) > 1 for stratum in (*ours, *theirs))
    names = (sides[better].name, sides[worse].name)
    rng = generator(0, "improvement", measure, *tasks, *names)
    found = improvement_interval(ours, theirs, rng)
    tested = several and len(tasks) == 1
    return Improvement(
        better=better,
        worse=worse,
        task=_name(tasks),
        measure=measure,
        probability=float(found.value),
        interval=(float(found.low), float(found.high)) if several else None,
        p=mann_whitney(ours[0], theirs[0], rng) if tested else None,
        least_p=min(1.0, 2.0 / comb(len(ours[0]) + len(theirs[0]), len(ours[0]))) if tested else None,
    )
