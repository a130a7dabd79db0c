"""Clips where the disk is full: in a process that may write no longer files."""

import os
import subprocess
import sys
from pathlib import Path

from rayrlhf.preferences.store.records import clip_name

FULL = """
import resource, sys
from starlette.exceptions import HTTPException
from rayrlhf.errors import UserError
from rayrlhf.serving.clips import Clips

clips = Clips(sys.argv[1])
small, large = (b"\\0\\0\\0\\x18ftypisom" + bytes(size) for size in (1000, 100_000))
print(clips.keep(small))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))  # stands for the disk's end
try:
    clips.keep(large)
except UserError as error:
    print(error)
try:
    clips.store(sys.argv[2], large)
except HTTPException as refused:
    print(refused.status_code, refused.headers, refused.detail)
print(clips.keep(small))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.argv[3] == "go on":
    print(clips.keep(large))
"""
SMALL, LARGE = (b"\0\0\0\x18ftypisom" + bytes(size) for size in (1000, 100_000))


def said(folder: Path, then: str) -> list[str]:
    program = [sys.executable, "-c", FULL, str(folder), clip_name(LARGE), then]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert done.stderr == f"{lines[1]}\n", "where it is, the log alone says"
    return lines


def test_a_full_disk_is_one_line_and_leaves_the_earlier_clips(tmp_path: Path) -> None:
    first, refused, over_http, again = said(tmp_path / "clips", "end")
    assert first == again == clip_name(SMALL)
    assert (
        refused == f"cannot write {tmp_path / 'clips' / clip_name(LARGE)}: file too large; earlier files are unharmed"
    )
    assert over_http == "503 {'Retry-After': '5'} the clips cannot be stored; try again"
    assert os.listdir(tmp_path / "clips") == [first], "nothing half written"
    assert (tmp_path / "clips" / first).read_bytes() == SMALL


def test_the_same_clip_is_kept_once_there_is_room(tmp_path: Path) -> None:
    assert said(tmp_path / "clips", "go on")[-1] == clip_name(LARGE)
    assert (tmp_path / "clips" / clip_name(LARGE)).read_bytes() == LARGE
