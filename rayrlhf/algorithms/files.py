"""Arrays in files that are whole or absent: safetensors, written aside and renamed. No pickle anywhere."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
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
    write_atomically(path, save({name: np.asarray(array, order="C") for name, array in arrays.items()}))


def read_arrays(path: Path) -> Arrays:
    """The arrays in `path`, writable. UserError where the file is missing or damaged."""
    try:
        loaded = load(path.read_bytes())
    except FileNotFoundError as missing:
        raise Damaged(f"{path} is missing: the checkpoint is not whole") from missing
    except (SafetensorError, ValueError) as damaged:
        raise Damaged(f"{path} is damaged ({damaged})") from damaged
    return {name: array.copy() for name, array in loaded.items()}


class Digest(TypedDict):
    """Size and checksum of a file."""

    bytes: int
    blake2b: str


def digest(path: Path) -> Digest:
    """What `path` holds, in short."""
    content = path.read_bytes()
    return Digest(bytes=len(content), blake2b=hashlib.blake2b(content, digest_size=16).hexdigest())


def require_digest(path: Path, expected: Digest) -> None:
    """Raises `Damaged` where `path` is missing or is not what it was."""
    try:
        found = digest(path)
    except (FileNotFoundError, IsADirectoryError) as missing:
        raise Damaged(f"{path} is missing: the checkpoint is not whole") from missing
    if found != expected:
        raise Damaged(f"{path} is damaged: its content is not what was saved")


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


@contextmanager
def no_space_is_one_line(path: Path) -> Iterator[None]:
    """Turns a failing disk into one clear line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; what was saved before is untouched"
        ) from error
