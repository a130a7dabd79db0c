"""The columns in which queries and answers are stored and exchanged: one row per query.

Arrays lie in flat lists (`obs` of `T` steps is one list of `T * O` numbers, step by step), because one level of nesting
reads several times faster than two. The shape follows from the lengths: `T` is the reward's. Where nobody knows the
true reward of a segment, it is NaN throughout.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.fragments import Bools, Integers
from rayrlhf.preferences.segments import Queries, Segments

Record = tuple[Queries, list[Answer]]
"""Queries of one session and what was said of them."""

SCHEMA_VERSION = 1
_VERSION_KEY = b"rayrlhf.preferences.version"
_SIDES = ("left", "right")
_LISTS = {"obs": pa.float32(), "action": pa.float32(), "reward": pa.float32(), "success": pa.bool_()}
_ANSWER = {"choice": pa.string(), "annotator": pa.string(), "seconds": pa.float64(), "replays": pa.int64()}


def _segment_fields(side: str) -> list[pa.Field]:
    lists = [pa.field(f"{side}_{name}", pa.list_(kind)) for name, kind in _LISTS.items()]
    scalars = [pa.field(f"{side}_episode", pa.int64()), pa.field(f"{side}_start", pa.int64())]
    return [*lists, *scalars, pa.field(f"{side}_context", pa.list_(pa.float32()))]


SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("session", pa.int64()),
        pa.field("typical_return", pa.float64()),
        pa.field("instruction", pa.string()),
        *(field for side in _SIDES for field in _segment_fields(side)),
        pa.field("answers", pa.list_(pa.struct(list(_ANSWER.items())))),
    ],
    metadata={_VERSION_KEY: json.dumps(SCHEMA_VERSION)},
)
_OPTIONAL = ("instruction", *(f"{side}_context" for side in _SIDES))
"""Columns that may be empty, or not there."""
_NOT_FINITE = "holds a missing or infinite value"

WRITE_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    # Bytes of equal weight side by side: floats that vary little compress much better.
    "use_byte_stream_split": [f"{side}_{name}.list.element" for side in _SIDES for name in ("obs", "action", "reward")],
    "use_dictionary": ["instruction", "answers.list.element.choice", "answers.list.element.annotator"],
    "write_page_checksum": True,
}


def write_table(table: pa.Table, sink: Any) -> None:
    """Writes one Parquet file with the options all our files share."""
    pq.write_table(table, sink, **WRITE_OPTIONS)


def to_table(queries: Queries, answers: Sequence[Answer]) -> pa.Table:
    """Rows of `SCHEMA` in the order of `queries`; each carries its answers in their order."""
    said: dict[str, list[dict[str, Any]]] = {key: [] for key in queries.ids}
    for answer in answers:
        said[answer.query_id].append({name: getattr(answer, name) for name in _ANSWER})
    columns: dict[str, Any] = {
        "query_id": pa.array(queries.ids, pa.string()),
        "session": np.full(len(queries), queries.session, dtype=np.int64),
        "typical_return": np.full(len(queries), queries.typical_return, dtype=np.float64),
        "instruction": pa.array(queries.instructions or ("",) * len(queries), pa.string()),
    }
    for side, segments in zip(_SIDES, (queries.left, queries.right), strict=True):
        columns |= {f"{side}_{name}": _list_column(getattr(segments, name)) for name in _LISTS}
        columns |= {f"{side}_episode": segments.episode, f"{side}_start": segments.start}
        columns[f"{side}_context"] = _list_column(segments.with_margin(segments.margin))
    columns["answers"] = pa.array(list(said.values()), SCHEMA.field("answers").type)
    return pa.table(columns, schema=SCHEMA)


def _list_column(values: np.ndarray) -> pa.ListArray:
    """`values` `[N, ...]` as `N` flat lists."""
    flat = np.ascontiguousarray(values).reshape(-1)
    width = flat.size // max(len(values), 1)
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * width, pa.array(flat))


def check_version(schema: pa.Schema, name: str, *, required: bool) -> None:
    """Refuses a file of a newer version and, if `required`, one that names no version."""
    version = (schema.metadata or {}).get(_VERSION_KEY)
    if version is None and required:
        raise UserError(f"{name} is no preference file of rayrlhf: bring it in with `rayrlhf dataset import`")
    if version is not None and json.loads(version) > SCHEMA_VERSION:
        raise UserError(
            f"{name} has version {json.loads(version)} of the preference format, this rayrlhf reads up to "
            f"{SCHEMA_VERSION}: upgrade rayrlhf"
        )


@dataclass(frozen=True)
class Source:
    """Names rows in messages: row `i` of a table is `word` (row, line or query) `numbers[i]` of `name`, say a file."""

    name: str
    word: str
    numbers: Sequence[int | str]

    def row(self, i: int) -> str:
        """Row `i` as a message names it."""
        return f"{self.name}, {self.word} {self.numbers[i]}"


@dataclass(frozen=True)
class _Column:
    """A list column: row `i` is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: Integers

    @property
    def lengths(self) -> Integers:
        return np.diff(self.offsets)

    def rows_with(self, wrong: Bools) -> Bools:
        """The rows `[N]` in which any of the `wrong` values lies."""
        row = np.searchsorted(self.offsets, np.flatnonzero(wrong), side="right") - 1
        return np.isin(np.arange(len(self.offsets) - 1), row)

    def take(self, rows: Integers, width: int) -> np.ndarray:
        """The rows `[K]`, all of `width` values, as `[K, width]` of their own memory."""
        if np.array_equal(rows, np.arange(len(self.offsets) - 1)):
            return self.values.reshape(len(rows), width).copy()
        taken: np.ndarray = self.values[self.offsets[rows][:, None] + np.arange(width)]
        return taken


def from_table(table: pa.Table, source: Source) -> list[Record]:
    """The rows of `table`, validated, as one record per session (and per shape and typical return, where they differ).

    Args:
        table: columns of `SCHEMA`, in any order; others are ignored.
        source: where the rows come from, for messages.

    Raises:
        UserError: a column is missing or of a wrong type, or a row is malformed.
    """
    table = _with_our_types(table, source.name)
    lists = {
        f"{side}_{name}": _numpy_lists(table[f"{side}_{name}"]) for side in _SIDES for name in (*_LISTS, "context")
    }
    scalars = {
        name: table[name].to_numpy()
        for name in table.column_names
        if name not in lists and name not in ("answers", "instruction")
    }
    for wrong, problem in _problems(lists, scalars):
        if wrong.any():
            raise UserError(f"{source.row(int(wrong.argmax()))}: {problem}")
    answers, instructions = _answers(table, source), np.array(table["instruction"].fill_null("").to_pylist(), object)
    steps = lists["left_reward"].lengths
    widths = (lists["left_obs"].lengths // steps, lists["left_action"].lengths // steps)
    margins = lists["left_context"].lengths // np.maximum(1, 2 * (widths[0] + widths[1]))
    keys = zip(scalars["session"], scalars["typical_return"], steps, *widths, margins, strict=True)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    records = []
    for (session, typical, length, obs_dim, action_dim, margin), rows in groups.items():
        index = np.array(rows)
        first = np.sort(np.unique(scalars["query_id"][index], return_index=True)[1])
        kept, shape = index[first], (int(length), int(obs_dim), int(action_dim), int(margin))
        left, right = (_segments(lists, scalars, side, kept, shape) for side in _SIDES)
        ids, said = tuple(scalars["query_id"][kept]), tuple(instructions[kept])
        queries = Queries(ids, int(session), left, right, float(typical), said if any(said) else ())
        records.append(unite([(queries, [answer for row in rows for answer in answers[row]])]))
    return records


def _with_our_types(table: pa.Table, name: str) -> pa.Table:
    """`table` with exactly our columns, cast to our types, in one chunk each."""
    for column in _OPTIONAL:
        if column not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), SCHEMA.field(column).type))
    missing = [column for column in SCHEMA.names if column not in table.column_names]
    if missing:
        raise UserError(f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    for field in SCHEMA:
        try:
            table[field.name].cast(field.type)
        except pa.ArrowException as error:
            kind = table.schema.field(field.name).type
            raise UserError(f"{name}: column {field.name} holds {kind}, not {field.type}") from error
    return table.select(SCHEMA.names).cast(pa.schema(list(SCHEMA))).combine_chunks()


def _numpy_lists(column: pa.ChunkedArray) -> _Column:
    """A list column without copying numbers; an absent list is an empty one, an absent number is NaN."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    lengths = array.value_lengths().fill_null(0).to_numpy()
    values = array.flatten()
    if pa.types.is_boolean(values.type) and values.null_count:
        values = values.cast(pa.float32())
    return _Column(
        values.to_numpy(zero_copy_only=False), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64, copy=False)
    )


def _problems(lists: dict[str, _Column], scalars: dict[str, np.ndarray]) -> Iterable[tuple[Bools, str]]:
    """Masks over rows `[N]` and what is wrong with the rows they name, in the order to be checked."""
    steps = lists["left_reward"].lengths
    for name in ("query_id", "session", "typical_return", *(f"{s}_{c}" for s in _SIDES for c in ("episode", "start"))):
        values = scalars[name]
        absent = np.array([v is None for v in values]) if values.dtype == object else ~np.isfinite(values)
        yield absent, f"{name} is missing"
    yield scalars["query_id"] == "", "query_id is empty"
    yield scalars["session"] < 0, "session is negative"
    yield steps == 0, "the segments are empty"
    for side in _SIDES:
        yield scalars[f"{side}_start"] < 0, f"{side}_start is negative"
        for name in ("reward", "success"):
            yield lists[f"{side}_{name}"].lengths != steps, f"{side}_{name} and left_reward differ in length"
        for name in ("obs", "action"):
            lengths = lists[f"{side}_{name}"].lengths
            wrong = (lengths == 0) | (lengths % np.maximum(steps, 1) != 0) | (lengths != lists[f"left_{name}"].lengths)
            yield wrong, f"{side}_{name} does not hold the same number of values for each step of both segments"
        for name in _LISTS:
            column = lists[f"{side}_{name}"]
            wrong = column.rows_with(~np.isfinite(column.values))
            if name == "reward":  # NaN throughout: nobody knows it
                wrong &= column.rows_with(~np.isnan(column.values))
            yield wrong, f"{side}_{name} {_NOT_FINITE}"
        lengths = lists[f"{side}_context"].lengths
        rows = 2 * sum(lists[f"{side}_{name}"].lengths for name in ("obs", "action")) // np.maximum(steps, 1)
        wrong = (lengths % np.maximum(rows, 1) != 0) | (lengths != lists["left_context"].lengths)
        yield wrong, f"{side}_context does not hold as many whole steps before either segment as after it"
        column = lists[f"{side}_context"]
        yield column.rows_with(np.isinf(column.values)), f"{side}_context holds an infinite value"
        column = lists[f"{side}_action"]
        yield column.rows_with(np.abs(column.values) > 1), f"{side}_action lies outside [-1, 1]: scale it to that range"


def _answers(table: pa.Table, source: Source) -> list[list[Answer]]:
    """The answers of each row."""
    found: list[list[Answer]] = []
    for row, (key, said) in enumerate(zip(table["query_id"].to_pylist(), table["answers"].to_pylist(), strict=True)):
        if not all(answer and answer["annotator"] and None not in answer.values() for answer in said or []):
            raise UserError(f"{source.row(row)}: an answer lacks its choice, annotator, seconds or replays")
        try:
            found.append([Answer(query_id=key, **answer) for answer in said or []])
        except ValueError as error:
            raise UserError(f"{source.row(row)}: {error}") from error
    return found


def _segments(
    lists: dict[str, _Column],
    scalars: dict[str, np.ndarray],
    side: str,
    rows: Integers,
    shape: tuple[int, int, int, int],
) -> Segments:
    """The `side` of `rows` `[K]`, whose segments have `shape` `(T, O, A)` and the margin of their context."""
    length, obs_dim, action_dim, margin = shape
    width = obs_dim + action_dim
    return Segments(
        obs=lists[f"{side}_obs"].take(rows, length * obs_dim).reshape(-1, length, obs_dim),
        action=lists[f"{side}_action"].take(rows, length * action_dim).reshape(-1, length, action_dim),
        reward=lists[f"{side}_reward"].take(rows, length),
        success=lists[f"{side}_success"].take(rows, length),
        episode=scalars[f"{side}_episode"][rows],
        start=scalars[f"{side}_start"][rows],
        context=lists[f"{side}_context"].take(rows, 2 * margin * width).reshape(-1, 2 * margin, width)
        if margin
        else None,
    )


def unite(records: Sequence[Record]) -> Record:
    """Records of one session as one: of each query the first wording, of each annotator the first answer to it."""
    first = records[0][0]
    wording: dict[str, int] = {}
    for i, key in enumerate(key for queries, _ in records for key in queries.ids):
        wording.setdefault(key, i)
    answers: dict[tuple[str, str], Answer] = {}
    for answer in (answer for _, said in records for answer in said):
        answers.setdefault((answer.query_id, answer.annotator), answer)
    if len(records) == 1:
        return first, list(answers.values())
    index = np.array(list(wording.values()), dtype=np.int64)
    left = Segments.concatenate([queries.left for queries, _ in records]).take(index)
    right = Segments.concatenate([queries.right for queries, _ in records]).take(index)
    said = [sentence for queries, _ in records for sentence in queries.instructions or ("",) * len(queries)]
    instructions = tuple(said[i] for i in index) if any(said) else ()
    united = Queries(tuple(wording), first.session, left, right, first.typical_return, instructions)
    return united, list(answers.values())
