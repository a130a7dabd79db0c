"""A dataset as a folder of LeRobot's, format 3: each segment an episode, with the preferences beside them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayrlhf.errors import UserError
from rayrlhf.files import whole_folder
from rayrlhf.preferences.answers import TARGETS, Answer
from rayrlhf.preferences.formats.lerobot import ACTION, BESIDE, EPISODES, INFO, OBSERVATIONS, REWARD, SUCCESS, TASKS
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.table import Record

FPS = 10
"""Frames per second, which the format wants and nobody knows: times are steps, a tenth of a second each."""
_FILE = "chunk-000/file-000.parquet"
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def write_lerobot(records: Sequence[Record], folder: Path) -> None:
    """Writes the folder, whole or not at all. One of LeRobot's that was there before is replaced.

    Raises:
        UserError: something else is there, the disk refuses, or the segments have several widths.
    """
    if folder.exists() and not (folder / INFO).is_file():
        raise UserError(f"{folder} exists and is no LeRobot dataset: choose another name")
    widths = {(q.left.obs.shape[2], q.left.action.shape[2]) for q, _ in records}
    if len(widths) > 1:
        raise UserError(f"a LeRobot dataset has observations and actions of one width, this one has {sorted(widths)}")
    with whole_folder(folder) as aside:
        _write(records, aside, *widths.pop())


def _write(records: Sequence[Record], folder: Path, obs: int, action: int) -> None:
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    steps = 0
    data = folder / "data" / _FILE
    data.parent.mkdir(parents=True)
    with pq.ParquetWriter(data, _schema(obs, action)) as writer:
        for segments, i, sentence in _sides(records):
            task = tasks.setdefault(sentence, len(tasks))
            writer.write_table(_frames(segments, i, len(episodes), steps, task))  # a row group an episode
            episodes.append(_episode(len(episodes), steps, segments.length, sentence))
            steps += segments.length
    _put(folder / EPISODES / _FILE, pa.Table.from_pylist(episodes))
    _put(folder / TASKS, pa.table({"task_index": list(tasks.values()), "task": list(tasks)}), index="task")
    _put(folder / BESIDE[0], pa.Table.from_pylist([row for record in _numbered(records) for row in record], _JUDGED))
    info = _info(len(episodes), steps, len(tasks), obs, action)
    (folder / INFO).write_text(json.dumps(info, indent=4) + "\n")


def _sides(records: Sequence[Record]) -> Iterator[tuple[Segments, int, str]]:
    """Left and right of each query, one after the other, and its instruction."""
    for queries, _ in records:
        for i, sentence in enumerate(queries.instructions or ("",) * len(queries)):
            yield queries.left, i, sentence
            yield queries.right, i, sentence


def _frames(segments: Segments, i: int, episode: int, first: int, task: int) -> pa.Table:
    count = segments.length
    number = np.arange(count)
    columns = {
        OBSERVATIONS[0]: _lists(segments.obs[i]),
        ACTION: _lists(segments.action[i]),
        REWARD: segments.reward[i],
        SUCCESS: segments.success[i],
        "timestamp": (number / FPS).astype(np.float32),
        "frame_index": number,
        "episode_index": np.full(count, episode),
        "index": first + number,
        "task_index": np.full(count, task),
    }
    return pa.table(columns, _schema(segments.obs.shape[2], segments.action.shape[2]))


def _lists(rows: np.ndarray) -> pa.Array:
    """`[T, D]` as the format has it: lists, or plain numbers where they are one long."""
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float32())
    return flat if rows.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _schema(obs: int, action: int) -> pa.Schema:
    def wide(width: int) -> pa.DataType:
        return pa.float32() if width == 1 else pa.list_(pa.float32(), width)

    whole = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), pa.int64())
    own = {OBSERVATIONS[0]: wide(obs), ACTION: wide(action), REWARD: pa.float32(), SUCCESS: pa.bool_()}
    return pa.schema({**own, "timestamp": pa.float32(), **whole})


def _episode(number: int, first: int, length: int, sentence: str) -> dict[str, Any]:
    return {
        "episode_index": number,
        "tasks": [sentence],
        "length": length,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": first,
        "dataset_to_index": first + length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _info(episodes: int, steps: int, tasks: int, obs: int, action: int) -> dict[str, Any]:
    def feature(dtype: str, width: int = 1) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [width], "names": None}

    own = {OBSERVATIONS[0]: feature("float32", obs), ACTION: feature("float32", action)}
    own |= {REWARD: feature("float32"), SUCCESS: feature("bool"), "timestamp": feature("float32")}
    whole = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), feature("int64"))
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": episodes,
        "total_frames": steps,
        "total_tasks": tasks,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": _DATA_PATH,
        "video_path": None,
        "features": {**own, **whole},
    }


def _put(path: Path, table: pa.Table, *, index: str | None = None) -> None:
    """Writes a table; `index` is the column that pandas takes for the rows' names."""
    if index is not None:
        kinds = {pa.int64(): ("int64", "int64"), pa.string(): ("unicode", "object")}
        columns = [
            {"name": f.name, "field_name": f.name, "pandas_type": kinds[f.type][0], "numpy_type": kinds[f.type][1]}
            | {"metadata": None}
            for f in table.schema
        ]
        described = {"index_columns": [index], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
        table = table.replace_schema_metadata({"pandas": json.dumps(described)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


_JUDGED = pa.schema(
    {
        "episode_a": pa.int64(),
        "episode_b": pa.int64(),
        "label": pa.string(),
        "query_id": pa.string(),
        "session": pa.int64(),
        "typical_return": pa.float64(),
        "instruction": pa.string(),
        "annotator": pa.string(),
        "seconds": pa.float64(),
        "replays": pa.int64(),
        "source_episode_a": pa.int64(),
        "source_episode_b": pa.int64(),
        "source_start_a": pa.int64(),
        "source_start_b": pa.int64(),
    }
)


def _numbered(records: Sequence[Record]) -> Iterator[list[dict[str, Any]]]:
    first = 0
    for queries, answers in records:
        yield _judgements(queries, answers, first)
        first += 2 * len(queries)


def _judgements(queries: Queries, answers: list[Answer], first: int) -> list[dict[str, Any]]:
    """A row for each answer, or unanswered query; its episodes are `first` and following."""
    said: dict[str, list[Answer | None]] = {key: [] for key in queries.ids}
    for answer in answers:
        said[answer.query_id].append(answer)
    return [
        {
            "episode_a": first + 2 * i,
            "episode_b": first + 2 * i + 1,
            "label": None if answer is None else str(TARGETS.get(answer.choice, answer.choice)),
            "query_id": str(key),
            "session": queries.session,
            "typical_return": queries.typical_return,
            "instruction": queries.instructions[i] if queries.instructions else None,
            "annotator": None if answer is None else answer.annotator,
            "seconds": 0.0 if answer is None else float(answer.seconds),
            "replays": 0 if answer is None else int(answer.replays),
            **{
                f"source_{name}_{side}": int(getattr(segments, name)[i])
                for side, segments in (("a", queries.left), ("b", queries.right))
                for name in ("episode", "start")
            },
        }
        for i, key in enumerate(queries.ids)
        for answer in said[key] or [None]
    ]
