"""Files are whole or absent: killed in the middle of writing, broken off by an error, or replaced."""

import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.storage import locate, whole_file

HALF_WRITTEN = """
import sys, time
from rayrlhf.preferences.storage import locate, whole_file
with whole_file(*locate(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("before", [None, b"whole"])
def test_a_process_killed_in_the_middle_changes_nothing(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "session-00000-part-0000-0123456789abcdef.parquet"
    if before is not None:
        path.write_bytes(before)
    command = [sys.executable, "-c", HALF_WRITTEN, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        process.kill()
    assert (path.read_bytes() if path.exists() else None) == before
    leftovers = [entry for entry in tmp_path.iterdir() if entry != path]
    assert [entry.read_bytes() for entry in leftovers] == [b"half"]
    if before is None:
        assert PreferenceDataset(tmp_path).read() == [], "the reader passes over what the dead writer left"


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(*locate(tmp_path / "x")) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x"
    for content in (b"first", b"second"):
        with whole_file(*locate(path)) as stream:
            stream.write(content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_other_filesystems_are_written_without_local_calls(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    remote = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())
    with whole_file(remote, "runs/x") as stream:
        stream.write(b"content")
    assert (tmp_path / "bucket/runs/x").read_bytes() == b"content"


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with (
        pytest.raises(UserError, match=r"cannot write .*/x/y: .*; earlier files are unharmed"),
        whole_file(*locate(tmp_path / "x" / "y")) as stream,
    ):
        stream.write(b"content")
