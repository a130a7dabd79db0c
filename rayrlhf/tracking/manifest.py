"""What a run was made with: versions, the state of the source, the command. Nothing in it names the machine."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "rayrlhf",
    "ray",
    "torch",
    "numpy",
    "gymnasium",
    "metaworld",
    "mujoco",
    "envpool",
    "dm_control",
    "shimmy",
    "pyarrow",
    "pydantic",
    "av",
)
MAX_DIFF = 1_000_000
_IMPORTED = time.time()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit, whether anything differs from it, and what, in the git work tree that `file` belongs to; none without.

    A package that is installed inside somebody's work tree is no part of that. Of files that git does not know, and of
    a difference of more than `MAX_DIFF` characters, nothing but their being there is told.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        commit = _git(file.parent, "rev-parse", "HEAD").strip()
        dirty = bool(_git(file.parent, "status", "--porcelain"))
        diff = _git(file.parent, "diff", "--no-color", "--no-ext-diff", "--binary", "HEAD") if dirty else ""
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty, "diff": diff if len(diff) <= MAX_DIFF else None}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=20
    )
    return done.stdout


def manifest(command: Sequence[str]) -> dict[str, Any]:
    """What to write into `manifest.json` for a run that `command` (as `sys.argv`) starts now."""
    return {
        "command": _words(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "git": git_state(Path(__file__)),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


def _words(command: Sequence[str]) -> list[str]:
    """The command without the folder of its program; `python -m rayrlhf` is `rayrlhf`."""
    program = Path(command[0]).name if command else ""
    return ["rayrlhf" if program == "__main__.py" else program, *command[1:]]


def seconds_since_start() -> float:
    """Seconds since this process was started (Linux), or since this module was imported (elsewhere)."""
    if not sys.platform.startswith("linux"):
        return time.time() - _IMPORTED
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5): ticks since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
