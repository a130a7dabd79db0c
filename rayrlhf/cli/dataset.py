"""`rayrlhf dataset`: preference data in and out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rayrlhf.cli import generate
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.errors import UserError, nearest
from rayrlhf.files import is_url
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.exchange import export_file, import_file, info
from rayrlhf.preferences.storage import child, exists

_Where = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
_File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class InfoOptions:
    """What a dataset holds: sessions, questions, answers by choice, annotators, shapes."""

    dataset: _Where
    """A run's folder, a folder of preferences, or its URI."""
    json: bool = False
    """Print one JSON object, as the last line."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a dataset to one file."""

    dataset: _Where
    """A run's folder, a folder of preferences, or its URI."""
    file: _File
    """NAME.parquet or NAME.jsonl."""
    overwrite: bool = False
    """Replace the file where it exists."""
    json: bool = False
    """Print one JSON object, as the last line."""


@dataclass(frozen=True)
class ImportOptions:
    """Merge a file into a dataset; an answer it already has stays as it is."""

    dataset: _Where
    """A folder of preferences, made if it is not there, or its URI."""
    file: _File
    """NAME.parquet or NAME.jsonl."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf dataset ARGS`."""
    what = args[0] if args else ""
    if what in ("-h", "--help"):
        say("usage: rayrlhf dataset info|export|import|generate ...\n")
        kinds = (("info", InfoOptions), ("export", ExportOptions), ("import", ImportOptions))
        for name, kind in (*kinds, ("generate", generate.GenerateOptions)):
            say(f"  {name:<8}{kind.__doc__}")
        return 0
    if what not in _ACTIONS:
        raise UserError(f"wanted rayrlhf dataset {', '.join(_ACTIONS)}, not {what!r}{nearest(what, _ACTIONS)}")
    _ACTIONS[what](args[1:])
    return 0


def _info(args: Sequence[str]) -> None:
    options = parse(InfoOptions, args, "dataset info")
    found = info(existing(options.dataset))
    shapes = ", ".join(
        f"{shape['queries']:,} of {shape['segment_length']} steps, obs {shape['obs_dim']}, action {shape['action_dim']}"
        for shape in found["shapes"]
    )
    rows = [
        ("sessions", f"{found['sessions']:,}"),
        ("questions", f"{found['queries']:,}, {found['unanswered']:,} without an answer"),
        ("answers", ", ".join(f"{count:,} {choice}" for choice, count in found["answers"].items())),
        ("annotators", ", ".join(found["annotators"]) or "none"),
        ("segments", shapes),
        ("size", f"{found['bytes'] / 1e6:,.1f} MB"),
    ]
    show(found["where"], ("", ""), rows)
    finish({**found}, as_json=options.json)


def _export(args: Sequence[str]) -> None:
    options = parse(ExportOptions, args, "dataset export")
    if not options.overwrite and exists(options.file):
        raise UserError(f"{options.file} exists: choose another name, or replace it with --overwrite")
    count = export_file(existing(options.dataset), options.file)
    say(f"wrote {count:,} questions to {options.file}")
    finish({"file": options.file, "queries": count}, as_json=options.json)


def _import(args: Sequence[str]) -> None:
    options = parse(ImportOptions, args, "dataset import")
    count = import_file(PreferenceDataset(_folder(options.dataset)), options.file)
    say(f"{count:,} new answers in {options.dataset}")
    finish({"dataset": options.dataset, "new_answers": count}, as_json=options.json)


def existing(where: str) -> PreferenceDataset:
    """The dataset at `where`, a run's folder or a folder of preferences. Raises `UserError` where there is none."""
    if not is_url(where) and not Path(where).is_dir():
        raise UserError(f"there is no dataset {where!r}")
    return PreferenceDataset(_folder(where))


def _folder(where: str) -> str:
    """The dataset's folder: a run's folder stands for its `preferences`."""
    below = child if is_url(where) else (lambda folder, name: str(Path(folder) / name))
    return below(where, "preferences") if exists(below(where, "config.yaml")) else where


_ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {
    "info": _info,
    "export": _export,
    "import": _import,
    "generate": generate.run,
}
