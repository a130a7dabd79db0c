"""TensorBoard's event file, written by whoever logs: the writer's own thread dies on a full disk, and is waited for."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rayrlhf.errors import UserError


class EventFile:
    """A file of its own in `folder`. A row that `log` returned from is with the operating system.

    resume_from: environment steps of the checkpoint a run goes on from; TensorBoard hides what came after it
    """

    def __init__(self, folder: Path, resume_from: int | None) -> None:
        # a second to import, and it can be switched off
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.summary import scalar

        self._events, self._summary, self._scalar = event_pb2, summary_pb2.Summary, scalar
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # the suffix: the writer's names alone are equal within one second, and would overwrite
        self._writer = EventsWriter(str(folder / "events"), f".{resume_from or 0}")
        if resume_from is not None:
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(resume_from + 1, session_log=started)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes one row of `env_steps = step`. Raises `UserError` on a full disk."""
        values = [value for name, number in numbers.items() for value in self._scalar(name, number).value]
        self._write(step, summary=self._summary(value=values))

    def close(self) -> None:
        """Nothing is buffered that could still be written."""
        with suppress(OSError):
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        try:
            self._writer.write_event(self._events.Event(wall_time=time.time(), step=step, **content))
            self._writer.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._folder}: {error.strerror or error}") from error
