"""Pairs of clips that somebody else made: a folder, or a file that lists them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.answers import Choice

CLIPS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
_SIDE = re.compile(r"(?P<name>.*?)[ _.-]?(?P<side>left|right)", re.IGNORECASE)
_COLUMNS = ("left", "right", "id", "gold")
_ID_LENGTH = 100
_WANTED = "wanted a folder of clips, or a .csv, .json, .jsonl or .parquet file"


@dataclass(frozen=True)
class Pair:
    """Two clips to compare. gold: the known answer, of one that tests annotators and makes no label."""

    id: str
    left: Path
    right: Path
    gold: Choice | None = None


def read_pairs(where: Path) -> list[Pair]:
    """The pairs of a folder or a file, in order.

    - a folder: `NAME_left.mp4` beside `NAME_right.mp4`, or a folder `NAME` with `left.mp4` and `right.mp4`
    - `FILE.csv` with a header, `FILE.jsonl`, `FILE.parquet` or a list in `FILE.json`: `left` and `right` are paths,
      relative to the file; `id` and `gold` (`left`, `right`, `equal`) may be there

    Raises:
        UserError: anything of it is malformed or a clip is missing; it names the line and says what was wanted.
    """
    if where.is_dir():
        pairs = _in_folder(where)
    elif where.is_file():
        pairs = [_pair(row, place, where.parent) for place, row in _rows(where)]
    else:
        raise UserError(f"there is no {str(where)!r}: {_WANTED}")
    if not pairs:
        raise UserError(f"{where} holds no pairs: wanted NAME_left.mp4 beside NAME_right.mp4, or a list of such")
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise UserError(f"{where}: two pairs are called {pair.id!r}")
        seen.add(pair.id)
    return pairs


def _in_folder(folder: Path) -> list[Pair]:
    sides: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.rglob("*")):
        match = _SIDE.fullmatch(file.stem) if file.suffix.lower() in CLIPS else None
        if match and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            name = "/".join(filter(None, [*file.relative_to(folder).parent.parts, match["name"]]))
            other = sides.setdefault(name or folder.name, {}).setdefault(match["side"].lower(), file)
            if other != file:
                raise UserError(f"{file} and {other} would both be the {match['side'].lower()} clip of one pair")
    for name, found in sides.items():
        if len(found) < 2:
            [(side, file)] = found.items()
            missing = "right" if side == "left" else "left"
            raise UserError(f"{file} has no {missing} clip beside it: the pair {name!r} is not whole")
    return [Pair(_id(name, str(folder)), found["left"], found["right"]) for name, found in sides.items()]


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a file and where it stands."""
    if file.suffix == ".parquet":
        yield from ((f"{file}, row {number}", row) for number, row in enumerate(_parquet(file), start=1))
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {in_one_line(error)}") from error
    if file.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""), restkey="", skipinitialspace=True)
        try:
            found: Iterable[tuple[str, Any]] = [(f"line {rows.line_num}", row) for row in rows]  # the one where it ends
        except csv.Error as error:
            raise UserError(f"{file}, after line {rows.line_num}: {error}") from error
    elif file.suffix == ".jsonl":  # a string may hold what else ends lines (RFC 8259, section 7)
        lines = ((f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
        found = ((place, _json(line, f"{file}, {place}")) for place, line in lines)
    elif file.suffix == ".json":
        listed = _json(text, str(file))
        if not isinstance(listed, list):
            raise UserError(f"{file}: wanted a list of objects with left and right")
        found = ((f"entry {number}", row) for number, row in enumerate(listed, start=1))
    else:
        raise UserError(f"{file}: {_WANTED}")
    for place, row in found:
        if not isinstance(row, dict):
            raise UserError(f"{file}, {place}: wanted an object with left and right")
        yield f"{file}, {place}", row


def _parquet(file: Path) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as parquet:
            if "query_id" in parquet.schema_arrow.names:
                raise UserError(
                    f"{file} holds segments, and no clips of them: `rayrlhf label --run` shows those of a run that "
                    "recorded what it takes to draw them; else list clips of your own"
                )
            return list(parquet.read().to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {file}: {in_one_line(error)}") from error


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from error


def _pair(row: Mapping[str, Any], place: str, folder: Path) -> Pair:
    if unknown := [str(name) for name in row if name not in _COLUMNS]:
        raise UserError(f"{place}: unknown column {unknown[0]!r}; there are {', '.join(_COLUMNS)}")
    left, right = (_clip(row, side, place, folder) for side in ("left", "right"))
    gold = row.get("gold") or None
    if gold is not None and gold not in get_args(Choice):
        raise UserError(f"{place}: gold is {gold!r}, wanted one of {', '.join(get_args(Choice))}")
    return Pair(_id(str(row.get("id") or f"{left.stem} {right.stem}"), place), left, right, gold)


def _clip(row: Mapping[str, Any], side: str, place: str, folder: Path) -> Path:
    name = row.get(side)
    if not isinstance(name, str) or not name:
        raise UserError(f"{place}: {side} is {name!r}, wanted the path of a clip")
    path = folder / name
    if not path.is_file():
        raise UserError(f"{place}: there is no clip {str(path)!r}")
    return path


def _id(name: str, place: str) -> str:
    if len(name) > _ID_LENGTH or not name.isprintable():
        raise UserError(f"{place}: {name[:20]!r}... is no id: at most {_ID_LENGTH} printable characters")
    return name
