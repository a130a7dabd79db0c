"""Who trains in a run that is stored at a URL: one at a time, as the lock sees to for a folder on a disk.

`running.json` says who has the run and when they were heard of last. It is renewed as long as the run trains, and may
be taken over when its owner has been silent for long. There is no lock behind it, since pyarrow's storages have none:
two that stall while they take it at the same moment can fool it, and so can clocks that differ by minutes. A process
that was cut off from the storage finds out that another one has the run when the storage is back.
"""

import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from typing import Any

from rayrlhf.errors import UserError
from rayrlhf.remote.objects import Objects

FILE = "running.json"
RENEW_SECONDS = 30.0
STALE_SECONDS = 120.0
"""Silence after which a lease may be taken over."""
SETTLE_SECONDS = 1.0
"""How long after taking it one looks whether another one took it at the same moment."""
LOOK_SECONDS = 5.0


class TakenOver(UserError):  # noqa: N818 - reads as what it says
    """Another process has the run now: this one must not write there any more."""


def holder(objects: Objects) -> str | None:
    """Who trains in the run in `objects`, and was heard of lately; none where nobody does."""
    found = _read(objects)
    if found is None or found["released"] or time.time() - found["renewed"] >= STALE_SECONDS:
        return None
    return str(found["who"])


class Lease:
    """This process's claim to the run in `objects`."""

    def __init__(self, objects: Objects) -> None:
        self.owner = secrets.token_hex(8)
        self._objects = objects
        self._renewed = float("-inf")

    def take(self, own: str | None, say: Callable[[str], None]) -> str | None:
        """Takes the run; returns who had it last. `own` is an owner that is known to have ended.

        Where another one was heard of lately, waits until it has been silent for long enough. Raises `UserError` where
        it is not.
        """
        found = _read(self._objects)
        if found and not found["released"] and found["owner"] != own:
            self._wait_for_silence(found, say)
        self._write(released=False)
        time.sleep(SETTLE_SECONDS)
        self._require_own()
        return found["owner"] if found else None

    def renew(self) -> None:
        """Says that this process is there, if it has not lately. Raises `TakenOver`."""
        if time.monotonic() - self._renewed >= RENEW_SECONDS / 2:
            self._require_own()
            self._write(released=False)

    def require(self) -> None:
        """Raises `TakenOver` where another process has the run."""
        self._require_own()

    def release(self, *, forget: bool = False) -> None:
        """Anybody may have the run at once. With `forget` a run that has not begun leaves nothing."""
        self._require_own()
        if forget and not self._objects.sizes().keys() - {FILE}:
            self._objects.delete_folder()
        else:
            self._write(released=True)

    def _require_own(self) -> None:
        found = _read(self._objects)
        if found and found["owner"] != self.owner:
            raise TakenOver(f"{self._objects.name} is in use by {found['who']} now")

    def _wait_for_silence(self, found: dict[str, Any], say: Callable[[str], None]) -> None:
        age = max(0.0, time.time() - found["renewed"])
        if age >= STALE_SECONDS:
            return
        who, name = found["who"], self._objects.name
        say(f"{name} was in use by {who} {age:.0f} s ago: waiting until that is {STALE_SECONDS:.0f} s ago")
        end = time.monotonic() + STALE_SECONDS - age
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            again = _read(self._objects)
            if again is None or again["released"]:
                return
            if again != found:
                raise UserError(f"{name} is in use by {again['who']}: stop it first")

    def _write(self, *, released: bool) -> None:
        who = f"process {os.getpid()} on {platform.node()}"
        lease = {"owner": self.owner, "who": who, "renewed": time.time(), "released": released}
        self._objects.write(FILE, json.dumps(lease).encode())
        self._renewed = time.monotonic()


def _read(objects: Objects) -> dict[str, Any] | None:
    try:
        found = json.loads(objects.read(FILE) or b"null")
    except ValueError:
        return None
    is_lease = isinstance(found, dict) and {"owner", "who", "renewed", "released"} <= found.keys()
    return found if is_lease else None
