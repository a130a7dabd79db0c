"""One file of any format in and out of a dataset: which format it is, and what of it is read at once."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, get_args

import pyarrow as pa

from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.preferences import exchange
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.formats import chosen, spoken, triplets
from rayrlhf.preferences.formats.entries import Entry, records_of
from rayrlhf.preferences.formats.lerobot import is_lerobot, read_lerobot
from rayrlhf.preferences.formats.lerobot_out import write_lerobot
from rayrlhf.preferences.storage import locate, reason, whole_file
from rayrlhf.preferences.table import Record

Format = Literal["parquet", "jsonl", "json", "pickle", "trl", "csv", "lerobot"]
"""Ours, which lose nothing: parquet, jsonl. Triplets: json, pickle. Chosen and rejected: trl. Answers alone: csv.
Episodes with preferences beside them, a folder: lerobot."""
_ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "json",
    ".pickle": "pickle",
    ".pkl": "pickle",
    ".csv": "csv",
}
_READ: dict[str, Callable[[Any, str], Iterable[Entry]]] = {
    "json": triplets.read_json,
    "pickle": triplets.read_pickle,
    "trl.jsonl": chosen.read_jsonl,
    "trl.parquet": chosen.read_parquet,
}
_WRITE: dict[str, Callable[[Iterable[Record], Any], int | None]] = {
    "json": triplets.write_json,
    "pickle": triplets.write_pickle,
    "trl.jsonl": chosen.write_jsonl,
    "trl.parquet": chosen.write_parquet,
    "csv": spoken.write_answers,
}


def import_any(
    dataset: PreferenceDataset,
    path: str | Path,
    *,
    kind: Format | None = None,
    segment_length: int | None = None,
    preferences: str | Path | None = None,
    annotator: str | None = None,
) -> tuple[int, int]:
    """Merges a file into the dataset; returns the number of new answers, and of those that were there already.

    The whole file is validated before anything is written. `kind` is what its name says, if none. Of formats that hold
    trajectories, not segments, the last `segment_length` steps of each are kept; none: all, if all are as long.
    `annotator` is who answered where the file does not say.

    Raises:
        UserError: the file cannot be read or something in it is malformed; the place is named.
    """
    records = _records(dataset, path, kind, segment_length, preferences, annotator)
    count = dataset.merge(records)
    return count, sum(len(answers) for _, answers in records) - count


def _records(
    dataset: PreferenceDataset,
    path: str | Path,
    kind: Format | None,
    segment_length: int | None,
    preferences: str | Path | None,
    annotator: str | None,
) -> list[Record]:
    name = _format_of(path, "lerobot" if kind is None and is_lerobot(path) else kind)
    if preferences is not None and name != "lerobot":
        raise UserError(f"--preferences is for folders of LeRobot's: {path} has its own")
    if name == "lerobot":
        judged = read_lerobot(_of_this_machine(path), None if preferences is None else Path(preferences))
        return records_of(judged, str(path), segment_length, annotator)
    if annotator is not None and name in ("parquet", "jsonl", "csv"):
        raise UserError(f"--annotator is for files that do not say who answered, and {path} does")
    if name in ("parquet", "jsonl"):
        if segment_length is not None:
            raise UserError(f"--segment-length is for trajectories: {path} holds segments, which stay as they are")
        return exchange.read_file(path)
    if name == "csv":
        known = dataset.read()
        return _opened(path, lambda stream: spoken.read_answers(stream, str(path), known))
    return _opened(path, lambda s: records_of(_READ[name](s, str(path)), str(path), segment_length, annotator))


def export_any(dataset: PreferenceDataset, path: str | Path, *, kind: Format | None = None) -> tuple[int, int]:
    """Writes the dataset to one file. Returns its queries, and the judgements that the format has no place for.

    Raises:
        UserError: the file cannot be written, or lies in the dataset's own folder.
    """
    name = _format_of(path, kind)
    if name in ("parquet", "jsonl"):
        return exchange.export_file(dataset, path), 0
    folder = _of_this_machine(path) if name == "lerobot" else None
    exchange.refuse_inside(dataset, path)
    records = exchange.records_in(dataset)
    if folder is not None:
        write_lerobot(records, folder)
        return sum(len(queries) for queries, _ in records), 0
    with whole_file(*locate(path)) as stream:
        left_out = _WRITE[name](records, stream) or 0
    return sum(len(queries) for queries, _ in records), left_out


def _of_this_machine(path: str | Path) -> Path:
    if is_url(path):
        raise UserError(f"{path} is a URL: a dataset of LeRobot's is a folder of this machine")
    return Path(path)


def _format_of(path: str | Path, kind: Format | None) -> str:
    ending = PurePosixPath(str(path)).suffix
    if kind == "trl":
        if ending not in (".jsonl", ".parquet"):
            raise UserError(f"{path}: for --format trl the name must end in .jsonl or .parquet")
        return f"trl{ending}"
    if kind is not None and kind not in get_args(Format):
        raise UserError(f"--format is {kind!r}, wanted one of {', '.join(get_args(Format))}")
    if kind is None and ending not in _ENDINGS:
        raise UserError(f"{path}: the name must end in {', '.join(_ENDINGS)}, or give --format")
    return kind or _ENDINGS[ending]


def _opened(path: str | Path, read: Callable[[BinaryIO], list[Record]]) -> list[Record]:
    filesystem, inner = locate(path)
    try:
        with filesystem.open_input_file(inner) as raw:
            return read(io.BufferedReader(raw))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
