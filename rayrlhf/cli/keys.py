"""The list of all options of a run, for `rayrlhf train --help`."""

import textwrap

from rayrlhf.config.fields import Key, groups, keys, value_of
from rayrlhf.config.schema import RunConfig

_WIDTH = 110


def keys_help(config: RunConfig, source: str) -> str:
    """Every option by group: its value in `config`, what it takes and what it is for. `source` names `config`."""
    parts = [f"options of a run (values: {source})"]
    for group, title in groups().items():
        parts.append(f"\n{group or 'run'}: {title}")
        parts += [
            _entry(key, value_of(config, key.name)) for key in keys().values() if key.name.rpartition(".")[0] == group
        ]
    return "\n".join(parts)


def _entry(key: Key, value: str) -> str:
    head = f"  --{key.name} {value}"
    about = f"{key.help} ({key.wanted})" if key.help else key.wanted
    return f"{head}\n{textwrap.fill(about, _WIDTH, initial_indent=' ' * 8, subsequent_indent=' ' * 8)}"
