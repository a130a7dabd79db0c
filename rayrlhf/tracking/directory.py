"""The folder of one run: `runs/NAME/` and what lies where in it."""

import errno
import fcntl
import json
import math
import os
import platform
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrlhf.config.load import load_config, save_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.files import is_url, read_object, write_atomically
from rayrlhf.tracking.manifest import manifest

Row = dict[str, float | None]
_LOOK_SECONDS = 0.2
"""No look at who has a folder takes longer."""
INSTRUCTIONS = "instructions.json"
_DAMAGED = "not a JSON object; move it away to go on"


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run lies. Make one with `create`, find one again with `open`."""

    path: Path

    @classmethod
    def create(
        cls,
        config: RunConfig,
        *,
        command: Sequence[str] | None = None,
        taken: Callable[[str], str | None] = lambda name: None,
    ) -> "RunDirectory":
        """A new run's folder, with its config and manifest written.

        A name given in the config must be free; a name made from task, algorithm and seed is numbered until it is.
        `taken` says where else there is a run of a name. Raises `UserError` where the name is taken or the folder
        cannot be made.
        """

        def fill(path: Path) -> None:
            run = cls(path)
            run.make_folders()
            save_config(config, run.config_file)
            _write_json(run.manifest_file, manifest(sys.argv if command is None else command))

        return cls(_claim(config, taken, fill))

    @classmethod
    def open(cls, path: Path | str) -> "RunDirectory":
        """The folder of a run that exists. Raises `UserError` where `path` is none."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise UserError(f"there is no run {str(path)!r}")
        if not run.config_file.is_file():
            raise UserError(f"{str(path)!r} is not a run's folder: it has no config.yaml")
        return run

    def make_folders(self) -> None:
        """Makes the folders in it that are not there."""
        for folder in (self.checkpoints, self.preferences, self.videos, self.plots, self.tensorboard):
            folder.mkdir(exist_ok=True)

    def discard(self) -> None:
        """Deletes the folder of a run that never began, so that its name is free for the next try."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the folder for this process: two that train in it would delete each other's checkpoints.

        The system lets go of it when the process ends, however it ends. Raises `UserError` where another one has it.
        """
        try:
            holder = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write to {str(self.path)!r}: {error.strerror}") from error
        try:
            _lock(holder)
        except BlockingIOError as error:
            other = os.read(holder, 100).decode(errors="replace").strip()
            os.close(holder)
            raise UserError(f"{str(self.path)!r} is in use by {other or 'another process'}: stop it first") from error
        except OSError:
            pass  # a file system without locks
        try:
            os.ftruncate(holder, 0)
            os.write(holder, f"process {os.getpid()} on {platform.node()}\n".encode())
            yield
        finally:
            os.close(holder)

    def holder(self) -> str | None:
        """Which process has the folder now, as `process 12 on HOST`; none where none has, or the system cannot tell."""
        try:
            lock = os.open(self.path / ".lock", os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(lock, 100).decode(errors="replace").strip() or "another process"
        except OSError:
            return None
        finally:
            os.close(lock)
        return None

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.path.resolve().name

    @property
    def config_file(self) -> Path:
        """The run's config: enough to repeat it, unless a resume has changed it on the way."""
        return self.path / "config.yaml"

    @property
    def manifest_file(self) -> Path:
        """Versions, source state and command, of the start and of every resume."""
        return self.path / "manifest.json"

    @property
    def metrics_file(self) -> Path:
        """Rows of metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def events_file(self) -> Path:
        """What happened to the run, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def summary_file(self) -> Path:
        """The numbers a run ends with."""
        return self.path / "summary.json"

    @property
    def alignment_file(self) -> Path:
        """What reward model and policy were found to agree with, when `rayrlhf eval` was last asked."""
        return self.path / "alignment.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def preferences(self) -> Path:
        """Folder of the questions and answers, in Parquet."""
        return self.path / "preferences"

    @property
    def reward_model_file(self) -> Path:
        """The fixed reward model of a run that has one (`reward.from`)."""
        return self.path / "reward_model.safetensors"

    @property
    def videos(self) -> Path:
        """Folder of the videos."""
        return self.path / "videos"

    @property
    def plots(self) -> Path:
        """Folder of the plots."""
        return self.path / "plots"

    @property
    def queue_file(self) -> Path:
        """The preference store, where people answer."""
        return self.path / "queue.sqlite"

    @property
    def clips(self) -> Path:
        """Folder of the clips that people see."""
        return self.path / "clips"

    @property
    def links_file(self) -> Path:
        """Tokens of the run's queue, for its owner's eyes."""
        return self.path / "links.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "tensorboard"

    def config(self) -> RunConfig:
        """The run's config, as it was started or resumed last."""
        return load_config(str(self.config_file))

    @property
    def instructions_file(self) -> Path:
        """What observations end with, where they end with an instruction."""
        return self.path / INSTRUCTIONS

    def metrics(self) -> list[Row]:
        """All rows written so far, oldest first."""
        return list(read_metrics(self.metrics_file))

    def summary(self) -> dict[str, Any] | None:
        """What `write_summary` wrote, or none while the run has not ended."""
        return read_object(self.summary_file, _DAMAGED)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`, atomically."""
        _write_json(self.summary_file, summary)

    def alignment(self) -> dict[str, Any] | None:
        """What `write_alignment` wrote, or none where nobody asked."""
        return read_object(self.alignment_file, _DAMAGED)

    def write_alignment(self, found: Mapping[str, Any]) -> None:
        """Writes `alignment.json`, atomically."""
        _write_json(self.alignment_file, found)

    def note_config(self, config: RunConfig, env_steps: int) -> None:
        """Makes `config` the run's where a resume has changed it; the former one stays as `config-until-STEPS.yaml`."""
        if config != self.config():
            former = self.path / f"config-until-{env_steps}.yaml"
            if not former.exists():  # else it is of an earlier resume from here, and what came between trained nothing
                write_atomically(former, self.config_file.read_bytes())
            save_config(config, self.config_file)

    def note_resume(self, env_steps: int, *, command: Sequence[str] | None = None) -> None:
        """Adds to the manifest that the run goes on from `env_steps`, with what, and drops the rows after it."""
        noted = read_object(self.manifest_file, _DAMAGED) or {}
        again = {"env_steps": env_steps, **manifest(sys.argv if command is None else command)}
        _write_json(self.manifest_file, {**noted, "resumes": [*noted.get("resumes", []), again]})
        self.cut_metrics(env_steps)

    def note_fork(self, origin: Mapping[str, Any]) -> None:
        """Adds to the manifest that the run goes on from another run's checkpoint, `origin`."""
        noted = read_object(self.manifest_file, _DAMAGED) or {}
        _write_json(self.manifest_file, {**noted, "forks": [*noted.get("forks", []), origin]})

    def forks(self) -> list[dict[str, Any]]:
        """What `note_fork` noted, oldest first."""
        forks: list[dict[str, Any]] = (read_object(self.manifest_file, _DAMAGED) or {}).get("forks", [])
        return forks

    def cut_metrics(self, env_steps: int) -> None:
        """Drops the rows of metrics after `env_steps`: a resumed run writes them again."""
        if self.metrics_file.is_file():
            kept = [row for row in self.metrics() if (row["env_steps"] or 0) <= env_steps]
            write_atomically(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))


def _lock(file: int) -> None:
    """Locks an open file. BlockingIOError where another process has it, and not only looks who has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_LOOK_SECONDS)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def read_metrics(path: Path) -> Iterator[Row]:
    """The rows of a `metrics.jsonl`; a last line that a crash left half written is passed over."""
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is half a row
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: damaged, not a JSON object; delete the line to go on")
        yield row


def plain(value: Any) -> Any:
    """`value` as strict JSON can hold it: NumPy scalars become numbers, not-a-number and infinity become none."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def work_folder(config: RunConfig, name: str) -> Path:
    """Where on this machine the run `name` works: where it is stored, unless that is a URL."""
    return Path(config.work_path if is_url(config.storage_path) else config.storage_path) / name


def _claim(config: RunConfig, taken: Callable[[str], str | None], fill: Callable[[Path], None]) -> Path:
    """Makes the folder of a new run, so that two runs started at once never share one."""
    for name in _names(config):
        path = work_folder(config, name)
        there: Path | str | None = taken(name)
        if there is None:
            if _made(path, fill):
                return path
            there = path
        if config.name is not None or (there == path and not path.is_dir()):
            raise UserError(
                f"{str(there)!r} exists: go on with it by `rayrlhf train --resume {shlex.quote(str(there))}`, or "
                "choose another --name"
            )
    raise UserError(f"too many runs in {config.storage_path!r}: choose a --name")


def _made(path: Path, fill: Callable[[Path], None]) -> bool:
    """Whether the folder was made: with all that `fill` puts into it, or not at all, and only where nothing was."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and any(path.iterdir()):
            return False
        aside.mkdir()
        fill(aside)
        try:
            aside.rename(path)  # in the place of an empty folder, too
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return False
            raise
    except OSError as error:
        raise UserError(f"cannot make {str(path)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _names(config: RunConfig) -> Iterator[str]:
    if config.name is not None:
        if config.name == ".." or Path(config.name).name != config.name:
            raise UserError(f"name is {config.name!r}: wanted a plain name, without folders; see storage_path")
        yield config.name
        return
    method = "oracle" if config.mode == "oracle" else config.algorithm
    task = re.sub(r"[^\w.-]+", "-", config.env.task)[:60].rstrip("-")
    base = f"{task}-{method}-seed{config.seed}"
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"
