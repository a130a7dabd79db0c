"""What the verbs print: tables for people, one JSON object for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayrlhf.errors import harmless
from rayrlhf.tracking.directory import plain

_WIDTH = 120
"""Columns where the output is no terminal."""


def say(text: str = "") -> None:
    """One line."""
    print(harmless(text), flush=True)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table; the columns numbered in `right` are set to the right."""
    table = Table(
        title=Text(harmless(title)), title_justify="left", title_style="bold", show_header=any(columns), box=box.SIMPLE
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def finish(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Ends a verb: with `--json` its result is the last line."""
    if as_json:
        say(json.dumps(plain(result), allow_nan=False))
