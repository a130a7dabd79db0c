"""The options of `RunConfig` as a flat list of dotted keys, for messages, overrides and help."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from rayrlhf.config.options import Options
from rayrlhf.config.schema import RunConfig

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "none",
}


@dataclass(frozen=True)
class Key:
    """One option: its dotted name, what it takes in words, whether plain text is taken as it stands, and its help."""

    name: str
    wanted: str
    is_text: bool
    is_list: bool
    is_flag: bool
    choices: tuple[str, ...]
    help: str


@cache
def keys() -> dict[str, Key]:
    """Every option by its dotted name, in the order of declaration."""
    return {key.name: key for key in _walk(RunConfig, "")}


def groups() -> dict[str, str]:
    """Each group of options and what it is for; the ungrouped ones stand under the empty name."""
    found = {"": "The run"}
    for name, field in RunConfig.model_fields.items():
        if _is_group(field.annotation):
            found[name] = (field.annotation.__doc__ or "").split("\n")[0]
    return found


def value_of(config: RunConfig, name: str) -> str:
    """The value of the option `name` in `config`, as an override writes it."""
    value: object = config.model_dump(mode="json", by_alias=True)
    for part in name.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return _written(value)


def _written(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_written(item) for item in value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def nearest_keys(name: str, count: int = 3) -> list[str]:
    """Known keys near the unknown dotted `name`, best first: spelt alike as a whole or in their last part."""
    likeness = {key: _likeness(name, key) for key in keys()}
    best = max(likeness.values())
    near = [key for key in keys() if likeness[key] >= max(0.7, best - 0.08)]
    return sorted(near, key=lambda key: -likeness[key])[:count]


def _likeness(name: str, key: str) -> float:
    leaves = SequenceMatcher(None, name.rpartition(".")[2], key.rpartition(".")[2]).ratio()
    return max(leaves * (0.9 if "." in name else 1.0), SequenceMatcher(None, name, key).ratio())


def _is_group(annotation: Any) -> TypeGuard[type[Options]]:
    return isinstance(annotation, type) and issubclass(annotation, Options)


def _walk(model: type[Options], prefix: str) -> Iterator[Key]:
    for attribute, field in model.model_fields.items():
        name = prefix + (field.alias or attribute)
        if _is_group(field.annotation):
            yield from _walk(field.annotation, f"{name}.")
        else:
            yield _key(name, field)


def _key(name: str, field: FieldInfo) -> Key:
    options = [part for part in _parts(field.annotation) if part is not NoneType]
    choices = tuple(str(choice) for part in options if get_origin(part) is Literal for choice in get_args(part))
    return Key(
        name=name,
        wanted=describe(field.annotation, tuple(field.metadata)),
        is_text=str in options or bool(choices),
        is_list=any(get_origin(part) is tuple for part in options),
        is_flag=bool in options,
        choices=choices,
        help=" ".join((field.description or "").split()).replace("`", ""),
    )


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def describe(annotation: Any, bounds: tuple[Any, ...] = ()) -> str:
    """What `annotation` takes, in words: "a whole number above 0", "one of a, b", "true or false"."""
    inner = getattr(annotation, "__metadata__", None)
    if inner is not None:
        return describe(annotation.__origin__, (*bounds, *inner))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(describe(part, bounds) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        many = "a list" if Ellipsis in items else f"a list of {len(items)} values"
        return f"{many}, each {describe(items[0])}"
    if get_origin(annotation) is dict:
        name, value = map(describe, get_args(annotation))
        return f"{{{name}: {value}, ...}}"
    return _WORDS.get(annotation, str(annotation)) + _bound_words(bounds)


def _bound_words(bounds: tuple[Any, ...]) -> str:
    flat = [bound for item in bounds for bound in (getattr(item, "metadata", None) or [item])]
    words = {Gt: "above", Ge: "of at least", Le: "of at most", Lt: "below"}
    limits = {Gt: "gt", Ge: "ge", Le: "le", Lt: "lt"}
    said = [f"{words[type(b)]} {getattr(b, limits[type(b)]):g}" for b in flat if type(b) in words]
    return f" {' and '.join(said)}" if said else ""
