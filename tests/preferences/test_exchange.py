"""Import and export: what goes out comes back bit for bit, and a malformed row stops everything."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.exchange import export_file, import_file, info
from rayrlhf.preferences.segments import Queries, Segments, query_id


def session(number: int, count: int, steps: int = 4) -> Queries:
    rng = np.random.default_rng(number)

    def draw() -> Segments:
        return Segments(
            obs=rng.normal(size=(count, steps, 3)).astype(np.float32),
            action=rng.uniform(-1, 1, size=(count, steps, 2)).astype(np.float32),
            reward=rng.normal(size=(count, steps)).astype(np.float32),
            success=rng.random((count, steps)) < 0.5,
            episode=rng.integers(0, 9, count),
            start=rng.integers(0, 9, count),
        )

    ids = tuple(query_id("run", number, i) for i in range(count))
    said = tuple(rng.choice(["", "open the drawer", "Öffne 'die' \"Lade\"\n"], count)) if number == 1 else ()
    return Queries(ids, number, draw(), draw(), rng.normal(), said)


@pytest.fixture
def filled(tmp_path: Path) -> PreferenceDataset:
    """Three sessions, one of another length, one of more rows than are parsed at once; some queries unanswered."""
    dataset = PreferenceDataset(tmp_path / "filled")
    for queries in (session(0, 3), session(1, 300, steps=2), session(4, 2)):
        said = [Answer(key, "left", "oracle") for key in queries.ids[1:]]
        dataset.append(queries, [*said, Answer(queries.ids[0], "skip", "eva", 2.5, 1)][1:])
    return dataset


def assert_equal(one: PreferenceDataset, other: PreferenceDataset) -> None:
    for (queries, answers), (expected, expected_answers) in zip(one.read(), other.read(), strict=True):
        for name in ("ids", "session", "typical_return", "instructions"):
            assert getattr(queries, name) == getattr(expected, name)
        assert sorted(answers, key=str) == sorted(expected_answers, key=str)
        for side in ("left", "right"):
            for field in fields(Segments):
                first, second = (getattr(getattr(q, side), field.name) for q in (queries, expected))
                assert (first is None) == (second is None)
                if second is not None:
                    assert first.dtype == second.dtype
                    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_export_and_import_restore_everything(filled: PreferenceDataset, tmp_path: Path, ending: str) -> None:
    path, copy = tmp_path / f"all.{ending}", PreferenceDataset(tmp_path / "copy")
    assert export_file(filled, path) == 305
    assert import_file(copy, path) == 302
    assert_equal(copy, filled)
    size = copy.size_bytes
    assert import_file(copy, path) == 0
    assert copy.size_bytes == size
    assert len(list(Path(copy.where).iterdir())) == 3, "one file per session"


def test_info_counts(filled: PreferenceDataset) -> None:
    found = info(filled)
    assert sum(found["instructions"].values()) == sum(1 for said in session(1, 300, steps=2).instructions if said)
    assert json.loads(json.dumps(found)) == {
        "where": filled.where,
        "sessions": 3,
        "queries": 305,
        "unanswered": 3,
        "answers": {"left": 299, "right": 0, "equal": 0, "skip": 3},
        "annotators": ["eva", "oracle"],
        "instructions": found["instructions"],
        "rewarded": 305,
        "shapes": [
            {"segment_length": 4, "obs_dim": 3, "action_dim": 2, "queries": 5},
            {"segment_length": 2, "obs_dim": 3, "action_dim": 2, "queries": 300},
        ],
        "bytes": sum(path.stat().st_size for path in Path(filled.where).iterdir()),
    }


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    empty = PreferenceDataset(tmp_path / "none")
    for act in (lambda: info(empty), lambda: export_file(empty, tmp_path / "x.parquet")):
        with pytest.raises(UserError, match="holds no preference data"):
            act()
    for ending in ("parquet", "jsonl"):
        with pytest.raises(UserError, match=f"cannot read .*missing.{ending}: no such file"):
            import_file(empty, tmp_path / f"missing.{ending}")
    with pytest.raises(UserError, match=r"must end in \.parquet or \.jsonl"):
        import_file(empty, tmp_path / "x.csv")
    (tmp_path / "garbage.parquet").write_bytes(b"PAR1 but nothing else PAR1")
    with pytest.raises(UserError, match=r"cannot read .*garbage\.parquet"):
        import_file(empty, tmp_path / "garbage.parquet")


def good_line() -> dict[str, Any]:
    side = {"obs": [[0.0, 1], [2, 3]], "action": [[0.5], [-1]], "reward": [1, 2], "success": [True, False]}
    segment = {**side, "episode": 3, "start": 7}
    return {"query_id": "a/1", "session": 0, "left": segment, "right": segment, "answers": []}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good line with one value replaced."""
    line = json.loads(json.dumps(good_line()))
    *parents, last = path.split(".")
    inner = line
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return line


MALFORMED = [
    ("{", "Invalid JSON"),
    ("[1]", "valid dictionary|object"),
    ({}, "query_id: Field required"),
    (changed("colour", 1), "colour: Extra inputs"),
    (changed("query_id", ""), "query_id is empty"),
    (changed("session", -1), "session is negative"),
    (changed("session", "one"), "session: Input should be a valid integer"),
    (changed("left.start", -1), "left_start is negative"),
    (changed("left.reward", [1]), "left: .*differ in length"),
    (changed("left.obs", [[1, 2], [3]]), "left: .*differ in width"),
    (changed("left.obs", [[], []]), "left_obs"),
    (changed("right.obs", [[1], [2]]), "right_obs"),
    (changed("left.obs", [[1, 2], [3, None]]), "left.obs.1.1"),
    (changed("left.obs", [[1, 2], [3, 1e39]]), "left_obs holds a missing or infinite value"),
    (changed("left.action", [[1], [1.5]]), r"left_action lies outside \[-1, 1\]"),
    (changed("left.success", [1, 0]), "left.success.0: Input should be a valid boolean"),
    (changed("answers", [{"choice": "maybe", "annotator": "x"}]), "answers.0.choice"),
    (changed("answers", [{"choice": "left", "annotator": ""}]), "an answer lacks"),
    (changed("answers", [{"choice": "left", "annotator": "x", "seconds": -1.0}]), "negative"),
]


@pytest.mark.parametrize(("line", "message"), MALFORMED)
def test_a_malformed_line_is_named_and_nothing_is_written(tmp_path: Path, line: Any, message: str) -> None:
    path, dataset = tmp_path / "some.jsonl", PreferenceDataset(tmp_path / "preferences")
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(good_line()) + "\n\n" + text + "\n")
    with pytest.raises(UserError, match=rf"some\.jsonl, line 3: .*({message})"):
        import_file(dataset, path)
    assert not Path(dataset.where).exists()


def test_a_well_formed_line_is_read(tmp_path: Path) -> None:
    path, dataset = tmp_path / "some.jsonl", PreferenceDataset(tmp_path / "preferences")
    path.write_text(json.dumps(changed("answers", [{"choice": "right", "annotator": "eva"}])))
    assert import_file(dataset, path) == 1
    ((queries, answers),) = dataset.read()
    assert answers == [Answer("a/1", "right", "eva")]
    assert queries.typical_return == 0.0
    np.testing.assert_array_equal(queries.left.obs, [[[0, 1], [2, 3]]])


def rows(path: Path, change: dict[str, Any]) -> None:
    """A Parquet file of five rows, the fourth of which is changed."""
    table = pq.read_table(path)
    content = table.to_pylist()
    content[3] |= change
    pq.write_table(pa.Table.from_pylist(content, schema=table.schema), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_id": None}, "query_id is missing"),
        ({"left_episode": None}, "left_episode is missing"),
        ({"typical_return": float("nan")}, "typical_return is missing"),
        ({"left_reward": []}, "the segments are empty"),
        ({"left_obs": None}, "left_obs does not hold"),
        ({"right_obs": [0.0] * 11}, "right_obs does not hold"),
        ({"right_reward": [1.0, None, 2.0, 3.0]}, "right_reward holds a missing"),
        ({"right_success": [True, None, True, True]}, "right_success holds a missing"),
        ({"answers": [{"choice": "no", "annotator": "x", "seconds": 0.0, "replays": 0}]}, "'no' is none of"),
        ({"answers": [{"choice": "left", "annotator": "x", "seconds": None, "replays": 0}]}, "an answer lacks"),
    ],
)
def test_a_malformed_row_is_named_and_nothing_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    source, path = PreferenceDataset(tmp_path / "source"), tmp_path / "some.parquet"
    source.append(session(0, 5), [])
    export_file(source, path)
    rows(path, change)
    target = PreferenceDataset(tmp_path / "target")
    with pytest.raises(UserError, match=rf"some\.parquet, row 4: .*{message}"):
        import_file(target, path)
    assert not Path(target.where).exists()


def test_columns_are_checked(filled: PreferenceDataset, tmp_path: Path) -> None:
    path, target = tmp_path / "some.parquet", PreferenceDataset(tmp_path / "target")
    export_file(filled, path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["left_obs", "session"]), path)
    with pytest.raises(UserError, match="lacks the columns session, left_obs"):
        import_file(target, path)
    pq.write_table(table.set_column(1, "session", pa.array(["x"] * len(table))), path)
    with pytest.raises(UserError, match="column session holds string, not int64"):
        import_file(target, path)


def test_double_precision_and_more_columns_are_accepted(filled: PreferenceDataset, tmp_path: Path) -> None:
    path, target = tmp_path / "some.parquet", PreferenceDataset(tmp_path / "target")
    export_file(filled, path)
    table = pq.read_table(path)
    wide = table["left_obs"].cast(pa.large_list(pa.float64()))
    table = table.set_column(table.column_names.index("left_obs"), "left_obs", wide)
    pq.write_table(table.append_column("note", pa.array(["mine"] * len(table))), path)
    import_file(target, path)
    assert_equal(target, filled)
