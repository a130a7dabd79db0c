"""Files that are whole or absent, on any pyarrow filesystem."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from rayrlhf.errors import UserError
from rayrlhf.files import is_url, sync


def locate(where: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URI (`s3://bucket/runs`, `file:///data`) or of a plain local path, and the path in it."""
    if not is_url(where):
        return fs.LocalFileSystem(), str(Path(where).expanduser().absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(str(where))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"cannot open {where}: {reason(error)}") from error
    return filesystem, path.rstrip("/")


def child(url: str, *names: str) -> str:
    """The URL of what is called `names` below `url`; options after a `?` stay."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names])))


def dataset_folder(where: str) -> str:
    """Where a dataset lies: a run's folder, or its URL, stands for its `preferences`."""
    below = child if is_url(where) else (lambda folder, name: str(Path(folder) / name))
    return below(where, "preferences") if exists(below(where, "config.yaml")) else where


def parent(url: str) -> tuple[str, str]:
    """The URL of the folder that `url` is in, and its name there."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=folder)), name


def without_options(url: str) -> str:
    """`url` without what stands after a `?`: how to reach the storage may differ from machine to machine."""
    return urlunsplit(urlsplit(url)._replace(query="")).rstrip("/")


def exists(where: str | Path) -> bool:
    """Whether anything is at a URI or a path."""
    filesystem, path = locate(where)
    try:
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)
    except OSError as error:
        raise UserError(f"cannot look at {where}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What went wrong in one line, without the library's details."""
    code = getattr(error, "errno", None)
    return os.strerror(code).lower() if code else (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def whole_file(filesystem: fs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """A stream whose content appears at `path` when the block ends well, and not at all otherwise.

    The content goes to a hidden name beside `path` and is renamed. On a local disk it is flushed first, so that a power
    cut leaves nothing half written either. A killed process leaves at most a hidden file that no reader looks at.

    Raises:
        UserError: the disk is full, the folder cannot be written, and the like; older files are as they were.
    """
    target = PurePosixPath(path)
    hidden = str(target.with_name(f".{target.name}.partial"))
    try:
        filesystem.create_dir(str(target.parent), recursive=True)
        with filesystem.open_output_stream(hidden) as stream:
            yield stream
        _flush(filesystem, hidden)
        filesystem.move(hidden, path)
        _flush(filesystem, str(target.parent))
    except BaseException as error:
        with suppress(OSError):
            filesystem.delete_file(hidden)
        if isinstance(error, OSError | pa.ArrowException):
            raise UserError(f"cannot write {path}: {reason(error)}; earlier files are unharmed") from error
        raise


def _flush(filesystem: fs.FileSystem, path: str) -> None:
    """Has the operating system put a local file or folder on the disk; object stores do so on closing."""
    if isinstance(filesystem, fs.LocalFileSystem):
        sync(Path(path))
