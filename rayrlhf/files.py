"""Writing a file or a folder so that a crash leaves the old one or the new one, never half of one."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rayrlhf.errors import UserError


def is_url(where: str | Path) -> bool:
    """Whether this names a place in a storage (`s3://bucket/runs`) and not one of this machine."""
    return "://" in str(where)


def caches() -> Path:
    """Folder of this machine for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayrlhf"


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Replaces `path` by `content` in one step, on disk before this returns; `mode` is less what the umask takes.

    Raises `UserError` where the disk is full or the folder cannot be written; the old file then stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` at the end of the block; where that fails nothing changes.

    A crash within leaves the old folder or the new one, on disk, and never half of one: `put_back` undoes what was cut
    off. Raises `UserError` where the disk refuses.
    """
    aside, old = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "old"))
    put_back(old)
    try:
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for inside in (aside, *aside.rglob("*")):
            sync(inside)
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
        sync(folder.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; what was saved before is untouched"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        put_back(old)
    shutil.rmtree(old, ignore_errors=True)


def put_back(old: Path) -> None:
    """Undoes the replacement of a folder that was cut off after the old one was moved aside, to `old`."""
    place = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
    if old.exists() and not place.exists():
        old.rename(place)


def sync(path: Path) -> None:
    """Waits until what a file holds, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_object(path: Path, advice: str) -> dict[str, Any] | None:
    """The JSON object in `path`, or none where there is no such file.

    Raises `UserError`, with `advice`, for anything else.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: {advice}")
    return found
