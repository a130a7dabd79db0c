"""The list of all options of a run, for `rayrlhf train --help`."""

import textwrap

from rayrlhf.config.fields import Key, groups, keys
from rayrlhf.config.schema import RunConfig

_WIDTH = 110


def keys_help(config: RunConfig, source: str) -> str:
    """Every option by group: its value in `config`, what it takes and what it is for. `source` names `config`."""
    tree = config.model_dump(mode="json", by_alias=True)
    parts = [f"options of a run (values: {source})"]
    for group, title in groups().items():
        parts.append(f"\n{group or 'run'}: {title}")
        parts += [
            _entry(key, _value(tree, key.name)) for key in keys().values() if key.name.rpartition(".")[0] == group
        ]
    return "\n".join(parts)


def _entry(key: Key, value: object) -> str:
    head = f"  --{key.name} {_said(value)}"
    about = f"{key.help} ({key.wanted})" if key.help else key.wanted
    return f"{head}\n{textwrap.fill(about, _WIDTH, initial_indent=' ' * 8, subsequent_indent=' ' * 8)}"


def _value(tree: dict[str, object], name: str) -> object:
    value: object = tree
    for part in name.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return value


def _said(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_said(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
