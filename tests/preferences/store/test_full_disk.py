"""The preference store where the disk is full: in a process that may write no longer files."""

import subprocess
import sys
from pathlib import Path

from rayrlhf.preferences.store import Database, PreferenceStore, Reports

FULL = """
import os, resource, sys
from rayrlhf.errors import UserError
from rayrlhf.preferences.store import Database, PreferenceStore, Question, Run

file = sys.argv[1]
store = PreferenceStore(Database(file))
store.register(Run("run", "drawer-open", "open the drawer"))
store.enqueue("run", [Question(f"early {i}", 0, i) for i in range(50)])
for lease in store.lease("run", "anna", 20):
    store.answer("anna", lease.id, "left", key=f"key {lease.id}")

def put():
    store.enqueue("run", [Question(f"late {i} ".ljust(150, "."), 0, i) for i in range(900)])

room = max(os.path.getsize(file + end) for end in ("", "-wal")) + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))  # stands for the disk's end
for _ in range(2):
    try:
        put()
    except UserError as error:
        print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.argv[2] == "go on":
    put()
"""


def what_is_left(file: Path, then: str) -> list[str]:
    """Runs the program; what it said."""
    program = [sys.executable, "-c", FULL, str(file), then]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


def counts(file: Path) -> tuple[int, int, int]:
    """Questions that are open, that have a label, and answers."""
    database = Database(str(file))
    reports = Reports(database)
    progress, [anna] = reports.progress("run"), reports.people("run")
    assert PreferenceStore(database).lease("run", "ben"), "it goes on"
    database.close()
    return progress.open, progress.label, anna.answers


def test_a_full_disk_is_one_line_and_keeps_all_that_was_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    lines = what_is_left(file, "end")
    assert len(lines) == 2, "each try is one line"
    for line in lines:
        assert line.startswith("UnavailableError the preference store at sqlite:///") and str(file) in line
        assert line.endswith(("disk I/O error", "database or disk is full"))
    assert counts(file) == (30, 20, 20), "all of the early ones, and no part of the late ones"


def test_the_same_call_works_once_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    assert len(what_is_left(file, "go on")) == 2
    assert counts(file) == (30 + 900, 20, 20)
