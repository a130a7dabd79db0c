"""What processes say of themselves, as JSON lines: when, in which run, in which of its processes, and what."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

OURS = "rayrlhf"
"""The logger above those of all modules."""


def event(kind: str, **facts: Any) -> dict[str, Any]:
    """For a log call's `extra`: what kind of thing happened, and numbers and names that belong to it."""
    return {"event": kind, "facts": facts}


class JsonLines(logging.Formatter):
    """A JSON object for each record, on one line; `role` is what the process does in `run`."""

    def __init__(self, run: str, role: str) -> None:
        super().__init__()
        self._run, self._role = run, role

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": self._run,
            "role": self._role,
            "process": record.process,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said | getattr(record, "facts", {}) | said, default=str)


def log_as(run: str, role: str) -> None:
    """Has this process, a worker of Ray's, log what our modules say as JSON lines, in its log file there."""
    logger = logging.getLogger(OURS)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(run, role))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
