"""LeRobot's datasets, format 3, with preferences beside them.

    meta/info.json                                 version, features, where the data is
    meta/tasks.parquet                             sentences and their numbers
    meta/episodes/chunk-000/file-000.parquet       of each episode: its length, its tasks, the file it is in
    data/chunk-000/file-000.parquet                a row a step, of many episodes
    preferences.csv, .jsonl or .parquet            ours: which of two episodes, or parts of them, is better

A row of preferences has `episode_a` and `episode_b`; `start_a`, `start_b` and `length` where parts were compared;
`label`, `annotator`, `seconds`, `replays`, `query_id`, `instruction`. Observations are `observation.state`, followed by
`observation.environment_state` where there is one; rewards and successes are `next.reward` and `next.success`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayrlhf.errors import UserError, in_one_line, printable, shown
from rayrlhf.preferences.answers import MAX_REPLAYS
from rayrlhf.preferences.formats.entries import Entry, choice_of, instruction_of
from rayrlhf.preferences.formats.trajectory import Trajectory, read_trajectory

INFO, TASKS, EPISODES = "meta/info.json", "meta/tasks.parquet", "meta/episodes"
BESIDE = ("preferences.parquet", "preferences.jsonl", "preferences.csv")
OBSERVATIONS = ("observation.state", "observation.environment_state")
ACTION, REWARD, SUCCESS = "action", "next.reward", "next.success"
_PLACE = re.compile(r"\{(chunk_index|file_index)(?::0?[1-9]d)?\}")
_Index = Annotated[int, Field(ge=0, lt=1 << 62)]


class Judged(BaseModel):
    """A row of preferences. `source_...`: what its episodes were called before they were exported."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    episode_a: _Index
    episode_b: _Index
    start_a: _Index = 0
    start_b: _Index = 0
    length: int | None = Field(None, gt=0, lt=1 << 62)
    label: Any = None
    query_id: str | None = Field(None, min_length=1)
    session: int = Field(0, ge=0, lt=10**9)
    typical_return: float = 0.0
    instruction: str | None = None
    annotator: str | None = Field(None, min_length=1)
    seconds: float = Field(0.0, ge=0)
    replays: int = Field(0, ge=0, lt=MAX_REPLAYS)
    source_episode_a: int | None = Field(None, ge=0, lt=1 << 63)
    source_episode_b: int | None = Field(None, ge=0, lt=1 << 63)
    source_start_a: _Index | None = None
    source_start_b: _Index | None = None


def is_lerobot(path: str | Path) -> bool:
    """Whether there is a folder of LeRobot's at `path`."""
    return (Path(path) / INFO).is_file()


def read_lerobot(folder: Path, preferences: Path | None) -> Iterator[Entry]:
    """The judged pairs of a dataset; `preferences` is the file with the judgements, else the one beside the data.

    Raises:
        UserError: it is of another version, something is missing, or a judgement is malformed; it is named.
    """
    source = preferences or next((folder / name for name in BESIDE if (folder / name).is_file()), None)
    if source is None:
        raise UserError(f"{folder} has no preferences: put {', '.join(BESIDE)} there, or give --preferences FILE")
    rows = [(place, _judged(row, place)) for place, row in _rows(source)]
    wanted = {number for _, row in rows for number in (row.episode_a, row.episode_b)}
    episodes = _Dataset.open(folder).episodes(wanted)
    for place, row in rows:
        yield _entry(row, episodes, place)


@dataclass(frozen=True)
class _Episode:
    steps: Trajectory
    tasks: tuple[str, ...]


def _entry(row: Judged, episodes: dict[int, _Episode], place: str) -> Entry:
    sides = {
        side: _part(episodes, getattr(row, f"episode_{side}"), getattr(row, f"start_{side}"), row.length, place)
        for side in "ab"
    }
    for side, part in sides.items():
        known = {"episode": getattr(row, f"source_episode_{side}"), "start": getattr(row, f"source_start_{side}")}
        sides[side] = replace(part, **{name: value for name, value in known.items() if value is not None})
    choice = choice_of(row.label, place) if "label" in row.model_fields_set else "left"
    details = row.model_dump(include={"query_id", "session", "typical_return", "annotator", "seconds", "replays"})
    return Entry(place, sides["a"], sides["b"], choice, _instruction(row, episodes, place), **details)


def _part(episodes: dict[int, _Episode], number: int, start: int, length: int | None, place: str) -> Trajectory:
    whole = episodes[number].steps
    end = len(whole) if length is None else start + length
    if not start < end <= len(whole):
        raise UserError(f"{place}: steps {start} to {end} of episode {number}, which has {len(whole)}")
    columns = {name: getattr(whole, name)[start:end] for name in ("obs", "action", "reward", "success")}
    return Trajectory(**columns, episode=number, start=start)


def _instruction(row: Judged, episodes: dict[int, _Episode], place: str) -> str:
    if row.instruction is not None:
        return instruction_of(row.instruction, place)
    first, second = episodes[row.episode_a].tasks, episodes[row.episode_b].tasks
    if first != second or len(first) > 1:
        raise UserError(
            f"{place}: the episodes {row.episode_a} and {row.episode_b} are of several tasks: say in a column "
            "`instruction` what was asked about"
        )
    return first[0] if first else ""


@dataclass(frozen=True)
class _Dataset:
    folder: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "_Dataset":
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            version, features, path = info["codebase_version"], info["features"], info["data_path"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{folder / INFO} is no description of a LeRobot dataset: {in_one_line(error)}") from error
        if not isinstance(features, dict) or not isinstance(path, str):
            raise UserError(
                f"{folder / INFO} is no description of a LeRobot dataset: its features or data_path is none"
            )
        if not isinstance(version, str) or not version.startswith("v3."):
            raise UserError(
                f"{folder} has version {shown(version)} of LeRobot's format, v3 is read: convert it with lerobot"
            )
        if missing := [name for name in (OBSERVATIONS[0], ACTION) if name not in features]:
            raise UserError(f"{folder} has no {missing[0]}: what is not in numbers cannot be learnt from here")
        around = _PLACE.sub("", path)
        if set(_PLACE.findall(path)) != {"chunk_index", "file_index"} or set("{}\0") & set(around):
            raise UserError(
                f"{folder / INFO}: data_path is {shown(path)}, wanted a path with {{chunk_index:03d}} and "
                "{file_index:03d}"
            )
        return cls(folder, info)

    def episodes(self, wanted: set[int]) -> dict[int, _Episode]:
        """The episodes with these numbers; no more of a file than these is read."""
        known = self._known(wanted)
        if lost := wanted.difference(known):
            raise UserError(f"{self.folder} has no episode {min(lost)}")
        files: dict[Path, set[int]] = {}
        for number, row in known.items():
            files.setdefault(self._file(row), set()).add(number)
        found: dict[int, _Episode] = {}
        for path, numbers in files.items():
            table = _table(path, self._columns(), ("episode_index", "in", sorted(numbers)))
            for number in numbers:
                rows = table.filter(pc.equal(table["episode_index"], number)).sort_by("frame_index")
                found[number] = _Episode(self._steps(rows, known[number], path), self._tasks(known[number]))
        return found

    def _known(self, wanted: set[int]) -> dict[int, dict[str, Any]]:
        paths = sorted((self.folder / EPISODES).glob("*/*.parquet"))
        columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
        rows = (
            row for path in paths for row in _table(path, columns, ("episode_index", "in", sorted(wanted))).to_pylist()
        )
        return {row["episode_index"]: row for row in rows}

    def _tasks(self, row: dict[str, Any]) -> tuple[str, ...]:
        tasks, place = row["tasks"], f"{self.folder / EPISODES}, episode {row['episode_index']}"
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            raise UserError(f"{place}: its tasks are no sentences")
        return tuple(instruction_of(task, place) for task in tasks)

    def _file(self, row: dict[str, Any]) -> Path:
        where = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
        if not all(isinstance(number, int) for number in where.values()):
            raise UserError(
                f"{self.folder / EPISODES}, episode {row['episode_index']}: it is not said where its data is"
            )
        path = self.folder / str(self.info["data_path"]).format(**where)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{self.folder / INFO}: data_path leads out of the folder")
        return path

    def _columns(self) -> list[str]:
        wanted = (*OBSERVATIONS, ACTION, REWARD, SUCCESS)
        return ["episode_index", "frame_index", *(name for name in wanted if name in self.info["features"])]

    def _steps(self, rows: pa.Table, known: dict[str, Any], path: Path) -> Trajectory:
        place, number = f"{path}, episode {known['episode_index']}", len(rows)
        if number != known["length"] or rows["frame_index"].to_pylist() != list(range(number)):
            raise UserError(f"{place} has {number} steps, and {known['length']} were recorded: the file is not whole")
        obs = np.concatenate([_wide(rows[name], place) for name in OBSERVATIONS if name in rows.column_names], axis=1)
        columns: dict[str, Any] = {"obs": obs, "action": _wide(rows[ACTION], place)}
        for name, column in (("reward", REWARD), ("success", SUCCESS)):
            if column in rows.column_names:
                columns[name] = _wide(rows[column], place)[:, 0]
        if "reward" in columns and np.isnan(columns["reward"]).all():
            del columns["reward"]
        return read_trajectory(columns, place)


def _wide(column: pa.ChunkedArray, place: str) -> np.ndarray:
    """A column of numbers, or of lists of them, as `[T, D]`."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    values = array
    while (
        pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type)
    ):
        values = values.flatten()
    flat = np.asarray(values.to_numpy(zero_copy_only=False))
    if array.null_count or flat.dtype.kind not in "fiub" or len(flat) % max(len(array), 1):
        raise UserError(f"{place}: a column does not hold the same number of values in each step")
    return flat.reshape(len(array), -1).astype(np.float32)


def _table(path: Path, columns: list[str], chosen: tuple[str, str, list[int]]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, filters=[chosen], partitioning=None)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(f"cannot read {path}: {in_one_line(error)}") from error


def _rows(file: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """The rows of preferences, and where they stand."""
    try:
        if file.suffix == ".parquet":
            yield from ((f"{file}, row {n}", row) for n, row in enumerate(pq.read_table(file).to_pylist(), start=1))
            return
        text = file.read_bytes().decode("utf-8-sig")  # a line break within quotes stays what it is
        if file.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True, restkey="")
            for row in rows:
                if "" in row or None in row.values():
                    raise UserError(f"{file}, line {rows.line_num}: it has not as many fields as the first line")
                yield f"{file}, line {rows.line_num}", row
        elif file.suffix == ".jsonl":
            lines = enumerate(text.split("\n"), start=1)
            yield from ((f"{file}, line {n}", json.loads(line)) for n, line in lines if line.strip())
        else:
            raise UserError(f"{file}: preferences are in .csv, .jsonl or .parquet")
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"cannot read {file}: {in_one_line(error)}") from error


def _judged(row: Any, place: str) -> Judged:
    if not isinstance(row, dict):
        raise UserError(f"{place}: wanted an object with episode_a and episode_b")
    given = {key: value for key, value in row.items() if value not in (None, "") or key == "label"}
    if wrong := [key for key, value in given.items() if isinstance(value, bool)]:
        raise UserError(f"{place}: {printable(str(wrong[0]))} is {given[wrong[0]]}, which is neither a number nor text")
    label = given.get("label")
    if isinstance(label, str):  # of CSV, where all is text
        given["label"] = _number(label)
    try:
        return Judged.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(f"{place}: {printable('.'.join(map(str, first['loc'])))}: {first['msg']}") from error


def _number(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None
