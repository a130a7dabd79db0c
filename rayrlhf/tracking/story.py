"""What happened to a run, in order, for people who read it afterwards: `events.jsonl` in its folder."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rayrlhf.config.fields import keys, value_of
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import in_one_line
from rayrlhf.logs import OURS, JsonLines, event
from rayrlhf.tracking.directory import RunDirectory

_log = logging.getLogger(__name__)

BEGINS = ("start", "resume")
"""First events of a process."""
ENDS = {"end": "finished", "stopped": "stopped", "failed": "failed"}
"""By the last event of a process: what has become of its run."""


@contextmanager
def told(run: RunDirectory, config: RunConfig, *, resumed: bool) -> Iterator[None]:
    """Writes what our modules log in this block to the run's `events.jsonl`, and how it began and ended.

    A line is on its way to the disk before the call that logs it returns. Where the disk takes none, training goes on:
    what it needs itself says so.
    """
    logger = logging.getLogger(OURS)
    before = logger.level
    handlers: list[logging.Handler] = [_Lines(run.events_file, run.name)]
    if not logging.getLogger().handlers:  # else whoever made them shows what they want
        handlers.append(_Terminal(logging.WARNING))
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with _ending():
            _begin(run, config, resumed)
            yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)


def note_stop(run: RunDirectory, why: str) -> None:
    """Adds to `events.jsonl` that somebody else has stopped the run, whose process may have had no time to say so."""
    record = _log.makeRecord(
        _log.name, logging.WARNING, __file__, 0, "stopped before its end", (), None, extra=event("stopped", told=why)
    )
    _Lines(run.events_file, run.name).handle(record)


class _Lines(logging.Handler):
    """Appends a line for each record."""

    def __init__(self, path: Path, run: str) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self.setFormatter(JsonLines(run, "driver"))

    def emit(self, record: logging.LogRecord) -> None:
        """A record as a line of its own, also after half a line that a crash has left."""
        with suppress(OSError), open(self._path, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            torn = end > 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + self.format(record).encode() + b"\n")


class _Terminal(logging.Handler):
    """Shows warnings as Python does where nobody has said otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line on standard error; how a run ended is told there by whoever started it."""
        if getattr(record, "event", "") not in ENDS:
            sys.stderr.write(f"{record.getMessage()}\n")


@contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _log.warning("stopped before its end", extra=event("stopped", told=str(interrupt)))
        raise
    except BaseException as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what an actor raises
        _log.error("ended by %s", in_one_line(cause), extra=event("failed", error=in_one_line(cause)))
        raise
    _log.info("the run is complete", extra=event("end"))


def _begin(run: RunDirectory, config: RunConfig, resumed: bool) -> None:
    what = f"{config.env.task}, {config.mode}, seed {config.seed}, {config.total_steps} steps"
    kind, before = ("resume", run.config()) if resumed else ("start", RunConfig())
    command = ["rayrlhf", *sys.argv[1:]]
    _log.info("%s: %s", "going on" if resumed else "start", what, extra=event(kind, command=command))
    changed = {name: value for name in keys() if (value := value_of(config, name)) != value_of(before, name)}
    words = ", ".join(f"{name} {value}" for name, value in changed.items()) or "nothing"
    since = "the run so far" if resumed else "the defaults"
    _log.info("options that differ from %s: %s", since, words, extra=event("config", changed=changed))
