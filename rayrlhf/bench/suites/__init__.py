"""Suites of runs that are compared: methods on tasks, with several seeds each, and what others have published of them.

A suite is a YAML file beside this one:

    run:        options of all runs, by dotted key
    methods:    by name, a preset or YAML file as `base`, and options
    tasks:      by name, which is `env.task`, options such as labels and steps
    seeds:      a list
    published:  `source`, `columns`, and `rows` by task, as they were printed
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from rayrlhf.config import RunConfig
from rayrlhf.config.load import load_config, overridden
from rayrlhf.config.options import NonNegative, Options
from rayrlhf.config.yaml import parse_yaml
from rayrlhf.errors import UserError, nearest

Values = dict[str, Any]
_FOLDER = Path(__file__).parent
_ASIDE: Any = dict.fromkeys(
    ("seed", "name", "storage_path", "work_path", "tracking", "checkpoint", "resources"), True
) | {"explore": {"save"}, "evaluation": {"videos"}, "env": {"threads"}, "rollout": {"timeout_seconds"}}
"""Options that say where and how a run is computed, not what it is."""


class Published(Options):
    """Others' results."""

    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[str | int | float, ...]]


class Comparison(Options):
    """How the methods are compared with one of them, fixed before anything is run.

    against: the method
    measure: of the final evaluation: share of episodes solved, or mean true return
    equal_within: one equals the other where the 90 % interval of the difference of their IQMs is within so much
    """

    against: str
    measure: Literal["success", "true_return"] = "success"
    equal_within: float = 0.1


class Suite(Options):
    """One suite, whole."""

    compare: Comparison | None = None
    run: Values = Field(default_factory=dict)
    methods: dict[str, Values]
    tasks: dict[str, Values]
    seeds: tuple[NonNegative, ...]
    published: Published | None = None


@dataclass(frozen=True)
class Planned:
    """One run of a suite."""

    task: str
    method: str
    seed: int
    config: RunConfig

    @property
    def digest(self) -> str:
        """What tells runs with other options from it."""
        return digest_of(self.config)


def names() -> list[str]:
    """The suites there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(name: str) -> Suite:
    """The suite `name`, or in the YAML file of that name. Raises `UserError` for one that is malformed."""
    path = _FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if not path.is_file():
        raise UserError(f"there is no suite {name!r}{_near(name, names())}")
    try:
        suite = Suite.model_validate(parse_yaml(path.read_text(encoding="utf-8"), str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if suite.compare is not None:
        _chosen("method", [suite.compare.against], suite.methods)
    return suite


def plan(
    suite: Suite, tasks: Sequence[str] | None, methods: Sequence[str] | None, seeds: Sequence[int] | None
) -> list[Planned]:
    """The suite's runs, or those of them that are chosen: seeds outermost, so that early ones say something of all.

    Raises `UserError` for what the suite does not have, and for options that a run does not take.
    """
    chosen_tasks = _chosen("task", tasks, suite.tasks)
    chosen_methods = _chosen("method", methods, suite.methods)
    wanted_seeds = None if seeds is None else [str(seed) for seed in seeds]
    chosen_seeds = [int(seed) for seed in _chosen("seed", wanted_seeds, [str(seed) for seed in suite.seeds])]
    bases = {method: load_config(str(suite.methods[method].get("base", "")), []) for method in chosen_methods}
    planned = []
    for seed in chosen_seeds:
        for task in chosen_tasks:
            for method in chosen_methods:
                own = {key: value for key, value in suite.methods[method].items() if key != "base"}
                values = {**suite.run, **own, "env.task": task, **suite.tasks[task], "seed": seed}
                planned.append(Planned(task, method, seed, overridden(bases[method], values)))
    return planned


def _chosen(what: str, given: Iterable[str] | None, there: Iterable[str]) -> list[str]:
    chosen = list(there if given is None else given)
    for name in chosen:
        if name not in there:
            raise UserError(f"the suite has no {what} {name!r}{_near(name, there)}")
    return chosen


def _near(name: str, there: Iterable[str]) -> str:
    return nearest(name, there) or f"; there are {', '.join(there)}"


def digest_of(config: RunConfig) -> str:
    """What tells runs that differ in more than their seed, and in where and how they are computed."""
    tree = config.model_dump(mode="json", by_alias=True, exclude=_ASIDE)
    del tree["ppo" if config.algorithm == "pebble" else "sac"]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
