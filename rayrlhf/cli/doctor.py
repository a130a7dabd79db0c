"""`rayrlhf doctor`: what this machine has, what is missing and how to get it."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from rayrlhf import __version__
from rayrlhf.cli.evaluate import has_display
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.cores import free_cores
from rayrlhf.errors import in_one_line

_GB = 1024**3
_PORTS = {6379: "Ray", 8265: "Ray's dashboard"}
_EXTRAS = {
    "fast": "C++ MetaWorld",
    "dmc": "DeepMind Control tasks",
    "onnx": "ONNX files",
    "tune": "searches by Optuna",
    "dev": "tests, lint and types",
}
"""What the extras give that something here uses today."""


@dataclass(frozen=True)
class DoctorOptions:
    """Look at this machine: versions, GPU, drawing, ports, memory, disk, extras; what is missing and how to get it."""

    json: bool = False
    """Print one JSON object, as the last line."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `missing` keeps all from working, `limited` some part of it; `remedy` says what to do."""

    name: str
    state: Literal["ok", "limited", "missing"]
    detail: str
    remedy: str = ""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf doctor ARGS`; 1 if something is missing without which nothing works."""
    options = parse(DoctorOptions, args, "doctor")
    findings = list(examine())
    marks = {"ok": "ok", "limited": "limited", "missing": "MISSING"}
    show(
        f"rayrlhf {__version__}",
        ("", "", "", "to mend it"),
        [(found.name, marks[found.state], found.detail, found.remedy) for found in findings],
    )
    broken = [found.name for found in findings if found.state == "missing"]
    say(f"missing: {', '.join(broken)}" if broken else "ready: rayrlhf train quickstart")
    finish({"ready": not broken, "findings": [asdict(found) for found in findings]}, as_json=options.json)
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """All findings, in the order they are shown."""
    yield _python()
    try:
        needed = _required("rayrlhf")
    except PackageNotFoundError:
        needed = []
        yield Finding("rayrlhf", "missing", "not installed: only its source is here", "pip install -e .")
    yield from map(_package, needed)
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _disk()
    yield _accelerator()
    yield _drawing()
    yield _window()
    yield from (_port(number, user) for number, user in _PORTS.items())
    if needed:
        yield from (_extra(name, use) for name, use in _EXTRAS.items())


def _python() -> Finding:
    good = (3, 11) <= sys.version_info < (3, 14)
    remedy = "" if good else "use Python 3.11, 3.12 or 3.13"
    return Finding("python", "ok" if good else "missing", platform.python_version(), remedy)


def _required(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package needs on this machine: for itself, or for one of its extras."""
    found = []
    for requirement in map(Requirement, requires(package) or []):
        marker = requirement.marker
        applies = marker is None or marker.evaluate({"extra": extra})
        if applies and ("extra" in str(marker)) == bool(extra):
            found.append(requirement)
    return found


def _installed(requirement: Requirement) -> tuple[str, bool]:
    """What is there of it, in words, and whether that will do."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "not installed", False
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{found}, wanted {requirement.specifier}", False
    more = [one for extra in sorted(requirement.extras) for one in _required(requirement.name, extra)]
    absent = [one.name for one in more if not _installed(one)[1]]
    return (f"{found}, without {', '.join(absent)}", False) if absent else (found, True)


def _package(requirement: Requirement) -> Finding:
    detail, good = _installed(requirement)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    remedy = "" if good else f"pip install '{requirement.name}{extras}{requirement.specifier}'"
    return Finding(requirement.name, "ok" if good else "missing", detail, remedy)


def _cores() -> Finding:
    usable = free_cores()
    detail = f"{usable} of {os.cpu_count()} ({platform.machine()})"
    if usable >= 2:
        return Finding("cores", "ok", detail)
    return Finding("cores", "limited", detail, "two or more let acting and learning overlap")


def _memory() -> Finding:
    available = _available_memory()
    if available is None:
        return Finding("memory", "ok", "unknown on this system")
    detail = f"{available / _GB:.1f} GB free"
    if available >= 4 * _GB:
        return Finding("memory", "ok", detail)
    return Finding("memory", "limited", detail, "lower --sac.replay_capacity and --queries.recent_episodes")


def _available_memory() -> int | None:
    """Bytes that a new process can have: the system's, or the control group's where that is less."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _shared_memory() -> Finding:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Finding("shared memory", "ok", "not used on this system")
    free = shutil.disk_usage(shared).free
    detail = f"{free / _GB:.1f} GB free"
    if free >= _GB:
        return Finding("shared memory", "ok", detail)
    return Finding("shared memory", "limited", detail, "Ray falls back to slow disk; in Docker: --shm-size=2g")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{free / _GB:.1f} GB free here"
    if free >= 5 * _GB:
        return Finding("disk", "ok", detail)
    return Finding("disk", "limited", detail, "checkpoints hold the replay: choose another --storage_path")


def _accelerator() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("GPU", "missing", f"torch cannot be imported: {in_one_line(error)}", "install torch anew")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("GPU", "ok", f"{names}; used with --resources.gpus_per_learner and --resources.reward_gpus")
    if shutil.which("nvidia-smi"):
        return Finding("GPU", "limited", "there is one, but this torch cannot use it", "install torch's CUDA build")
    return Finding("GPU", "ok", "none; everything runs on the CPU")


def _drawing() -> Finding:
    try:
        from rayrlhf.envs.gl import rendering_problem
    except ImportError as error:
        return Finding("drawing", "limited", f"not looked at: {in_one_line(error)}", "see the packages above")
    problem = rendering_problem()
    if problem is None:
        return Finding("drawing", "ok", f"MUJOCO_GL={os.environ.get('MUJOCO_GL', 'default')}")
    return Finding("drawing", "limited", "no videos", problem)


def _window() -> Finding:
    if has_display():
        return Finding("display", "ok", "--render human opens a window")
    return Finding("display", "ok", "none; --video writes files")


def _port(number: int, user: str) -> Finding:
    with socket.socket() as probe:
        free = probe.connect_ex(("127.0.0.1", number)) != 0
    if free:
        return Finding(f"port {number}", "ok", f"free for {user}")
    return Finding(
        f"port {number}", "limited", f"taken; {user} wants it", "fine if that is Ray itself, else stop the other"
    )


def _extra(name: str, use: str) -> Finding:
    packages = _required("rayrlhf", name)
    if not packages:
        return Finding(f"extra {name}", "limited", f"no {use}", "none for this system")
    if all(_installed(requirement)[1] for requirement in packages):
        return Finding(f"extra {name}", "ok", use)
    return Finding(f"extra {name}", "limited", f"no {use}", f"pip install 'rayrlhf[{name}]'")
