"""Chosen and rejected, as TRL has preferences, a row a judgement.

    {"prompt": "open the drawer", "chosen": {"observations": [[...]], "actions": [[...]]}, "rejected": {...}}

There is no place for equal, skip and questions without an answer. Further columns restore what we know besides:
`query_id`, `session`, `typical_return`, `annotator`, `seconds`, `replays`, and `chosen_is`, the side on which the
chosen one was shown.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.formats.entries import Entry, choice_of, details_of, entry_parts, instruction_of
from rayrlhf.preferences.formats.trajectory import read_trajectory
from rayrlhf.preferences.table import Record

_ROWS = 64
"""Rows of Parquet that are Python objects at the same time."""


def read_jsonl(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """The judgements in JSON lines; empty lines are passed over."""
    for number, line in enumerate(stream, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{name}, line {number}: not JSON: {in_one_line(error)}") from error
            yield _entry(row, f"{name}, line {number}")


def read_parquet(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """The judgements in the rows of a Parquet file."""
    number = 0
    try:
        for batch in pq.ParquetFile(stream).iter_batches(_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield _entry(_without_nothing(row), f"{name}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {name}: {in_one_line(error)}") from error


def write_jsonl(records: Iterable[Record], stream: BinaryIO) -> int:
    """Writes a line for each judgement that prefers a side; returns how many others were left out."""
    left_out = 0
    for row in _rows(records):
        if row is None:
            left_out += 1
        else:
            stream.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    return left_out


def write_parquet(records: Iterable[Record], stream: BinaryIO) -> int:
    """The same as rows of Parquet."""
    rows = list(_rows(records))
    kept = [row for row in rows if row is not None]
    pq.write_table(pa.Table.from_pylist(kept, schema=_SCHEMA), stream, compression="zstd")
    return len(rows) - len(kept)


def _rows(records: Iterable[Record]) -> Iterator[dict[str, Any] | None]:
    """A row for each answer; none for one that prefers no side, and for a question without any."""
    for record in records:
        for instruction, left, right, label, details in entry_parts(*record, plain=True):
            if label not in (0.0, 1.0):
                yield None
                continue
            chosen, rejected = (right, left) if label else (left, right)
            side = {"chosen_is": "right" if label else "left"}
            yield {"prompt": instruction, "chosen": chosen, "rejected": rejected, **details, **side}


def _entry(row: Any, place: str) -> Entry:
    if not isinstance(row, dict):
        raise UserError(f"{place}: wanted an object with chosen and rejected")
    if missing := [name for name in ("chosen", "rejected") if name not in row]:
        raise UserError(f"{place}: has no {missing[0]}")
    chosen, rejected = (read_trajectory(row.pop(name), f"{place}, {name}") for name in ("chosen", "rejected"))
    side: Choice | None = choice_of(row.pop("chosen_is", None) or "left", place)
    if side not in ("left", "right"):
        raise UserError(f"{place}: chosen_is is {side!r}, wanted left or right")
    left, right = (chosen, rejected) if side == "left" else (rejected, chosen)
    instruction = instruction_of(row.pop("prompt", None), place)
    return Entry(place, left, right, side, instruction, **details_of(row, place))


def _without_nothing(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is null in it: Parquet has every column in every row."""
    return {
        name: {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value
        for name, value in row.items()
        if value is not None
    }


_TRAJECTORY = pa.struct(
    {
        "observations": pa.list_(pa.list_(pa.float32())),
        "actions": pa.list_(pa.list_(pa.float32())),
        "rewards": pa.list_(pa.float32()),
        "successes": pa.list_(pa.bool_()),
        "episode": pa.int64(),
        "start": pa.int64(),
    }
)
_SCHEMA = pa.schema(
    {
        "prompt": pa.string(),
        "chosen": _TRAJECTORY,
        "rejected": _TRAJECTORY,
        "query_id": pa.string(),
        "session": pa.int64(),
        "typical_return": pa.float64(),
        "annotator": pa.string(),
        "seconds": pa.float64(),
        "replays": pa.int64(),
        "chosen_is": pa.string(),
    }
)
