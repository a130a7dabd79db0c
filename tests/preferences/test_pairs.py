"""Other people's clips: what is read, and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrlhf.errors import UserError
from rayrlhf.preferences.pairs import Pair, read_pairs
from rayrlhf.preferences.table import SCHEMA


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name in ("a_left.mp4", "a_right.mp4", "b-LEFT.webm", "b-right.MP4", "deep/c/left.mp4", "deep/c/right.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"clip")
    for name in ("notes.txt", "other.mp4", ".hidden_left.mp4"):
        (tmp_path / name).write_bytes(b"not a pair")
    return tmp_path


def test_a_folder_of_clips(clips: Path) -> None:
    found = {pair.id: (pair.left.name, pair.right.name) for pair in read_pairs(clips)}
    assert found == {
        "a": ("a_left.mp4", "a_right.mp4"),
        "b": ("b-LEFT.webm", "b-right.MP4"),
        "deep/c": ("left.mp4", "right.mp4"),
    }


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_a_file_that_lists_them(clips: Path, kind: str) -> None:
    rows = [
        {"id": "one", "left": "a_left.mp4", "right": "deep/c/left.mp4", "gold": "left"},
        {"id": "", "left": str(clips / "a_right.mp4"), "right": "b-right.MP4", "gold": ""},
    ]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), clips / "list.parquet")
    text = {
        "parquet": "",
        "csv": "\ufeffid,left,right,gold\n" + "".join(",".join(row.values()) + "\n" for row in rows),
        "json": json.dumps(rows),
        "jsonl": "\n\n".join(map(json.dumps, rows)),
    }[kind]
    if text:
        (clips / f"list.{kind}").write_text(text)
    assert read_pairs(clips / f"list.{kind}") == [
        Pair("one", clips / "a_left.mp4", clips / "deep/c/left.mp4", "left"),
        Pair("a_right b-right", clips / "a_right.mp4", clips / "b-right.MP4"),
    ]


def test_a_dataset_of_segments_is_no_list_of_clips(clips: Path) -> None:
    pq.write_table(SCHEMA.empty_table(), clips / "data.parquet")
    with pytest.raises(UserError, match="holds segments, and no clips of them"):
        read_pairs(clips / "data.parquet")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"left": "a_left.mp4"}', "line 1: right is None, wanted the path of a clip"),
        ("x.jsonl", '{"left": "a_left.mp4", "right": "none.mp4"}', "line 1: there is no clip"),
        ("x.jsonl", '\n{"left": ', "line 2: not JSON"),
        ("x.jsonl", "[1]", "line 1: wanted an object"),
        ("x.json", "{}", "wanted a list of objects"),
        ("x.json", '[{"left": "a_left.mp4", "right": "a_right.mp4", "gold": "both"}]', "gold is 'both', wanted one of"),
        ("x.csv", "left,right,who\na_left.mp4,a_right.mp4,me", "line 2: unknown column 'who'"),
        ("x.csv", "left,right\na_left.mp4,a_right.mp4\na_left.mp4,a_right.mp4", "two pairs are called"),
        ("x.csv", "left,right\na_left.mp4,a_right.mp4,more", "line 2: unknown column ''"),
        ("x.csv", 'left,right,id\na_left.mp4,a_right.mp4,"two\nlines"', "line 3: 'two"),
        ("x.csv", f"left,right\na_left.mp4,{'x' * 200_000}", "after line 1: field larger"),
        ("x.csv", "", "holds no pairs"),
        ("x.parquet", "PAR1", "cannot read"),
        ("x.txt", "", "wanted a folder of clips, or a .csv"),
        ("x.csv", b"\xff\xfe\x00", "cannot read"),
        ("d_left.mp4", "clip", "d_left.mp4 has no right clip beside it"),
        ("a.left.mp4", "clip", "would both be the left clip of one pair"),
    ],
)
def test_what_is_malformed_is_named(clips: Path, name: str, text: str | bytes, message: str) -> None:
    (clips / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_pairs(clips if name.endswith(".mp4") else clips / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        read_pairs(tmp_path / "none")
    with pytest.raises(UserError, match="holds no pairs"):
        read_pairs(tmp_path)
