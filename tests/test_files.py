"""Folders that are replaced whole, whatever happens while they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from rayrlhf.errors import UserError
from rayrlhf.files import whole_folder

DIES = """
import os, sys
from pathlib import Path
from rayrlhf import files

steps, rename = int(sys.argv[2]), Path.rename

def counted(self, target):
    global steps
    if steps == 0:
        os._exit(9)
    steps -= 1
    return rename(self, target)

Path.rename = counted
with files.whole_folder(Path(sys.argv[1])) as aside:
    (aside / "new").write_text("new")
"""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write(folder: Path, name: str) -> None:
    with whole_folder(folder) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / name).write_text(name)


def test_a_folder_is_replaced_by_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "model", "old")
    write(tmp_path / "deep" / "model", "new")
    assert names(tmp_path) == ["deep", "deep/model", "deep/model/inner", "deep/model/inner/new"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_process_that_dies_while_it_replaces_loses_nothing(tmp_path: Path, renames: int) -> None:
    place = tmp_path / "model"
    write(place, "old")
    died = subprocess.run([sys.executable, "-c", DIES, str(place), str(renames)], check=False)
    assert died.returncode == (9 if renames < 2 else 0)
    with pytest.raises(RuntimeError, match="no more"), whole_folder(place):
        raise RuntimeError("no more")
    assert names(tmp_path) == (["model", "model/inner", "model/inner/old"] if renames < 2 else ["model", "model/new"])


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_within_changes_nothing(tmp_path: Path, failure: BaseException) -> None:
    place = tmp_path / "model"
    write(place, "old")
    wanted = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(wanted) as raised, whole_folder(place) as aside:
        (aside / "new").write_text("new")
        raise failure
    if wanted is UserError:
        assert str(raised.value) == f"cannot write {place}: No space left on device; what was saved before is untouched"
    assert names(tmp_path) == ["model", "model/inner", "model/inner/old"]
