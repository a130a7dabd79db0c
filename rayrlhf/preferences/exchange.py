"""Preference data in and out: what a dataset holds, and one file of Parquet or JSON lines for it.

Parquet has the columns of `table.SCHEMA`. JSON lines have one query a line, with nested arrays `[T][O]`:

    {"query_id": "demo/00000/00001", "session": 0, "typical_return": 3.5, "instruction": "open the drawer",
     "left": {"obs": [[...]], "action": [[...]], "reward": [...], "success": [...], "episode": 7, "start": 120},
     "right": {...},
     "answers": [{"choice": "left", "annotator": "oracle", "seconds": 0.0, "replays": 0}]}

Where nobody knows the true reward, `reward` is null or not there.
"""

import io
import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, TypeVar, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rayrlhf.errors import UserError, in_one_line, printable
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.dataset import PreferenceDataset, shape_of
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.storage import locate, reason, whole_file
from rayrlhf.preferences.table import SCHEMA, WRITE_OPTIONS, Record, Source, check_version, from_table, to_table

_LINES_AT_ONCE = 256
_T = TypeVar("_T")


class Shape(TypedDict):
    """Sizes of segments, and how many queries have them."""

    segment_length: int
    obs_dim: int
    action_dim: int
    queries: int


class Info(TypedDict):
    """What a dataset holds. `answers` counts by choice; `shapes` has several entries after a merge.

    instructions: queries by instruction   rewarded: queries whose segments have a true reward
    """

    where: str
    sessions: int
    queries: int
    unanswered: int
    answers: dict[str, int]
    annotators: list[str]
    instructions: dict[str, int]
    rewarded: int
    shapes: list[Shape]
    bytes: int


def info(dataset: PreferenceDataset) -> Info:
    """Counts over the whole dataset; it is read, so a damaged file is found."""
    records = records_in(dataset)
    answers = [answer for _, said in records for answer in said]
    shapes: dict[tuple[int, int, int], int] = {}
    for queries, _ in records:
        shapes[shape_of(queries)] = shapes.get(shape_of(queries), 0) + len(queries)
    count = sum(shapes.values())
    said = Counter(sentence for queries, _ in records for sentence in queries.instructions if sentence)
    return Info(
        where=dataset.where,
        sessions=len(records),
        queries=count,
        unanswered=count - len({answer.query_id for answer in answers}),
        answers={choice: sum(answer.choice == choice for answer in answers) for choice in get_args(Choice)},
        annotators=sorted({answer.annotator for answer in answers}),
        instructions=dict(sorted(said.items())),
        rewarded=sum(int((q.left.rewarded() & q.right.rewarded()).sum()) for q, _ in records),
        shapes=[Shape(segment_length=t, obs_dim=o, action_dim=a, queries=n) for (t, o, a), n in shapes.items()],
        bytes=dataset.size_bytes,
    )


def records_in(dataset: PreferenceDataset) -> list[Record]:
    """All of it. Raises `UserError` where there is nothing."""
    records = dataset.read()
    if not records:
        raise UserError(f"{dataset.where} holds no preference data: name the `preferences` folder of a run")
    return records


def export_file(dataset: PreferenceDataset, path: str | Path) -> int:
    """Writes the dataset to one `.parquet` or `.jsonl` file; returns the number of queries.

    Raises:
        UserError: the file cannot be written, or lies in the dataset's own folder, where every Parquet file is a part.
    """
    refuse_inside(dataset, path)
    return _by_ending(path, {".parquet": export_parquet, ".jsonl": export_jsonl})(dataset, path)


def refuse_inside(dataset: PreferenceDataset, path: str | Path) -> None:
    """UserError where a file at `path` would lie among the dataset's own."""
    if dataset.holds(path):
        raise UserError(
            f"{path} is inside the dataset {dataset.where}, which must hold nothing else: write it elsewhere"
        )


def import_file(dataset: PreferenceDataset, path: str | Path) -> int:
    """Merges a `.parquet` or `.jsonl` file into the dataset; returns the number of new answers.

    The whole file is validated before anything is written.

    Raises:
        UserError: the file cannot be read or a row is malformed; the row or line is named.
    """
    return dataset.merge(read_file(path))


def read_file(path: str | Path) -> list[Record]:
    """The queries and answers in a `.parquet` or `.jsonl` file. Raises as `import_file` does."""
    return _by_ending(path, {".parquet": _read_parquet, ".jsonl": _read_jsonl})(path)


def _by_ending(path: str | Path, choices: dict[str, _T]) -> _T:
    ending = PurePosixPath(str(path)).suffix
    if ending not in choices:
        raise UserError(f"{path}: the name must end in {' or '.join(choices)}")
    return choices[ending]


def export_parquet(dataset: PreferenceDataset, path: str | Path) -> int:
    """Writes one Parquet file, a row group per session; returns the number of queries."""
    records = records_in(dataset)
    with whole_file(*locate(path)) as stream, pq.ParquetWriter(stream, SCHEMA, **WRITE_OPTIONS) as writer:
        for queries, answers in records:
            writer.write_table(to_table(queries, answers))
    return sum(len(queries) for queries, _ in records)


def _read_parquet(path: str | Path) -> list[Record]:
    records: list[Record] = []
    filesystem, inner = locate(path)
    try:
        with pq.ParquetFile(inner, filesystem=filesystem, page_checksum_verification=True) as file:
            check_version(file.schema_arrow, str(path), required=False)
            row = 1
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                records += from_table(table, Source(str(path), "row", range(row, row + len(table))))
                row += len(table)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    return records


class _Checked(BaseModel):
    """Numbers are numbers and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _SegmentLine(_Checked):
    obs: list[list[float]]
    action: list[list[float]]
    reward: list[float] | None = None
    success: list[bool]
    episode: int
    start: int

    @model_validator(mode="after")
    def _one_length(self) -> "_SegmentLine":
        rewards = len(self.obs if self.reward is None else self.reward)
        if len({len(self.obs), len(self.action), rewards, len(self.success)}) > 1:
            raise ValueError("obs, action, reward and success differ in length")
        if max(len({len(step) for step in steps}) for steps in (self.obs, self.action)) > 1:
            raise ValueError("the steps differ in width")
        return self

    def columns(self, side: str) -> dict[str, Any]:
        """The columns of one side of a row of `SCHEMA`."""
        flat = {"obs": list(chain.from_iterable(self.obs)), "action": list(chain.from_iterable(self.action))}
        reward = [math.nan] * len(self.obs) if self.reward is None else self.reward
        return {f"{side}_{name}": value for name, value in {**self.__dict__, **flat, "reward": reward}.items()}


class _AnswerLine(_Checked):
    choice: Choice
    annotator: str
    seconds: float = 0.0
    replays: int = 0


class _Line(_Checked):
    query_id: str
    session: int
    typical_return: float = 0.0
    instruction: str = ""
    left: _SegmentLine
    right: _SegmentLine
    answers: list[_AnswerLine] = Field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """A row of `SCHEMA`."""
        answers = [answer.__dict__ for answer in self.answers]
        scalars = {name: getattr(self, name) for name in ("query_id", "session", "typical_return", "instruction")}
        return {**scalars, **self.left.columns("left"), **self.right.columns("right"), "answers": answers}


def export_jsonl(dataset: PreferenceDataset, path: str | Path) -> int:
    """Writes JSON lines, exact to the last bit; returns the number of queries."""
    records = records_in(dataset)
    with whole_file(*locate(path)) as stream:
        for line in (line for record in records for line in _lines(*record)):
            stream.write(line.model_dump_json().encode() + b"\n")
    return sum(len(queries) for queries, _ in records)


def _lines(queries: Queries, answers: list[Answer]) -> Iterator[_Line]:
    said: dict[str, list[_AnswerLine]] = {key: [] for key in queries.ids}
    for a in answers:
        line = _AnswerLine(choice=a.choice, annotator=a.annotator, seconds=float(a.seconds), replays=int(a.replays))
        said[a.query_id].append(line)
    instructions = queries.instructions or ("",) * len(queries)
    for i, key in enumerate(queries.ids):
        yield _Line.model_construct(
            query_id=key,
            session=queries.session,
            typical_return=queries.typical_return,
            instruction=instructions[i],
            left=_segment_line(queries.left, i),
            right=_segment_line(queries.right, i),
            answers=said[key],
        )


def _segment_line(segments: Segments, i: int) -> _SegmentLine:
    names = _SegmentLine.model_fields
    columns = {name: getattr(segments, name)[i].tolist() for name in names}
    if not segments.rewarded()[i]:
        columns["reward"] = None
    return _SegmentLine.model_construct(**columns)


def _read_jsonl(path: str | Path) -> list[Record]:
    """Empty lines are passed over."""
    filesystem, inner = locate(path)
    records: list[Record] = []
    try:
        with filesystem.open_input_stream(inner) as raw:
            numbered = ((n, line) for n, line in enumerate(io.BufferedReader(raw), 1) if line.strip())
            while batch := list(islice(numbered, _LINES_AT_ONCE)):
                rows = [_parse(line, f"{path}, line {n}").row() for n, line in batch]
                table = pa.Table.from_pylist(rows, schema=SCHEMA)
                records += from_table(table, Source(str(path), "line", [n for n, _ in batch]))
    except (pa.ArrowException, OverflowError) as error:  # a number of more than 64 bits
        raise UserError(f"cannot read {path}: {in_one_line(error)}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    return records


def _parse(line: bytes, where: str) -> _Line:
    try:
        return _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = printable(".".join(str(part) for part in first["loc"]))
        raise UserError(f"{where}: {place + ': ' if place else ''}{first['msg']}") from error
