"""Triplets: a list of (instruction, trajectory_a, trajectory_b), in JSON and in pickle.

    [["open the drawer", {"observations": [[...]], "actions": [[...]]}, {...}],
     ["open the drawer", {...}, {...}, 0.5],
     ["open the drawer", {...}, {...}, 1, {"query_id": "mine/7", "annotator": "eva", "seconds": 4.2, "replays": 1}],
     {"instruction": "open it", "trajectory_a": {...}, "trajectory_b": {...}, "label": 0, "annotator": "eva"}]

The first trajectory is the preferred one, unless a fourth element, or `label`, says otherwise (`entries.choice_of`).
"""

import codecs
import io
import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from rayrlhf.errors import UserError
from rayrlhf.preferences.formats.entries import Entry, choice_of, details_of, entry_parts, instruction_of
from rayrlhf.preferences.formats.pickled import MAX_BYTES, loads
from rayrlhf.preferences.formats.trajectory import read_trajectory
from rayrlhf.preferences.table import Record

_CHUNK = 1 << 20
MAX_PAIR = 256 << 20
"""Characters of one pair in JSON."""
_KEYS = ("instruction", "trajectory_a", "trajectory_b")


def read_json(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """The pairs in a JSON list, one after another: never more than one of them as text."""
    for number, item in enumerate(_items(stream, name), start=1):
        yield _entry(item, f"{name}, pair {number}")


def read_pickle(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """The pairs in a pickled list, which is not trusted (`pickled`)."""
    items = loads(_whole(stream), name)
    if not isinstance(items, list | tuple):
        raise UserError(f"{name}: wanted a list of pairs, found {type(items).__name__}")
    for number, item in enumerate(items, start=1):
        yield _entry(item, f"{name}, pair {number}")


def _whole(stream: BinaryIO) -> bytes:
    """All of it, or so much that it is too long: bit by bit, since a read of so much would take the memory before."""
    content = io.BytesIO()
    while content.tell() <= MAX_BYTES and (more := stream.read(_CHUNK)):
        content.write(more)
    return content.getvalue()


def write_json(records: Iterable[Record], stream: BinaryIO) -> None:
    """Writes a line for each answer, or unanswered query; numbers are exact to the last bit."""
    begin = b"[\n"
    for record in records:
        for parts in entry_parts(*record, plain=True):
            stream.write(begin + json.dumps(parts, allow_nan=False).encode())
            begin = b",\n"
    stream.write(b"\n]\n")


def write_pickle(records: Iterable[Record], stream: BinaryIO) -> None:
    """Writes a list of tuples of plain containers and arrays, which plain `pickle.load` reads, too."""
    items = [parts for record in records for parts in entry_parts(*record, plain=False)]
    pickle.dump(items, stream, protocol=4)


def _entry(item: Any, place: str) -> Entry:
    if isinstance(item, Mapping):
        return _keyed(dict(item), place)
    if not isinstance(item, list | tuple) or not 3 <= len(item) <= 5:
        raise UserError(f"{place}: wanted [instruction, trajectory_a, trajectory_b], a label after that, and details")
    instruction, first, second, *rest = item
    details = rest[1] if len(rest) > 1 else {}
    if not isinstance(details, Mapping):
        raise UserError(f"{place}: its fifth element is no object")
    return Entry(
        place,
        read_trajectory(first, f"{place}, {_KEYS[1]}"),
        read_trajectory(second, f"{place}, {_KEYS[2]}"),
        choice_of(rest[0], place) if rest else "left",
        instruction_of(instruction, place),
        **details_of(details, place),
    )


def _keyed(item: dict[str, Any], place: str) -> Entry:
    labels = [name for name in ("label", "preference") if name in item]
    if len(labels) > 1:
        raise UserError(f"{place}: has both a label and a preference")
    if missing := [name for name in _KEYS[1:] if name not in item]:
        raise UserError(f"{place}: has no {missing[0]}")
    label = [item.pop(name) for name in labels]
    return _entry([item.pop("instruction", ""), item.pop(_KEYS[1]), item.pop(_KEYS[2]), *(label or [0]), item], place)


def _items(stream: BinaryIO, name: str) -> Iterator[Any]:
    """The elements of the JSON list in `stream`."""
    decoder, text = json.JSONDecoder(parse_constant=_refuse_constant), _Text(stream, name)
    if text.skip() != "[":
        raise UserError(f"{name}: wanted a JSON list of pairs")
    text.advance(1)
    if text.skip() == "]":
        return
    while True:
        yield text.value(decoder)
        mark = text.skip()
        text.advance(1)
        if mark == "]":
            break
        if mark != ",":
            raise UserError(f"{name} is no whole JSON list: it ends in the middle, or a comma is missing")
    if text.skip():
        raise UserError(f"{name} goes on after its list")


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


class _Text:
    """The text of a stream from a place on; no more of it is in memory than one value needs."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._held, self._at, self._ended = "", 0, False

    def skip(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._held) or self._ended:
                return self._held[self._at : self._at + 1]
            self._more(_CHUNK)

    def advance(self, count: int) -> None:
        """Goes over characters."""
        self._at += count

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The next value; each try has twice as much text as the one before it."""
        while True:
            self.skip()
            try:
                found, self._at = decoder.raw_decode(self._held, self._at)
                return found
            except (json.JSONDecodeError, RecursionError, ValueError) as error:
                whole = not isinstance(error, json.JSONDecodeError)
                if self._ended or whole or len(self._held) - self._at > MAX_PAIR:
                    raise UserError(f"{self._name} is no whole JSON list of pairs: {_gist(error)}") from error
            self._more(max(_CHUNK, len(self._held) - self._at))

    def _more(self, size: int) -> None:
        try:
            content = self._stream.read(size)
            self._held, self._at = self._held[self._at :] + self._decode(content, final=not content), 0
        except UnicodeDecodeError as error:
            raise UserError(f"{self._name} is no text in UTF-8") from error
        self._ended = not content


def _gist(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
