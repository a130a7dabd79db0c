"""Arrays in files that are whole or absent: safetensors, written aside and renamed. No pickle anywhere."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import ray
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rayrlhf.errors import UserError
from rayrlhf.files import write_atomically

Arrays = dict[str, NDArray[Any]]


class Damaged(UserError):  # noqa: N818 - reads as what it says
    """A checkpoint that is not whole: an earlier one may serve."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes `arrays` under `path`; a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed(arrays))


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of a file with `arrays`."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def read_arrays(path: Path) -> Arrays:
    """The arrays in `path`, writable. UserError where the file is missing or damaged."""
    return unpacked(_content(path), path)


def unpacked(content: bytes, path: Path) -> Arrays:
    """The arrays in the `content` of `path`, writable. UserError where it is damaged."""
    try:
        loaded = load(content)
    except (SafetensorError, ValueError) as damaged:
        raise Damaged(f"{path} is damaged ({damaged})") from damaged
    return {name: array.copy() for name, array in loaded.items()}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as missing:
        raise Damaged(f"{path} is missing: the checkpoint is not whole") from missing


class Digest(TypedDict):
    """Size and checksum of a file."""

    bytes: int
    blake2b: str


def digest(content: bytes) -> Digest:
    """The content of a file, in short."""
    return Digest(bytes=len(content), blake2b=hashlib.blake2b(content, digest_size=16).hexdigest())


def require_digest(path: Path, expected: Digest) -> None:
    """Raises `Damaged` where `path` is missing or is not what it was."""
    if digest(_content(path)) != expected:
        raise Damaged(f"{path} is damaged: its content is not what was saved")


@dataclass(frozen=True)
class OnDisk:
    """Files of arrays in a `folder` of this machine."""

    folder: Path

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).is_file()

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Digest:
        """Writes a file."""
        content = packed(arrays)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, content)
        return digest(content)

    def read(self, name: str) -> Arrays:
        """A file's arrays. Raises `Damaged`."""
        return read_arrays(self.folder / name)

    def unpack(self) -> None:
        """Nothing: all is where it belongs."""


@dataclass(frozen=True)
class Parcel:
    """The same for a process that may be on another machine than `folder`.

    there:     names of the files that are in the folder
    contents:  of files, by name: what is to be read comes along, what was written goes back with the reply
    """

    folder: Path
    there: frozenset[str] = frozenset()
    contents: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a file is in the folder."""
        return name in self.there

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Digest:
        """Adds a file, as bytes in an array: Ray hands these over without copying them."""
        content = packed(arrays)
        self.contents[name] = np.frombuffer(content, np.uint8)
        return digest(content)

    def read(self, name: str) -> Arrays:
        """A file's arrays; its content may be a reference. Raises `Damaged`."""
        found = self.contents.get(name)
        if found is None:
            raise Damaged(f"{self.folder / name} is missing: the checkpoint is not whole")
        content = ray.get(found) if isinstance(found, ray.ObjectRef) else found
        return unpacked(content.tobytes(), self.folder / name)

    def unpack(self) -> None:
        """Writes what it contains to the folder, which is on this machine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            write_atomically(self.folder / name, content.tobytes())

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> "Parcel":
        """Files of a folder of this machine, by reference. Raises `Damaged` where one is missing."""
        return cls(folder, contents={name: ray.put(np.frombuffer(_content(folder / name), np.uint8)) for name in names})


Files = OnDisk | Parcel
"""Where a process writes files of arrays to, or reads them from."""


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1))


def read_json(path: Path) -> Any:
    """The JSON in `path`. UserError where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as missing:
        raise Damaged(f"{path} does not exist: {path.parent} is no checkpoint") from missing
    except (json.JSONDecodeError, UnicodeDecodeError) as damaged:
        raise Damaged(f"{path} is damaged ({damaged})") from damaged


def seal(value: Mapping[str, Any]) -> str:
    """Checksum of a JSON object but for its own key `seal`."""
    content = json.dumps({name: part for name, part in value.items() if name != "seal"}, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
