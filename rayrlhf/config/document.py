"""The page of all options: `python -m rayrlhf.config.document > docs/options.md`."""

import sys

from rayrlhf.config.fields import Key, groups, keys, value_of
from rayrlhf.config.load import preset_names, preset_summary
from rayrlhf.config.schema import RunConfig

_HEAD = """# Options

Written by `python -m rayrlhf.config.document > docs/options.md` from `rayrlhf/config/schema.py`.

Each option is set in a YAML file (`queries:`, and `budget: 500` in a line below it), or on the command line
(`--queries.budget 500`, `--queries.budget=500` or `queries.budget=500`), which has the last word. An unknown key or a
wrong value is an error that names the key. `rayrlhf train PRESET --help` lists the same options with a preset's values.
"""


def options_page() -> str:
    """Every option of a run by group, with its default, what it takes and what it is for, and the presets."""
    defaults = RunConfig()
    parts = [_HEAD, "## Presets\n\n| preset | for |\n|---|---|"]
    parts += [f"| `{name}` | {_cell(preset_summary(name))} |" for name in preset_names()]
    for group, title in groups().items():
        heading = f"`{group}`: {title}" if group else title
        parts.append(f"\n## {heading}\n\n| option | default | takes | |\n|---|---|---|---|")
        parts += [_row(key, defaults) for key in keys().values() if key.name.rpartition(".")[0] == group]
    return "\n".join(parts) + "\n"


def _row(key: Key, defaults: RunConfig) -> str:
    return f"| `{key.name}` | `{value_of(defaults, key.name)}` | {_cell(key.wanted)} | {_cell(key.help)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(options_page())
