"""From what a searcher draws to the config of a trial, and what is refused before anything is drawn.

A searcher knows numbers only: a value of a grid or a choice is drawn by its index, so that lists, texts and groups of
options can be searched as numbers are.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rayrlhf.config import RunConfig
from rayrlhf.config.load import overridden
from rayrlhf.errors import UserError
from rayrlhf.placement import Amounts, Placement, placement_of
from rayrlhf.tuning.options import Dimension, SearchConfig

Drawn = Mapping[str, float]
"""By name of the entry: the number drawn, or the index of the value."""
FIXED = ("name", "storage_path", "explore.save")
"""Options that belong to the search itself, or that trials would overwrite each other with."""
_INSIDE = 0.381966
"""A point within a range that is no whole number between whole numbers."""


def settings(search: SearchConfig, drawn: Drawn) -> dict[str, Any]:
    """The values of options that `drawn` stands for, by dotted key."""
    found: dict[str, Any] = {}
    for name, number in drawn.items():
        found |= _settings(name, search.search[name], number)
    return found


def run_of(search: SearchConfig, drawn: Drawn) -> RunConfig:
    """The config of the trial that `drawn` stands for; its name and folder are still the search's."""
    return overridden(search.run, settings(search, drawn))


def check_space(search: SearchConfig) -> None:
    """Refuses a search some of whose trials could not be: all that can be told without Ray."""
    _check_names(search)
    _check_searcher(search)
    runs = list(runs_to_check(search))
    if search.run.explore.save is not None:
        raise UserError("run.explore.save: all trials would write to one folder; save an exploration with train")
    for run in runs:
        if run.asks_people:
            raise UserError("the teacher human answers one run at a time: search with a scripted teacher")
        if run.env.suite == "dmc":
            raise UserError("DeepMind Control's tasks define no success, which a search goes by")
        if search.objective == "success_per_label" and run.mode == "oracle":
            raise UserError("objective success_per_label wants labels, and the mode oracle asks for none")
        _check_scheduler(search, run)


def runs_to_check(search: SearchConfig) -> Iterator[RunConfig]:
    """Each combination of the grids; with each of them, what else is searched at its values, or ends, one by one.

    Raises `UserError` for a value that is of the wrong type, out of range, or does not go with the others.
    """
    grids = {name: entry for name, entry in search.search.items() if entry.grid is not None}
    others = {name: entry for name, entry in search.search.items() if entry.grid is None}
    for indices in itertools.product(*(range(len(entry.values or ())) for entry in grids.values())):
        combination = dict(zip(grids, map(float, indices), strict=True))
        drawn = [{name: number} for name, entry in others.items() for number in probes(entry)]
        for also in drawn or [{}]:
            try:
                yield run_of(search, combination | also)
            except UserError as error:
                names = " and ".join(f"search.{name}" for name in (also or combination))
                raise UserError(f"{names}: {error}") from error


def placements_of(search: SearchConfig) -> list[Placement]:
    """The plan of each trial that there may be."""
    return [placement_of(run) for run in runs_to_check(search)]


def misfit(trials: Sequence[Placement], nodes: Sequence[Amounts]) -> str | None:
    """Why one of `trials` does not fit on `nodes`, which have nothing else to do; none where all of them do."""
    found = (trial.misfit(nodes, with_driver=True) for trial in trials)
    return next(filter(None, found), None)


def count(search: SearchConfig) -> int:
    """Trials of the whole search."""
    found = search.samples
    for entry in search.search.values():
        found *= len(entry.grid) if entry.grid is not None else 1
    return found


def _settings(name: str, entry: Dimension, number: float) -> dict[str, Any]:
    if entry.values is not None:
        value = entry.values[int(number)]
        if isinstance(value, Mapping):
            return dict(value)
    else:
        value = int(number) if entry.randint is not None else float(number)
    return dict.fromkeys(entry.options or (name,), value)


def probes(entry: Dimension) -> list[float]:
    """What of an entry is tried out: every value; of a range both ends and a point inside."""
    if entry.values is not None:
        return [float(index) for index in range(len(entry.values))]
    assert entry.bounds is not None
    low, high = entry.bounds
    return [low, high] if entry.randint is not None else [low, low + _INSIDE * (high - low), high]


def _check_names(search: SearchConfig) -> None:
    """No option twice, and none that belongs to the search."""
    seen: dict[str, str] = {}
    for name, entry in search.search.items():
        for option in _settings(name, entry, 0.0 if entry.values is not None else entry.bounds[0]):  # type: ignore[index]
            if option in FIXED:
                raise UserError(f"search.{name}: {option} is each trial's own and cannot be searched")
            if option in seen:
                raise UserError(f"search.{name}: {option} is searched under {seen[option]!r} already")
            seen[option] = name


def _check_searcher(search: SearchConfig) -> None:
    searcher = search.searcher.name
    for name, entry in search.search.items():
        if searcher == "grid" and entry.grid is None:
            raise UserError(f"search.{name}: the searcher grid takes grid, not {entry.kind}; draw with searcher random")
        if searcher == "optuna" and entry.grid is not None:
            raise UserError(f"search.{name}: the searcher optuna draws: write choice instead of grid")
    if search.scheduler.pbt is not None and searcher == "optuna":
        raise UserError("scheduler pbt changes parameters itself: use searcher random or grid, not optuna")
    if search.scheduler.pbt is not None and count(search) < 2:
        raise UserError("scheduler pbt wants a population: raise samples to at least 2")
    if search.scheduler.pbt is not None and search.concurrent is not None:
        raise UserError("scheduler pbt lets trials take turns, and `concurrent` would keep some from beginning")


def _check_scheduler(search: SearchConfig, run: RunConfig) -> None:
    scheduler, first = search.scheduler, run.evaluation.interval
    if scheduler == type(scheduler)():
        return
    if first >= run.total_steps:
        raise UserError(
            f"evaluation.interval ({first}) leaves no evaluation before total_steps ({run.total_steps}), and the "
            "scheduler would have nothing to go by"
        )
    pbt = scheduler.pbt
    told = {"grace_steps": scheduler.grace_steps, "interval_steps": None if pbt is None else pbt.interval_steps}
    for name, steps in told.items():
        if steps is not None and steps >= run.total_steps:
            kind = next(kind for kind in type(scheduler).model_fields if getattr(scheduler, kind) is not None)
            raise UserError(f"scheduler.{kind}.{name} ({steps}) must be below total_steps ({run.total_steps})")
