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
from rayrlhf.preferences.exchange import Info, info, records_in
from rayrlhf.preferences.formats.files import Format, export_any, import_any
from rayrlhf.preferences.storage import dataset_folder, exists

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
    """NAME.parquet or .jsonl (nothing is lost), .json or .pickle (triplets), .csv (answers alone)."""
    format: Format | None = None
    """What the file is, where its name does not say it: `trl`, for chosen and rejected in .jsonl or .parquet, or
    `lerobot`, for a folder."""
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
    """NAME.parquet or .jsonl, .json or .pickle (triplets), .csv (answers to questions that the dataset has), or a
    folder of LeRobot's."""
    format: Format | None = None
    """What the file is, where its name does not say it: `trl`, for chosen and rejected in .jsonl or .parquet."""
    segment_length: int | None = None
    """Keep so many steps of each trajectory, its last; else all, and all trajectories must be as long."""
    annotator: str | None = None
    """Who answered, where the file does not say; else `imported`. Two files of two people are told apart by this."""
    preferences: str | None = None
    """For a folder of LeRobot's: the file of preferences; by default preferences.parquet, .jsonl or .csv in it."""
    json: bool = False
    """Print one JSON object, as the last line."""


@dataclass(frozen=True)
class CombineOptions:
    """Merge several datasets into one; an answer it already has stays as it is."""

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A folder of preferences, made if it is not there, or its URI."""
    datasets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATASET...")]
    """Runs' folders, folders of preferences, or URIs."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf dataset ARGS`."""
    what = args[0] if args else ""
    if what in ("-h", "--help"):
        say(f"usage: rayrlhf dataset {'|'.join(_ACTIONS)} ...\n")
        for name, (kind, _) in _ACTIONS.items():
            say(f"  {name:<9}{(kind.__doc__ or '').splitlines()[0]}")
        return 0
    if what not in _ACTIONS:
        *others, last = _ACTIONS
        raise UserError(f"wanted rayrlhf dataset {', '.join(others)} or {last}, not {what!r}{nearest(what, _ACTIONS)}")
    _ACTIONS[what][1](args[1:])
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
        ("instructions", _instructions(found)),
        ("true reward", _rewarded(found)),
        ("segments", shapes),
        ("size", f"{found['bytes'] / 1e6:,.1f} MB"),
    ]
    show(found["where"], ("", ""), rows)
    finish({**found}, as_json=options.json)


def _instructions(found: Info) -> str:
    shown = [f"{count:,} {sentence!r}" for sentence, count in list(found["instructions"].items())[:_SHOWN]]
    more = len(found["instructions"]) - len(shown)
    return ", ".join(shown + ([f"and {more:,} more"] if more else [])) or "none"


def _rewarded(found: Info) -> str:
    count, every = found["rewarded"], found["queries"]
    return "of all questions" if count == every else f"of {count:,} questions" if count else "none: nobody knows it"


def _export(args: Sequence[str]) -> None:
    options = parse(ExportOptions, args, "dataset export")
    if not options.overwrite and exists(options.file):
        raise UserError(f"{options.file} exists: choose another name, or replace it with --overwrite")
    count, left_out = export_any(existing(options.dataset), options.file, kind=options.format)
    say(f"wrote {count:,} questions to {options.file}")
    if left_out:
        say(f"left out {left_out:,} that the format has no place for: equal, skip, and questions without an answer")
    finish({"file": options.file, "queries": count, "left_out": left_out}, as_json=options.json)


def _import(args: Sequence[str]) -> None:
    options = parse(ImportOptions, args, "dataset import")
    if options.segment_length is not None and options.segment_length < 1:
        raise UserError(f"--segment-length is {options.segment_length}, wanted 1 or more")
    if options.annotator == "":
        raise UserError("--annotator is empty: who answered?")
    target = PreferenceDataset(dataset_folder(options.dataset))
    count, there = import_any(
        target,
        options.file,
        kind=options.format,
        segment_length=options.segment_length,
        preferences=options.preferences,
        annotator=options.annotator,
    )
    _tell_merged(options.dataset, count, there, as_json=options.json)


def _tell_merged(where: str, count: int, there: int, *, as_json: bool) -> None:
    say(f"{count:,} new answers in {where}" + (f"; {there:,} were there already" if there else ""))
    finish({"dataset": where, "new_answers": count, "known_answers": there}, as_json=as_json)


def _combine(args: Sequence[str]) -> None:
    options = parse(CombineOptions, args, "dataset combine")
    if not options.datasets:
        raise UserError("which datasets? As in: rayrlhf dataset combine OUT A B")
    records = [record for where in options.datasets for record in records_in(existing(where))]
    count = PreferenceDataset(dataset_folder(options.out)).merge(records)
    there = sum(len(said) for _, said in records) - count
    _tell_merged(options.out, count, there, as_json=options.json)


def existing(where: str) -> PreferenceDataset:
    """The dataset at `where`, a run's folder or a folder of preferences. Raises `UserError` where there is none."""
    if not is_url(where) and not Path(where).is_dir():
        raise UserError(f"there is no dataset {where!r}")
    return PreferenceDataset(dataset_folder(where))


_ACTIONS: dict[str, tuple[type, Callable[[Sequence[str]], None]]] = {
    "info": (InfoOptions, _info),
    "export": (ExportOptions, _export),
    "import": (ImportOptions, _import),
    "combine": (CombineOptions, _combine),
    "generate": (generate.GenerateOptions, generate.run),
}
_SHOWN = 5
"""Instructions that are shown."""
