"""Keeps what C++ code writes to standard error out of the terminal and in the run's folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def native_stderr_to(path: Path) -> Iterator[None]:
    """Sends file descriptor 2 to `path`, also that of processes started meanwhile; Python's own stderr stays.

    Ray's core writes lines there that say nothing to a user and cannot be told to be quiet one by one.
    """
    terminal = os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 2)
    before = sys.stderr
    sys.stderr = open(terminal, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(terminal, 2)
        os.close(terminal)
