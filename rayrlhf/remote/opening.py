"""A run's folder on this machine and, where it is stored at a URL, what there is; made, or found again."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.files import is_url, read_object, write_atomically
from rayrlhf.preferences.storage import child, parent
from rayrlhf.remote import checkpoints
from rayrlhf.remote.lease import FILE, Lease
from rayrlhf.remote.mirror import InPlace, Mirror
from rayrlhf.remote.objects import Objects
from rayrlhf.tracking import RunDirectory, work_folder

CONFIG = "config.yaml"
ORIGIN = ".storage.json"
"""In a run's folder: its URL, and the owner of the last lease that it was written under."""


@dataclass(frozen=True)
class OpenedRun:
    """A run that is about to train.

    config:  what it trains with; its storage is that of the URL it is resumed from
    folder:  where it works   objects: its URL; none where the folder is where it stays
    resumes: there was a run   is_new: its folder was made just now
    """

    config: RunConfig
    folder: RunDirectory
    objects: Objects | None
    resumes: bool
    is_new: bool

    @contextmanager
    def mirrored(self, say: Callable[[str], None]) -> Iterator[InPlace]:
        """Brings what is at the URL into the folder, and copies to there what the run writes while the block lasts.

        The folder is held by then. Raises `UserError` where another machine has the run.
        """
        if self.objects is None:
            yield InPlace(self.folder)
            return
        lease = Lease(self.objects)
        own = self._origin()
        last = lease.take(own, say)
        mirror = Mirror(self.folder, self.objects, lease, self.config.checkpoint.keep)
        try:
            if self.resumes and (own is None or last not in (None, own)):
                self._bring(say)
                mirror.require_own()
            _note_origin(self.folder.path, self.objects, lease.owner)
            yield mirror
        finally:
            mirror.close(say)

    def _origin(self) -> str | None:
        """The owner under whom this folder was written last, if it is that of the URL."""
        assert self.objects is not None
        found = read_object(self.folder.path / ORIGIN, "delete it to go on") or {}
        return found.get("owner") if found.get("url") == self.objects.name else None

    def _bring(self, say: Callable[[str], None]) -> None:
        """The URL's state takes the place of the folder's: the run has gone on elsewhere."""
        assert self.objects is not None
        path = self.folder.path
        if not self.is_new:
            say(f"{path} is not the newest state of {self.objects.name}: what was there is in {_set_aside(path)} now")
        _bring_records(self.objects, path)
        checkpoints.download_newest(self.objects, path, self.config, say)


def open_run(config: RunConfig, resume: Path | str | None) -> OpenedRun:
    """Makes a new run's folder, or finds that of the run `resume`, a folder or a URL.

    Raises `UserError` where there is none, or the storage cannot be used.
    """
    if resume is None:
        if not is_url(config.storage_path):
            return OpenedRun(config, RunDirectory.create(config), None, False, True)
        storage = Objects(config.storage_path)
        storage.require_access()
        folder = RunDirectory.create(config, taken=lambda name: _taken(storage, name))
        return OpenedRun(config, folder, storage.below(folder.name), False, True)
    if is_url(resume):
        return _open_url(config, str(resume))
    folder = RunDirectory.open(resume)
    if not is_url(config.storage_path):
        return OpenedRun(config, folder, None, True, False)
    storage = Objects(config.storage_path)
    storage.require_access()
    return OpenedRun(config, folder, storage.below(folder.name), True, False)


def begun(config: RunConfig) -> Path | str | None:
    """The folder or the URL of the run that `config` names, if it has begun; a job that is started again finds it so.

    Raises `UserError` where `config` names none, or the storage cannot be used.
    """
    if config.name is None:
        raise UserError("--resume auto goes on with the run of a name: give --name")
    if not is_url(config.storage_path):
        folder = work_folder(config, config.name)
        return folder if (folder / CONFIG).is_file() else None
    storage = Objects(config.storage_path)
    storage.require_access()
    return _taken(storage, config.name)


def _bring_records(objects: Objects, folder: Path) -> None:
    """Brings all of a run but its checkpoints into `folder`."""
    for name in objects.sizes():
        hidden = any(part.startswith(".") for part in name.split("/"))
        if name != FILE and not hidden and not name.startswith(f"{checkpoints.FOLDER}/"):
            objects.fetch(name, folder / name)


def _open_url(config: RunConfig, url: str) -> OpenedRun:
    storage, name = parent(url)
    objects = Objects(url)
    Objects(storage).require_access()
    config = config.model_copy(update={"storage_path": storage})
    path = work_folder(config, name)
    is_new = not path.exists()
    if is_new:
        require_run(objects)
        objects.fetch(CONFIG, path / CONFIG)
        _note_origin(path, objects, None)
    elif (read_object(path / ORIGIN, "delete it to go on") or {}).get("url") != objects.name:
        raise UserError(f"{str(path)!r} exists and is not the folder of {objects.name}: choose another --work_path")
    folder = RunDirectory.open(path)
    folder.make_folders()
    return OpenedRun(config, folder, objects, True, is_new)


def require_run(objects: Objects) -> None:
    """UserError where there is no run at a URL."""
    if objects.read(CONFIG) is None:
        raise UserError(f"there is no run {objects.name!r}: it has no {CONFIG}")


def _taken(storage: Objects, name: str) -> str | None:
    return child(storage.url, name) if storage.read(f"{name}/{CONFIG}") is not None else None


def _note_origin(path: Path, objects: Objects, owner: str | None) -> None:
    write_atomically(path / ORIGIN, json.dumps({"url": objects.name, "owner": owner}))


def _set_aside(path: Path) -> Path:
    """Moves what is in a run's folder into a folder in it: the lock stays where it is."""
    number = 1 + sum(1 for _ in path.glob("before-*"))
    aside = path / f"before-{number}"
    aside.mkdir()
    for entry in list(path.iterdir()):
        if not entry.name.startswith((".lock", "before-")):
            shutil.move(entry, aside / entry.name)
    RunDirectory(path).make_folders()
    return aside
