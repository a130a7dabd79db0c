"""Failures that are nobody's defect, as one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import ObjectLostError, RayActorError

from rayrlhf.envs.broken import EnvironmentBroken
from rayrlhf.errors import UserError


@contextmanager
def one_line() -> Iterator[None]:
    """Turns broken environments, full disks, lost processes and diverged training into a `UserError`.

    Ray's wrapping is taken off.
    """
    try:
        yield
    except EnvironmentBroken as error:
        raise UserError(str(getattr(error, "cause", None) or error)) from error
    except (RayActorError, ObjectLostError) as error:
        what = "of the run" if isinstance(error, RayActorError) else "that held data of the run"
        raise UserError(f"a process {what} died ({type(error).__name__}, see ray.log); go on with: --resume") from error
    except FloatingPointError as error:
        reason = getattr(error, "cause", None) or error
        raise UserError(f"training diverged: {reason}; lower the learning rates: sac.*_lr, or ppo.lr") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        raise UserError(f"the disk is full{where}; free some space, then go on with --resume") from error
