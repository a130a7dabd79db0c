"""A search's file: what is fixed, what is searched, how, and when it ends. Nothing here needs Ray."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from rayrlhf.config import RunConfig
from rayrlhf.config.fields import describe
from rayrlhf.config.load import config_of
from rayrlhf.config.options import Fraction, NonNegative, Options, Positive
from rayrlhf.config.yaml import dump_yaml, parse_yaml
from rayrlhf.errors import UserError, nearest
from rayrlhf.files import write_atomically

KINDS = ("grid", "choice", "uniform", "loguniform", "randint")
Range = tuple[float, float]


class Dimension(Options):
    """What is searched under one name: the option of that name, or `options`, or what the values name themselves.

    A value that is a mapping sets several options together.
    """

    options: tuple[str, ...] = ()
    """Options that take the value, all of them the same; none: the one that the entry is named after."""
    grid: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """Each of these values, crossed with the other grids."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """One of these values, drawn."""
    uniform: Range | None = None
    """A number between two, drawn."""
    loguniform: Range | None = None
    """A number between two above zero, drawn by its logarithm."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second, both included, drawn."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"wants one of {', '.join(KINDS)}, and has {' and '.join(given) or 'none'}")
        low, high = self.bounds or (0.0, 1.0)
        if not low < high:
            raise ValueError(f"{self.kind} wants its lower end first, and has {low:g} and {high:g}")
        if self.loguniform is not None and low <= 0:
            raise ValueError(f"loguniform wants both ends above 0, and has {low:g}")
        pairs = [value for value in self.values or () if isinstance(value, Mapping)]
        if pairs and (len(pairs) < len(self.values or ()) or len({frozenset(pair) for pair in pairs}) > 1):
            raise ValueError("values that set several options must all set the same ones")
        if pairs and self.options:
            raise ValueError("values that name their options leave no room for `options`")
        return self

    @property
    def kind(self) -> str:
        """Which of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """The values of a grid or a choice; none of a range."""
        return self.grid if self.grid is not None else self.choice

    @property
    def bounds(self) -> Range | None:
        """Both ends of a range."""
        return self.uniform or self.loguniform or self.randint


class SearcherOptions(Options):
    """How parameters are drawn."""

    name: Literal["grid", "random", "optuna"] = "random"
    """`grid`: all combinations. `random`: drawn, and all combinations of what is a grid. `optuna`: drawn where earlier
    trials were good."""
    seed: NonNegative = 0
    """What is drawn follows from it; with `optuna`, from the trials' results too."""


class AshaOptions(Options):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934)."""

    grace_steps: Positive | None = None
    """Environment steps before a trial may be stopped; none: evaluation.interval."""
    factor: Annotated[float, Field(gt=1.0)] = 3.0
    """One in so many goes on at each rung; rungs lie at grace_steps, and `factor` times further each."""


class MedianOptions(Options):
    """Stops a trial whose best is below the median of the others' averages until then (Golovin et al. 2017)."""

    grace_steps: Positive | None = None
    """Environment steps before a trial may be stopped; none: evaluation.interval."""
    min_trials: Positive = 3
    """Other trials that must have come as far."""


class PbtOptions(Options):
    """Population based training (Jaderberg et al. 2017, arXiv 1711.09846): bad trials go on from good ones."""

    interval_steps: Positive
    """Environment steps between two comparisons of a trial with the others."""
    quantile: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25
    """The worst of this share go on from a checkpoint of one of the best of this share, with other parameters."""
    resample: Fraction = 0.25
    """How often a parameter is drawn anew instead of being multiplied by 0.8 or 1.2, or moved to a value beside it."""


class SchedulerOptions(Options):
    """What becomes of trials on the way: one of these, or none, and then all go to their ends."""

    asha: AshaOptions | None = None
    median: MedianOptions | None = None
    pbt: PbtOptions | None = None

    @model_validator(mode="after")
    def _one_at_most(self) -> "SchedulerOptions":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"there can be one scheduler, not {' and '.join(given)}")
        return self

    @property
    def grace_steps(self) -> int | None:
        """Steps before a trial may be stopped, if told."""
        chosen = self.asha or self.median
        return chosen.grace_steps if chosen else None


class StopOptions(Options):
    """When a trial, or the search, ends before its time."""

    steps: Positive | None = None
    """Environment steps after which a trial is stopped."""
    success: Fraction | None = None
    """A trial is stopped once an evaluation has this success."""
    minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Minutes, over all resumes, after which all trials are stopped."""


class SearchConfig(Options):
    """One search, whole."""

    name: str
    """Its folder under `storage`; by default the file's name."""
    storage: str = "runs"
    """Folder in which each search has its own; on this machine, or mounted on all nodes."""
    run: RunConfig
    """What all trials share."""
    search: Annotated[dict[str, Dimension], Field(min_length=1)]
    """What differs."""
    searcher: SearcherOptions = SearcherOptions()
    samples: Positive = 1
    """Trials; with grids, trials of each combination."""
    scheduler: SchedulerOptions = SchedulerOptions()
    objective: Literal["success_rate", "success_per_label"] = "success_rate"
    """What is made large: the success in evaluations, or that by label spent. Never the learned reward."""
    stop: StopOptions = StopOptions()
    concurrent: Positive | None = None
    """Trials at a time; none: as many as there is room for."""

    @field_validator("searcher", mode="before")
    @classmethod
    def _named_searcher(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("scheduler", mode="before")
    @classmethod
    def _named_scheduler(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {given: {}}
        empty = isinstance(given, Mapping)  # `asha:` with nothing below it
        return {name: {} if options is None else options for name, options in given.items()} if empty else given or {}

    @property
    def folder(self) -> Path:
        """Where everything of the search lies."""
        return Path(self.storage) / self.name


SAVED = "search.yaml"
"""In a search's folder, what it was begun with."""


def load_search(path: Path, *, name: str | None = None, storage: str | None = None) -> SearchConfig:
    """The search in the YAML file `path`, or in the folder of one that has begun.

    Raises `UserError`, one line that names the key, for what is wrong in it.
    """
    if path.is_dir():
        place = path.resolve()
        name, storage, path = name or place.name, storage or str(place.parent), path / SAVED
    content = _content(path)
    options = dict(content) | {key: value for key, value in (("name", name), ("storage", storage)) if value is not None}
    for key in options:
        if key not in SearchConfig.model_fields:
            raise UserError(f"{path}: unknown key {key!r}{_near(key, SearchConfig)}")
    try:
        options["run"] = config_of(options.get("run") or {}, "run", path.parent)
    except UserError as error:
        raise UserError(f"{path}: run: {str(error).removeprefix('run: ')}") from error
    options.setdefault("name", path.stem)
    try:
        search = SearchConfig.model_validate(options)
    except ValidationError as error:
        details = error.errors()
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise UserError(f"{path}: {_sentence(details[0])}{more}") from error
    if search.name in ("", "..", ".") or Path(search.name).name != search.name:
        raise UserError(f"name is {search.name!r}: wanted a plain name, without folders; see storage")
    if "://" in search.storage:
        raise UserError(f"storage is {search.storage!r}: wanted a folder of this machine, or one mounted on all nodes")
    return search


def save_search(search: SearchConfig, path: Path) -> None:
    """Writes a file from which `load_search` reads an equal search."""
    tree = search.model_dump(mode="json", by_alias=True)
    tree["search"] = {
        name: {key: value for key, value in entry.items() if value is not None}
        for name, entry in tree["search"].items()
    }
    tree["scheduler"] = {name: options for name, options in tree["scheduler"].items() if options is not None}
    write_atomically(path, dump_yaml(tree))


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(path)!r}: wanted a search's, such as those in tune_configs/") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"cannot read {str(path)!r}: {reason}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: wanted `key: value` lines, found {type(content).__name__}")
    return content


def _sentence(detail: ErrorDetails) -> str:
    """One line for one of pydantic's errors."""
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    holder, annotation = _holder(path)
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_near(path[-1], holder)}"
    if detail["type"] == "value_error":
        return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    groups = _models(annotation)
    wanted = f"keys, of {', '.join(groups[0].model_fields)}" if groups else describe(annotation)
    return f"{key} is {detail['input']!r}, wanted {wanted}{_hint(detail['input'], annotation)}"


def _holder(path: list[str]) -> tuple[type[Options], Any]:
    """The group in which a key stands, and what the key takes; none where it is not known."""
    model: type[Options] = SearchConfig
    annotation: Any = None
    rest = list(path)
    while rest:
        field = model.model_fields.get(rest.pop(0))
        if field is None:
            return model, None
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        inner = _models(field.annotation)
        if get_origin(field.annotation) is dict and rest:
            rest.pop(0)  # an entry's name
        if not inner or not rest:
            break
        model = inner[0]
    return model, annotation


def _models(annotation: Any) -> list[type[Options]]:
    return [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Options)]


def _parts(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType, dict, Annotated):
        for part in get_args(annotation):
            yield from _parts(part)
    elif annotation is not NoneType:
        yield annotation


def _hint(given: Any, annotation: Any) -> str:
    choices = [str(choice) for part in _parts(annotation) if get_origin(part) is Literal for choice in get_args(part)]
    return nearest(str(given), choices)


def _near(key: str, model: type[Options]) -> str:
    known = list(model.model_fields)
    return nearest(str(key), known) or f"; there are {', '.join(known)}"
