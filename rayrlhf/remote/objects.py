"""What lies below a URL, by name: read, written, listed and deleted, on any pyarrow filesystem."""

import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from rayrlhf.errors import UserError
from rayrlhf.files import write_atomically
from rayrlhf.preferences.storage import child, locate, reason, whole_file, without_options

_REFUSALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "SignatureDoesNotMatch")

_UNREACHED = "NETWORK_CONNECTION"


class Objects:
    """The files below `url`. Each is whole or absent; whatever fails is a `UserError` of one line.

    Raises `UserError` for a URL that cannot be read, and for one with a key in it: it will stand in the run's config.
    """

    def __init__(self, url: str) -> None:
        if "@" in urlsplit(url).netloc:
            raise UserError("the URL holds a key, and is written into files: give it in the environment instead")
        self.url, self.name = url, without_options(url)
        self._filesystem, self._root = locate(url)

    def below(self, name: str) -> "Objects":
        """Those of a folder in it."""
        return Objects(child(self.url, name))

    def require_access(self) -> None:
        """UserError, with the reason, where the bucket is not there or nothing can be read or written in it."""
        bucket = self._root.partition("/")[0]
        try:
            is_missing = self._filesystem.get_file_info(bucket).type == fs.FileType.NotFound if bucket else False
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot use {self.name}: {_reason(error)}") from error
        if is_missing:
            raise UserError(f"cannot use {self.name}: there is no bucket {bucket!r}")
        probe = f".access-{secrets.token_hex(4)}"
        self.write(probe, b"")
        self.delete(probe)

    def read(self, name: str) -> bytes | None:
        """The content of a file, or none where there is no such file."""
        try:
            with self._filesystem.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {self.name}/{name}: {_reason(error)}") from error

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        try:
            with whole_file(self._filesystem, self._path(name)) as stream:
                stream.write(content)
        except UserError as error:
            raise UserError(f"cannot write {self.name}/{name}: {_reason(error.__cause__ or error)}") from error

    def fetch(self, name: str, to: Path) -> None:
        """Writes the content of a file, if there is such a file, to a place on this machine."""
        content = self.read(name)
        if content is not None:
            to.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(to, content)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        self._delete(self._filesystem.delete_file, name)

    def delete_folder(self, name: str = "") -> None:
        """Deletes a folder with all that is in it, if it is there."""
        self._delete(self._filesystem.delete_dir, name)

    def _delete(self, call: Callable[[str], None], name: str) -> None:
        try:
            call(self._path(name))
        except FileNotFoundError:
            pass
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot delete {self.name}/{name}: {_reason(error)}") from error

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of all files in a folder and below it, by their names from there."""
        root = self._path(folder)
        try:
            infos = self._filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot list {self.name}/{folder}: {_reason(error)}") from error
        files = (info for info in infos if info.type == fs.FileType.File)
        return {str(PurePosixPath(info.path).relative_to(root)): info.size for info in files}

    def _path(self, name: str) -> str:
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():  # names may come from a file there
            raise UserError(f"{self.name} names a file outside of it: {name!r}")
        return f"{self._root}/{name}".rstrip("/")


def _reason(error: BaseException) -> str:
    text = reason(error)
    detail = text.rpartition(" operation: ")[2].partition(";")[0]
    if any(word in str(error) for word in _REFUSALS):
        return f"the credentials of this machine are refused, or may not do that ({text})"
    return f"it cannot be reached ({detail})" if _UNREACHED in text else text
