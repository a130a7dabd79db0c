"""What a run writes in its folder on this machine, copied to its URL while it trains.

Two threads: one for the answer log, the lease and small files, one for checkpoints, which take longer. Where the
storage is away training goes on, and they try again until it is back. Then what is not there yet is copied.
"""

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rayrlhf.algorithms import checkpoint
from rayrlhf.errors import UserError
from rayrlhf.remote import checkpoints
from rayrlhf.remote.lease import RENEW_SECONDS, Lease, TakenOver
from rayrlhf.remote.objects import Objects
from rayrlhf.tracking import RunDirectory

_log = logging.getLogger(__name__)

LOG_PATIENCE = 20.0
"""Seconds that a session waits for the storage to have its questions or answers, before this counts as away."""
PAUSES = (1.0, 30.0)
"""Seconds between two tries: at first, and at most."""
TELL_SECONDS, LOOK_SECONDS = 5.0, 0.1
JOIN_SECONDS = 5.0
WRITTEN_ONCE = ("preferences/*.parquet", "moments/*.safetensors")
"""Files of a run's folder that never change."""
RECORDS = (
    "*.yaml",
    "reward_model.safetensors",
    "few_shot.safetensors",
    *WRITTEN_ONCE,
    "moments/identity",
    "instructions.json",
    "manifest.json",
    "*.jsonl",
    "summary.json",
    "tensorboard/*",
)
"""What is copied besides checkpoints, in this order. Not the queue's database and tokens, clips, and logs."""
PICTURES = ("plots/*", "videos/*")


class InPlace:
    """For a run whose folder is where it stays: nothing is copied."""

    def __init__(self, folder: RunDirectory) -> None:
        self.where = shlex.quote(str(folder.path))
        """What `--resume` takes, as a shell reads it."""

    def begin(self) -> None:
        """From now on the run is worth keeping."""

    def require_own(self) -> None:
        """Raises `UserError` where another process has the run."""

    def logged(self) -> None:
        """Returns when the storage has what is in the answer log, or is away: then the log on this disk has it."""

    def await_upload(self) -> None:
        """Waits for the checkpoint that is being uploaded, unless the storage is away."""

    def publish(self) -> None:
        """There is a new newest checkpoint, or the run went back to an earlier one."""


class Mirror(InPlace):
    """Copies the run in `folder` to `objects` until `close`."""

    def __init__(self, folder: RunDirectory, objects: Objects, lease: Lease, keep: int) -> None:
        super().__init__(folder)
        self.where = shlex.quote(objects.url)
        self._folder, self._objects, self._lease, self._keep = folder, objects, lease, keep
        self._begun = False
        self._taken: TakenOver | None = None
        self._there: dict[str, int] | None = None
        self._copied: dict[str, tuple[int, int]] = {}
        self._copying = threading.Lock()
        self._uploaded = ""
        self._away = False
        self._telling = threading.Lock()
        self._records = _Worker("records", self._copy_records, self._note, every=RENEW_SECONDS)
        self._uploads = _Worker("checkpoints", self._copy_newest, self._note)

    def begin(self) -> None:
        self._begun = True
        self._records.ask()

    def require_own(self) -> None:
        if self._taken is not None:
            raise UserError(
                f"{self._taken}, since the storage was away or this process slept: it ends here; what it did meanwhile "
                f"is in {self._folder.path}"
            )

    def logged(self) -> None:
        if not self._records.wait(self._records.ask(), LOG_PATIENCE) and not self._away:
            self._records.give_up(f"{self._objects.name} has not answered for {LOG_PATIENCE:.0f} s")

    def await_upload(self) -> None:
        self._uploads.wait()

    def publish(self) -> None:
        self._uploads.ask()

    def close(self, say: Callable[[str], None]) -> None:
        """Waits until everything is copied, however long the storage is away, and gives the run free.

        Ctrl-C ends the wait: what is missing is copied when the run is resumed from its folder.
        """
        try:
            if self._begun:
                self._records.ask()
                self._wait_to_the_end(say)
        except BaseException as left:
            again = f"rayrlhf train --resume {shlex.quote(str(self._folder.path))}"
            reason = f"not everything is at {self._objects.name}; on this machine {again} goes on, and copies it"
            raise (KeyboardInterrupt(reason) if isinstance(left, KeyboardInterrupt) else left) from None
        finally:
            for worker in (self._records, self._uploads):
                worker.close()
        with suppress(UserError):  # else it is taken over when it has been silent for long
            self._lease.release(forget=not self._begun)

    def _wait_to_the_end(self, say: Callable[[str], None]) -> None:
        told, said_away = time.monotonic(), False
        while self._taken is None and not (self._records.is_done and self._uploads.is_done):
            time.sleep(LOOK_SECONDS)
            if self._away and not said_away:
                say(f"waiting for {self._objects.name}, to copy what is not there yet; Ctrl-C ends the wait")
                said_away = True
            elif not self._away and time.monotonic() - told >= TELL_SECONDS:
                say(f"copying to {self._objects.name}: {self._uploaded or 'the last files'}")
                told = time.monotonic()

    def _copy_records(self) -> None:
        """The lease, then whatever has changed."""
        try:
            self._lease.renew()
        except TakenOver as taken:
            self._taken = taken
            raise
        if not self._begun:
            return
        with self._copying:
            if self._there is None:
                self._there = self._objects.sizes()
            for path in self._files():
                name, stat = path.relative_to(self._folder.path).as_posix(), path.stat()
                state = (stat.st_size, stat.st_mtime_ns)
                if self._copied.get(name) != state:
                    if self._there.get(name) != stat.st_size or not _is_written_once(path, self._folder.path):
                        self._objects.write(name, path.read_bytes())
                    self._copied[name] = state

    def _files(self) -> Iterator[Path]:
        for pattern in RECORDS:
            for path in sorted(self._folder.path.glob(pattern)):
                if path.is_file() and not path.name.startswith("."):
                    yield path

    def _copy_newest(self) -> None:
        """The newest checkpoint, after the records, which reach as far; then what nobody keeps any more is deleted."""
        while newest := checkpoint.by_age(self._folder.checkpoints)[:1]:
            place = newest[0]
            self._copy_records()
            try:
                checkpoints.upload(self._objects, place, self._require_lease, self._tell_of(place.name))
            except FileNotFoundError as missing:
                if place.is_dir():
                    _log.warning("%s is not copied: %s is missing", place, missing.filename)
                    return
                continue  # training has deleted it: there is a newer one
            checkpoints.prune(self._objects, self._keep, place.name)
            return

    def _require_lease(self) -> None:
        try:
            self._lease.require()
        except TakenOver as taken:
            self._taken = taken
            raise

    def _tell_of(self, name: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self._uploaded = f"{name}, {done} of {total} files"

        return tell

    def _note(self) -> None:
        """Says once that the storage is away, and once that it is back."""
        with self._telling:
            trouble = self._records.trouble or self._uploads.trouble
            if trouble is not None and not self._away and self._taken is None:
                _log.warning("%s; training goes on, and what is new is copied when the storage is back", trouble)
            if trouble is None and self._away:
                _log.warning("%s is back", self._objects.name)
            self._away = trouble is not None


def copy_pictures(folder: RunDirectory, objects: Objects) -> None:
    """Copies what is drawn after a run has ended."""
    for pattern in PICTURES:
        for path in sorted(folder.path.glob(pattern)):
            objects.write(path.relative_to(folder.path).as_posix(), path.read_bytes())


def _is_written_once(path: Path, folder: Path) -> bool:
    return any(path.relative_to(folder).match(pattern) for pattern in WRITTEN_ONCE)


class _Worker:
    """Does `work` in a thread when it is asked to, and `every` so many seconds; again, later and later, where it fails.

    trouble: why the last try failed; none where it did not   note: called when that has changed
    """

    def __init__(
        self, name: str, work: Callable[[], None], note: Callable[[], None], *, every: float | None = None
    ) -> None:
        self.trouble: str | None = None
        self._work, self._note, self._every = work, note, every
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._asked = self._done = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self) -> int:
        """Wants the work done once more; a number to wait for."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    @property
    def is_done(self) -> bool:
        """Whether all that was asked for is done."""
        return self._done == self._asked

    def wait(self, number: int | None = None, seconds: float | None = None) -> bool:
        """Waits until what was asked for, up to `number`, is done, or fails; whether it is done."""
        with self._changed:
            wanted = self._asked if number is None else number
            self._changed.wait_for(lambda: self._done >= wanted or self.trouble is not None, seconds)
            return self._done >= wanted

    def give_up(self, trouble: str) -> None:
        """Counts what is being done as failed, until it is done."""
        self._set(trouble)

    def close(self) -> None:
        """Ends the thread after what it is doing, and gives up the rest."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        pause = PAUSES[0]
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done or self._closed.is_set(), self._every)
                if self._closed.is_set():
                    return
                if self._asked == self._done:  # it is time
                    self._asked += 1
                number = self._asked
            try:
                self._work()
            except TakenOver as taken:
                self._set(str(taken))
                return
            except (UserError, OSError) as error:
                self._set(str(error))
                self._closed.wait(pause)
                pause = min(2 * pause, PAUSES[1])
            else:
                pause = PAUSES[0]
                self._set(None, number)

    def _set(self, trouble: str | None, done: int | None = None) -> None:
        with self._changed:
            self.trouble = trouble
            self._done = self._done if done is None else done
            self._changed.notify_all()
        self._note()
