"""From a preset or a YAML file, and overrides, to a `RunConfig`; every mistake is one line that names the key."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rayrlhf.config.fields import keys, nearest_keys
from rayrlhf.config.schema import RunConfig
from rayrlhf.config.yaml import dump_yaml, parse_yaml
from rayrlhf.errors import UserError, nearest
from rayrlhf.files import write_atomically

Tree = dict[str, Any]


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a preset's name, a YAML file or a run's folder, with `overrides` on top.

    overrides: `--a.b value`, `--a.b=value` or `a.b=value`; `--a.b` alone sets a true-or-false option; dashes in a key
    are read as underscores

    Raises `UserError`, one line, for all that is wrong with any of them.
    """
    tree = _read(name_or_path, seen=())
    for key, value in parse_overrides(overrides):
        _set(tree, key, value)
    return _validated(tree)


def config_of(content: Any, source: str, folder: Path | None = None) -> RunConfig:
    """The config that stands in another file: a preset's name, or options with or without a `base`.

    `source` names the place in errors; `folder` is where a `base` may lie.
    """
    return _validated(_tree({"base": content} if isinstance(content, str) else content, source, folder, seen=()))


def overridden(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`config` with the values of some dotted keys replaced. Raises `UserError`, one line, where they are not right."""
    tree = config.model_dump(mode="json", by_alias=True)
    for key, value in values.items():
        _set(tree, key, value)
    return _validated(tree)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config's tree by dotted key, as `overridden` takes it."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, dict) and key not in keys() else {key: value}
    return found


def save_config(config: RunConfig, path: Path) -> None:
    """Writes `config` to the YAML file `path`, atomically; `load_config` gives back an equal one."""
    tree = config.model_dump(mode="json", by_alias=True)
    write_atomically(path, dump_yaml(tree))


def preset_names() -> list[str]:
    """The presets that come with the package, sorted."""
    folder = resources.files("rayrlhf") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """The first comment line of a preset: what it is for."""
    first = _preset_text(name).partition("\n")[0]
    return first.removeprefix("#").strip()


def parse_overrides(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of command line overrides. Raises `UserError` where one has no value."""
    found: list[tuple[str, Any]] = []
    words = list(overrides)
    while words:
        word = words.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if not equals:
            if not word.startswith("--"):
                raise UserError(f"unexpected argument {word!r}: an override is written --key value or key=value")
            text = _next_value(key, words)
        found.append((key, _typed(key, text)))
    return found


def _next_value(key: str, words: list[str]) -> str:
    """Takes the value that follows `--key`; a true-or-false option may stand alone."""
    known = keys().get(key)
    missing = not words or words[0].startswith("--")
    if missing and known is not None and known.is_flag:
        return "true"
    if missing:
        raise UserError(f"--{key} has no value; wanted {known.wanted}" if known else _unknown(key))
    return words.pop(0)


def _typed(key: str, text: str) -> Any:
    """The value that `text` stands for: as written where the option is text, else read as YAML."""
    known = keys().get(key)
    if known is not None and known.is_text:
        return _none_or_text(text)
    value = parse_yaml(text, f"value of {key}")
    if known is not None and known.is_list and not isinstance(value, list):
        return [parse_yaml(part, f"value of {key}") for part in text.split(",")]
    return value


def _none_or_text(text: str) -> str | None:
    """Text need not be YAML: a path may begin with what means something there."""
    try:
        return None if parse_yaml(text, "") is None else text
    except UserError:
        return text


def _read(name_or_path: str, seen: tuple[str, ...]) -> Tree:
    """The options of one source over those of its `base`, as a nested dictionary without validation."""
    text, source, folder = _source(name_or_path)
    if source in seen:
        raise UserError(f"{source}: its `base` leads back to itself")
    return _tree(parse_yaml(text, source), source, folder, seen)


def _tree(content: Any, source: str, folder: Path | None, seen: tuple[str, ...]) -> Tree:
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{source}: wanted `key: value` lines, found {type(content).__name__}")
    content = dict(content or {})
    base = content.pop("base", None)
    tree: Tree = {}
    if base is not None:
        near = folder / str(base) if folder else None
        tree = _read(str(near) if near and near.exists() else str(base), (*seen, source))
    try:
        _merge(tree, content)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return tree


def _merge(tree: Tree, content: Mapping[Any, Any], prefix: str = "") -> None:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in keys():
            _merge(tree, value, f"{key}.")
        elif value is None and key in RunConfig.model_fields and key not in keys():
            continue  # a group whose lines are all commented out
        else:
            _set(tree, key, value)


def _set(tree: Tree, key: str, value: Any) -> None:
    """Puts `value` under the dotted `key`. Raises `UserError` for keys that no option has."""
    known = keys().get(key)
    if known is None and f"{key}.name" in keys():  # `teacher: human`
        key = f"{key}.name"
        known = keys()[key]
    if known is None:
        raise UserError(_unknown(key))
    if isinstance(value, bool) and not known.is_flag:  # pydantic would read true as 1
        raise UserError(f"{key} is {str(value).lower()}, wanted {known.wanted}")
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _unknown(key: str) -> str:
    close = nearest_keys(key)
    if key in RunConfig.model_fields:
        return f"{key!r} is a group of options, not an option: set one of its keys, such as {key}.{_first_of(key)}"
    hint = f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else "; see rayrlhf train --help"
    return f"unknown key {key!r}{hint}"


def _first_of(group: str) -> str:
    return next(name for name in keys() if name.startswith(f"{group}.")).partition(".")[2]


def _source(name_or_path: str) -> tuple[str, str, Path | None]:
    """Text, name for messages and folder (files only) of a preset, a YAML file or a run's folder."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.yaml").is_file():
        path = path / "config.yaml"
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    if not is_path and name_or_path in preset_names():
        return _preset_text(name_or_path), f"preset {name_or_path}", None
    if not is_path and not path.is_file():
        hint = nearest(name_or_path, preset_names()) or f"; presets: {', '.join(preset_names())}"
        raise UserError(f"no preset and no file is called {name_or_path!r}{hint}")
    try:
        return path.read_text(encoding="utf-8"), str(path), path.parent
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"cannot read config {str(path)!r}: {reason}") from error


def _preset_text(name: str) -> str:
    return (resources.files("rayrlhf") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def _validated(tree: Tree) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        details = error.errors()
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise UserError(_sentence(details[0]) + more) from error


def _sentence(detail: ErrorDetails) -> str:
    """One line for one of pydantic's errors."""
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in detail["loc"])
    known = next((keys()[name] for name in (key, key.rpartition(".")[0]) if name in keys()), None)
    given = detail["input"]
    wanted = known.wanted if known else detail["msg"]
    hint = nearest(str(given), known.choices) if known else ""
    return f"{known.name if known else key} is {given!r}, wanted {wanted}{hint}"
