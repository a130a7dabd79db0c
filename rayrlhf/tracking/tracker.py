"""Rows of metrics, to JSON lines and TensorBoard as configured, to Weights & Biases with one flag."""

import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rayrlhf.config.schema import TrackingOptions
from rayrlhf.errors import UserError
from rayrlhf.tracking.directory import RunDirectory, plain
from rayrlhf.tracking.events import EventFile


class Tracker:
    """Writes each row where the options say; a row that `log` returned from survives `kill -9`.

    resume_from: environment steps of the checkpoint a run goes on from; rows after it have been cut by
                 `RunDirectory.note_resume`, and TensorBoard is told to hide its own
    """

    def __init__(self, run: RunDirectory, options: TrackingOptions, *, resume_from: int | None = None) -> None:
        self._path = run.metrics_file
        self._file = _open_for_rows(run)
        self._events = EventFile(run.tensorboard, resume_from) if options.tensorboard else None
        self._wandb = None if options.wandb == "off" else _start_wandb(run, options)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Writes one row of `env_steps = step`. Raises `UserError` on a full disk; the rows before stay whole."""
        values: dict[str, Any] = plain(row)
        self._append(json.dumps({"env_steps": step, **values}, allow_nan=False) + "\n")
        numbers = {name: value for name, value in values.items() if value is not None}
        if self._events is not None:
            self._events.log(step, numbers)
        if self._wandb is not None:
            self._wandb.log({"env_steps": step, **numbers})

    def close(self) -> None:
        """Writes what is still buffered. Later calls do nothing."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: str) -> None:
        data = line.encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes written")
        except OSError as error:
            os.ftruncate(self._file, end)  # a full disk takes part of a row
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error


def _open_for_rows(run: RunDirectory) -> int:
    """A descriptor that appends whole rows: half a row that a crash left at the end is removed."""
    try:
        descriptor = os.open(run.metrics_file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {run.metrics_file}: {error.strerror}") from error
    os.ftruncate(descriptor, run.metrics_file.read_bytes().rfind(b"\n") + 1)
    return descriptor


def _start_wandb(run: RunDirectory, options: TrackingOptions) -> Any:
    try:
        import wandb  # slow to import, and wanted by few
    except ImportError as error:
        raise UserError("tracking.wandb needs the package wandb: pip install wandb") from error
    run.path.joinpath("wandb").mkdir(exist_ok=True)
    try:
        session = wandb.init(
            project=options.wandb_project,
            name=run.name,
            id=_wandb_id(run),
            resume="allow",
            mode="online" if options.wandb == "online" else "offline",
            dir=str(run.path),
            config=run.config().model_dump(mode="json", by_alias=True),
        )
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Weights & Biases cannot start ({reason}); --tracking.wandb offline needs no account"
        ) from error
    session.define_metric("*", step_metric="env_steps")
    return session


def _wandb_id(run: RunDirectory) -> str:
    """An id of the run's own, kept in its folder so that a resumed run goes on in the same one."""
    file = run.path / "wandb" / "id"
    if not file.is_file():
        file.write_text(f"{run.name}-{os.urandom(4).hex()}")
    return file.read_text()
