"""`rayrlhf dataset` as a user meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from preference_data import answered, dataset, queries

from rayrlhf import cli
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.formats.files import export_any


def told(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    assert cli.main(["dataset", *map(str, args), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def mistake(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert cli.main(["dataset", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rayrlhf: ") and err.count("\n") == 1
    return err.removeprefix("rayrlhf: ").strip()


def test_out_as_triplets_and_in_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path / "a", 5, instructions=("open", "open", "close", "", ""))
    for name in ("x.json", "x.pickle"):
        assert told(capsys, "export", tmp_path / "a", tmp_path / name) == {
            "file": str(tmp_path / name), "queries": 5, "left_out": 0,
        }  # fmt: skip
        assert told(capsys, "import", tmp_path / f"from-{name}", tmp_path / name)["new_answers"] == 5
        found = told(capsys, "info", tmp_path / f"from-{name}")
        assert (found["rewarded"], found["instructions"]) == (5, {"close": 1, "open": 2})
    cli.main(["dataset", "info", str(tmp_path / "a")])
    shown = capsys.readouterr().out
    assert "1 'close', 2 'open'" in shown and "of all questions" in shown
    assert told(capsys, "export", tmp_path / "a", tmp_path / "x.jsonl", "--format", "trl")["left_out"] == 0
    assert told(capsys, "import", tmp_path / "t", tmp_path / "x.jsonl", "--format", "trl")["new_answers"] == 5


def test_segments_of_a_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path / "a", 3)
    told(capsys, "export", tmp_path / "a", tmp_path / "x.json")
    told(capsys, "import", tmp_path / "b", tmp_path / "x.json", "--segment-length", "4")
    assert [shape["segment_length"] for shape in told(capsys, "info", tmp_path / "b")["shapes"]] == [4]
    assert "wanted 1 or more" in mistake(capsys, "import", tmp_path / "c", tmp_path / "x.json", "--segment-length", "0")
    assert "has 6 steps, fewer than --segment-length 9" in mistake(
        capsys, "import", tmp_path / "c", tmp_path / "x.json", "--segment-length", "9"
    )
    assert not (tmp_path / "c").exists()


def test_combine_loses_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One dataset twice, another with the same ids for other pairs, one of another length, one with other answers."""
    asked = queries(4)
    dataset(tmp_path / "a", 4)
    other = queries(4, session=1)
    renamed = type(asked)(asked.ids, 0, other.left, other.right, 1.0)
    PreferenceDataset(tmp_path / "b").append(renamed, answered(renamed))
    dataset(tmp_path / "c", 3, session=7, steps=9)
    PreferenceDataset(tmp_path / "d").append(asked, [Answer(key, "skip", "eva") for key in asked.ids[:2]])
    said = told(capsys, "combine", tmp_path / "out", *(tmp_path / name for name in "abacd"))
    assert (said["new_answers"], said["known_answers"]) == (4 + 4 + 3 + 2, 4)
    found = told(capsys, "info", tmp_path / "out")
    assert (found["queries"], found["unanswered"]) == (4 + 4 + 3, 0)
    assert sum(found["answers"].values()) == 13 and found["answers"]["skip"] == 2
    assert sorted(shape["queries"] for shape in found["shapes"]) == [3, 8]
    assert told(capsys, "combine", tmp_path / "out", tmp_path / "b")["new_answers"] == 0


def test_a_folder_of_lerobots_is_replaced_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset(tmp_path / "a", 2)
    args: list[str | Path] = ["export", tmp_path / "a", tmp_path / "robot", "--format", "lerobot"]
    told(capsys, *args)
    assert "replace it with --overwrite" in mistake(capsys, *args)
    dataset(tmp_path / "a", 5, session=1)
    assert told(capsys, *args, "--overwrite")["queries"] == 7
    assert told(capsys, "import", tmp_path / "b", tmp_path / "robot")["new_answers"] == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "robot"]
    (tmp_path / "mine").mkdir()
    args[2] = tmp_path / "mine"
    assert "exists and is no LeRobot dataset" in mistake(capsys, *args, "--overwrite")
    with pytest.raises(UserError, match="is a URL: a dataset of LeRobot's is a folder of this machine"):
        export_any(PreferenceDataset(tmp_path / "a"), "s3://x/robot", kind="lerobot")


def test_nothing_on_a_terminal_obeys_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07"
    asked, made = queries(2), PreferenceDataset(tmp_path / "a")
    made.append(asked, [Answer(asked.ids[0], "left", hostile)])
    assert cli.main(["dataset", "info", str(tmp_path / "a")]) == 0
    assert cli.main(["dataset", "export", str(tmp_path / "a"), str(tmp_path / "x.jsonl")]) == 0
    line = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])
    (tmp_path / "x.jsonl").write_text(json.dumps({**line, hostile: 1}))
    assert cli.main(["dataset", "import", str(tmp_path / "b"), str(tmp_path / "x.jsonl")]) == 2
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(out + err)
    assert "x1b" in out and "x1b" in err


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path / "a", 2)
    assert "which datasets?" in mistake(capsys, "combine", tmp_path / "out")
    assert "there is no dataset" in mistake(capsys, "combine", tmp_path / "out", tmp_path / "a", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no preference data" in mistake(
        capsys, "combine", tmp_path / "out", tmp_path / "a", tmp_path / "empty"
    )
    assert "did you mean 'combine'" in mistake(capsys, "combin")
    assert "must end in" in mistake(capsys, "export", tmp_path / "a", tmp_path / "x.npz")
    (tmp_path / "x.pickle").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "is refused" in mistake(capsys, "import", tmp_path / "out", tmp_path / "x.pickle")
    (tmp_path / "x.json").write_text("[")
    assert "no whole JSON list" in mistake(capsys, "import", tmp_path / "out", tmp_path / "x.json")
    assert not (tmp_path / "out").exists()
