"""Failures that are nobody's defect, as one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from rayrlhf.envs.broken import EnvironmentBroken
from rayrlhf.errors import UserError


@contextmanager
def one_line() -> Iterator[None]:
    """Turns a broken environment and a full disk into a `UserError`; Ray's wrapping is taken off."""
    try:
        yield
    except EnvironmentBroken as error:
        raise UserError(str(getattr(error, "cause", None) or error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        raise UserError(f"the disk is full{where}; free some space, then go on with --resume") from error
