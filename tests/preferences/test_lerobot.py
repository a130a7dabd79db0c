"""Folders as LeRobot writes them, format 3, made here from its description: several files, several episodes in each."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.formats.files import import_any

LENGTHS = (5, 4, 6)
TASKS = ("open the drawer", "open the drawer", "close it")
PLACES = ((0, 0), (0, 0), (0, 1))
"""Chunk and file of each episode."""


def put(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def frames(episode: int, first: int) -> dict[str, Any]:
    """Columns of one episode; each number tells episode and step. An action of one number is no list (`shape` [1])."""
    count = LENGTHS[episode]
    state = [[100.0 * episode + step, 0.5] for step in range(count)]
    return {
        "observation.state": pa.array(state, pa.list_(pa.float32(), 2)),
        "observation.environment_state": pa.array([[7.0]] * count, pa.list_(pa.float64())),
        "action": pa.array([step / 10 for step in range(count)], pa.float32()),
        "next.reward": pa.array([float(episode)] * count, pa.float32()),
        "frame_index": pa.array(range(count), pa.int64()),
        "episode_index": pa.array([episode] * count, pa.int64()),
        "index": pa.array(range(first, first + count), pa.int64()),
        "task_index": pa.array([TASKS.index(TASKS[episode])] * count, pa.int64()),
    }


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    folder = tmp_path / "robot"
    names = ("observation.state", "observation.environment_state", "action", "next.reward", "observation.images.top")
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": {name: {"dtype": "video" if "images" in name else "float32", "shape": [1]} for name in names},
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    firsts = [sum(LENGTHS[:i]) for i in range(3)]
    tables = [pa.table(frames(i, firsts[i])) for i in range(3)]
    for place, shown in (((0, 0), tables[:2]), ((0, 1), tables[2:])):
        path = folder / info["data_path"].format(chunk_index=place[0], file_index=place[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(shown), path)
    put(
        folder / "meta/episodes/chunk-000/file-000.parquet",
        **{
            "episode_index": [0, 1, 2],
            "tasks": [[task] for task in TASKS],
            "length": list(LENGTHS),
            "data/chunk_index": [place[0] for place in PLACES],
            "data/file_index": [place[1] for place in PLACES],
            "stats/action/mean": [[0.0]] * 3,
        },
    )
    put(folder / "meta/tasks.parquet", task_index=[0, 1], task=["open the drawer", "close it"])
    return folder


def imported(robot: Path, rows: str, name: str = "preferences.csv", **options: Any) -> PreferenceDataset:
    (robot / name).write_text(rows)
    made = PreferenceDataset(robot.parent / "made")
    import_any(made, robot, **options)
    return made


def test_parts_of_episodes_with_the_tasks_sentence(robot: Path) -> None:
    rows = "episode_a,episode_b,start_a,start_b,length,label,annotator,seconds\n0,1,1,0,3,1,eva,2.5\n1,0,,2,3,0.5,,\n"
    ((queries, answers),) = imported(robot, rows).read()
    assert queries.instructions == ("open the drawer", "open the drawer")
    np.testing.assert_array_equal(queries.left.obs[0], [[1, 0.5, 7], [2, 0.5, 7], [3, 0.5, 7]])
    np.testing.assert_array_equal(queries.right.obs[0][:, 0], [100, 101, 102])
    np.testing.assert_array_equal(queries.left.action[0][:, 0], np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_array_equal(queries.right.reward, [[1, 1, 1], [0, 0, 0]])
    assert (queries.left.episode.tolist(), queries.left.start.tolist()) == ([0, 1], [1, 0])
    assert [(a.choice, a.annotator, a.seconds) for a in answers] == [("right", "eva", 2.5), ("equal", "imported", 0.0)]


def test_whole_episodes_of_several_files_are_cut_at_their_ends(robot: Path) -> None:
    rows = (
        {"episode_a": 2, "episode_b": 0, "instruction": "be quick"},
        {"episode_a": 1, "episode_b": 1, "label": None},
    )
    lines = "\n\n".join(json.dumps(row) for row in rows)
    ((queries, answers),) = imported(robot, lines, "preferences.jsonl", segment_length=4).read()
    np.testing.assert_array_equal(queries.left.obs[:, :, 0], [[202, 203, 204, 205], [100, 101, 102, 103]])
    assert queries.left.start.tolist() == [2, 0] and queries.instructions == ("be quick", "open the drawer")
    assert [answer.choice for answer in answers] == ["left"], "a label of null is no answer"


def test_preferences_may_be_elsewhere(robot: Path, tmp_path: Path) -> None:
    put(tmp_path / "mine.parquet", episode_a=[1], episode_b=[1], label=["skip"])
    made = PreferenceDataset(tmp_path / "made")
    assert import_any(made, robot, preferences=tmp_path / "mine.parquet")[0] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("episode_a\n1\n", "line 2: episode_b: Field required"),
        ("episode_a,episode_b,colour\n1,1,2\n", "line 2: colour: Extra inputs"),
        ("episode_a,episode_b\n0,x\n", "line 2: episode_b: .*valid integer"),
        ("episode_a,episode_b\n0,1,5\n", "line 2: it has not as many fields as the first line"),
        ("episode_a,episode_b,length,label\n0,1,4\n", "line 2: it has not as many fields as the first line"),
        (f"episode_a,episode_b,start_a\n0,1,{10**30}\n", "line 2: start_a: "),
        ("episode_a,episode_b\n0,9\n", "has no episode 9"),
        ("episode_a,episode_b,instruction\n0,2,x\n", "the second has 6 steps, others 5"),
        ("episode_a,episode_b,length\n0,2,4\n", "line 2: the episodes 0 and 2 are of several tasks"),
        ("episode_a,episode_b,start_a,length\n0,1,2,4\n", "steps 2 to 6 of episode 0, which has 5"),
        ("episode_a,episode_b,length,label\n0,1,4,2\n", "line 2: the label is '2.0'"),
        ("episode_a,episode_b,length,label\n0,1,4,first\n", "line 2: the label is 'first'"),
        ("episode_a,episode_b,length,label\n0,1,4,nan\n", "line 2: .*label"),
        ("episode_a,episode_b\n", "holds no pairs"),
        ("", "holds no pairs"),
    ],
)
def test_a_malformed_judgement_is_named_and_nothing_is_written(robot: Path, rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        imported(robot, rows)
    assert "\n" not in str(raised.value) and not (robot.parent / "made").exists()


def changed(robot: Path, **values: Any) -> None:
    path = robot / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def episodes_with(robot: Path, **columns: Any) -> None:
    """Other columns of the episodes' table; none: nothing is known."""
    path = robot / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        place, kind = table.column_names.index(name), None if values else table.schema.field(name).type
        table = table.set_column(place, name, pa.array(values or [None] * 3, kind))
    pq.write_table(table, path)


def shorter(robot: Path) -> None:
    path = robot / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 7), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda robot: changed(robot, codebase_version="v2.1"), "has version 'v2.1' of LeRobot's format, v3 is read"),
        (lambda robot: changed(robot, codebase_version="\x1b[2J"), r"has version '\\x1b\[2J'"),
        (lambda robot: changed(robot, codebase_version=[[]]), "has version list of"),
        (lambda robot: changed(robot, features=None), "is no description of a LeRobot dataset: its features"),
        (lambda robot: changed(robot, data_path=None), "is no description of a LeRobot dataset: its features"),
        (lambda robot: (robot / "meta/info.json").write_text("[" * 100_000), "is no description"),
        *(
            (
                lambda robot, path=path: changed(robot, data_path=path),
                "data_path is .*, wanted a path with {chunk_index",
            )
            for path in (
                "{chunk_index:s}/{file_index}",
                "{chunk_index!q}/{file_index}",
                "\0{chunk_index}/{file_index}",
                "{chunk_index:{file_index}}",
                "{chunk_index:999999999999d}/{file_index}",
                "{chunk_index:03d}",
                "{{{chunk_index}/{file_index}",
                "{chunk_index}/{file_index}/{episode}",
            )
        ),
        (lambda robot: episodes_with(robot, tasks=None), "episode 0: its tasks are no sentences"),
        (lambda robot: episodes_with(robot, tasks=[[1], [2], [3]]), "episode 0: its tasks are no sentences"),
        (lambda robot: episodes_with(robot, **{"data/chunk_index": None}), "it is not said where its data is"),
        (lambda robot: changed(robot, features={"action": {}}), "has no observation.state"),
        (lambda robot: changed(robot, data_path="../../{chunk_index}/{file_index}"), "leads out of the folder"),
        (lambda robot: changed(robot, data_path="{chunk_index.__class__}{file_index}"), "data_path is"),
        (lambda robot: changed(robot, data_path="{chunk_index"), "data_path is"),
        (lambda robot: (robot / "meta/info.json").write_text("{"), "is no description"),
        (lambda robot: shutil.rmtree(robot / "meta/episodes"), "has no episode 0"),
        (lambda robot: shutil.rmtree(robot / "data"), r"cannot read .*file-000\.parquet"),
        (shorter, "episode 1 has 2 steps, and 4 were recorded"),
        (lambda robot: cut(robot / "data/chunk-000/file-000.parquet"), r"cannot read .*file-000\.parquet"),
        (lambda robot: cut(robot / "meta/episodes/chunk-000/file-000.parquet"), r"cannot read .*file-000\.parquet"),
        (lambda robot: put(robot / "meta/episodes/chunk-000/file-000.parquet", x=[1]), "cannot read"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(robot: Path, damage: Any, message: str) -> None:
    damage(robot)
    with pytest.raises(UserError, match=message) as raised:
        imported(robot, "episode_a,episode_b,length\n0,1,4\n")
    assert "\n" not in str(raised.value) and not (robot.parent / "made").exists()


@pytest.mark.parametrize("key", ["label", "episode_a", "seconds"])
def test_truth_values_are_no_numbers(robot: Path, key: str) -> None:
    row = {"episode_a": 1, "episode_b": 1, key: True}
    with pytest.raises(UserError, match=f"line 1: {key} is True, which is neither a number nor text"):
        imported(robot, json.dumps(row), "preferences.jsonl")


def test_text_in_quotes_is_what_it_was(robot: Path) -> None:
    said = "open\r\nit\x0b\u2028 now"
    rows = f'episode_a,episode_b,instruction\r\n1,1,"{said}"\r\n'
    (robot / "preferences.csv").write_bytes(rows.encode())
    made = PreferenceDataset(robot.parent / "made")
    import_any(made, robot)
    assert made.read()[0][0].instructions == (said,)


def test_half_a_character_is_one_line(robot: Path) -> None:
    row = '{"episode_a": 1, "episode_b": 1, "instruction": "\\ud800"}'
    with pytest.raises(UserError, match=r"line 1: .*instruction"):
        imported(robot, row, "preferences.jsonl")


def test_without_preferences_it_is_said_where_they_belong(robot: Path, tmp_path: Path) -> None:
    made = PreferenceDataset(tmp_path / "made")
    with pytest.raises(UserError, match=r"has no preferences: put preferences\.parquet"):
        import_any(made, robot)
    with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
        import_any(made, robot, preferences=tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"preferences are in \.csv, \.jsonl or \.parquet"):
        (tmp_path / "x.txt").write_text("hello")
        import_any(made, robot, preferences=tmp_path / "x.txt")
    with pytest.raises(UserError, match="--preferences is for folders of LeRobot's"):
        import_any(made, tmp_path / "x.json", preferences=tmp_path / "none.csv")
