"""Judged pairs of trajectories, in whatever file they were, as queries and answers."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayrlhf.errors import UserError, printable, shown
from rayrlhf.preferences.answers import MAX_REPLAYS, TARGETS, Answer, Choice
from rayrlhf.preferences.formats.trajectory import Trajectory, written
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.table import Record, Source, from_table, to_table

ANNOTATOR = "imported"
"""Who is said to have answered where the file does not say."""
MAX_ENTRIES = 1_000_000
MAX_NUMBERS = 500_000_000
"""Of all trajectories of a file: 2 GB."""
_BY_TARGET: dict[float, Choice] = {target: choice for choice, target in TARGETS.items()}


@dataclass(frozen=True)
class Entry:
    """A pair and, unless `choice` is none, what somebody said of it.

    query_id: none: one that follows from what the pair shows, so that it is the same in every file
    """

    place: str
    left: Trajectory
    right: Trajectory
    choice: Choice | None
    instruction: str = ""
    query_id: str | None = None
    session: int = 0
    typical_return: float = 0.0
    annotator: str | None = None
    seconds: float = 0.0
    replays: int = 0

    @property
    def key(self) -> str:
        """The query's id."""
        if self.query_id is not None:
            return self.query_id
        shown = self.left.content() + self.right.content() + self.instruction.encode()
        return f"{ANNOTATOR}/{hashlib.blake2b(shown, digest_size=8).hexdigest()}"


class _Details(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    query_id: str | None = Field(None, min_length=1)
    session: int | None = Field(None, ge=0, lt=10**9)
    typical_return: float | None = None
    annotator: str | None = Field(None, min_length=1)
    seconds: float | None = Field(None, ge=0)
    replays: int | None = Field(None, ge=0, lt=MAX_REPLAYS)


def choice_of(value: Any, where: str) -> Choice | None:
    """0 or `left`: the first one is preferred. 1 or `right`: the second. 0.5 or `equal`; `skip`; none: unanswered."""
    if value is None or value in get_args(Choice):
        return value if value is None else str(value)  # type: ignore[return-value]
    if not isinstance(value, bool) and isinstance(value, int | float | np.number) and value in _BY_TARGET:
        return _BY_TARGET[value]  # type: ignore[index]
    raise UserError(
        f"{where}: the label is {shown(value)}, wanted 0 (the first is better), 1 (the second), 0.5 (equal), skip or "
        "null"
    )


def details_of(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file may say of an answer besides, checked: the fields of `Entry` from `query_id` on."""
    try:
        return _Details.model_validate(found).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = printable(".".join(map(str, first["loc"])))
        raise UserError(f"{where}: {key}: {first['msg']}") from error


def instruction_of(value: Any, where: str) -> str:
    """A sentence, or nothing."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: the instruction is no text but {type(value).__name__}")
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the instruction {shown(value)} holds half of a character") from error
    return value or ""


def records_of(
    entries: Iterable[Entry], name: str, segment_length: int | None, annotator: str | None = None
) -> list[Record]:
    """The queries and answers of `entries`, from the file `name`, checked as those of a dataset are.

    Trajectories of one length are kept whole; with `segment_length` the last so many steps of each are. Where the file
    names no annotator it is `annotator`, or `imported`, and several answers to one query count as those of several.

    Raises:
        UserError: anything is malformed, or somebody answers one query twice; nothing is kept then.
    """
    kept = [_cut(entry, segment_length) for entry in _bounded(entries, name)]
    if not kept:
        raise UserError(f"{name} holds no pairs")
    _require_one_shape(kept)
    groups: dict[tuple[int, float], list[Entry]] = {}
    for entry in kept:
        groups.setdefault((entry.session, entry.typical_return), []).append(entry)
    return [_record(group, name, annotator or ANNOTATOR) for group in groups.values()]


def entry_parts(queries: Queries, answers: list[Answer], *, plain: bool) -> Iterable[tuple[Any, ...]]:
    """Of each answer, or unanswered query: instruction, both trajectories, label, details. The reverse of `records_of`.

    The label is a number, `skip` or none.
    """
    said: dict[str, list[Answer | None]] = {key: [] for key in queries.ids}
    for answer in answers:
        said[answer.query_id].append(answer)
    instructions = queries.instructions or ("",) * len(queries)
    common = {"session": queries.session, "typical_return": float(queries.typical_return)}
    for i, key in enumerate(queries.ids):
        sides = [written(side, i, plain=plain) for side in (queries.left, queries.right)]
        for said_of_it in said[key] or [None]:
            details: dict[str, Any] = {"query_id": str(key), **common}
            label: float | str | None = None
            if said_of_it is not None:
                label = TARGETS.get(said_of_it.choice, said_of_it.choice)
                details |= {"annotator": said_of_it.annotator, "seconds": float(said_of_it.seconds)}
                details["replays"] = int(said_of_it.replays)
            yield (instructions[i], *sides, label, details)


def _bounded(entries: Iterable[Entry], name: str) -> Iterable[Entry]:
    numbers = 0
    for count, entry in enumerate(entries, start=1):
        numbers += entry.left.size + entry.right.size
        if count > MAX_ENTRIES or numbers > MAX_NUMBERS:
            raise UserError(f"{name} holds more than {MAX_ENTRIES:,} pairs or {MAX_NUMBERS:,} numbers: split it")
        yield entry


def _cut(entry: Entry, steps: int | None) -> Entry:
    if steps is None:
        return entry
    for side, trajectory in (("first", entry.left), ("second", entry.right)):
        if len(trajectory) < steps:
            raise UserError(
                f"{entry.place}: the {side} has {len(trajectory)} steps, fewer than --segment-length {steps}"
            )
    # the id stands for what was judged, not for the cut
    return replace(entry, query_id=entry.key, left=entry.left.last(steps), right=entry.right.last(steps))


def _require_one_shape(entries: list[Entry]) -> None:
    """Refuses other widths, and other lengths, than the first one's."""
    first = entries[0].left
    for entry in entries:
        for side, one in (("first", entry.left), ("second", entry.right)):
            for word, column in (("observations", "obs"), ("actions", "action")):
                width, wanted = (getattr(t, column).shape[1] for t in (one, first))
                if width != wanted:
                    raise UserError(f"{entry.place}: the {side} has {word} of {width} numbers, others of {wanted}")
            if len(one) != len(first):
                raise UserError(
                    f"{entry.place}: the {side} has {len(one)} steps, others {len(first)}: give --segment-length, and "
                    "the last so many steps of each are kept"
                )


def _record(entries: list[Entry], name: str, unnamed: str) -> Record:
    first: dict[str, Entry] = {}
    for entry in entries:
        earlier = first.setdefault(entry.key, entry)
        if (earlier.left.content(), earlier.right.content()) != (entry.left.content(), entry.right.content()):
            raise UserError(f"{entry.place}: the id {entry.key!r} stands for another pair in {earlier.place}")
    shown = list(first.values())
    said = tuple(entry.instruction for entry in shown)
    sides = (_segments([entry.left for entry in shown]), _segments([entry.right for entry in shown]))
    queries = Queries(tuple(first), entries[0].session, *sides, entries[0].typical_return, said if any(said) else ())
    answers = _answers(entries, unnamed)
    (checked,) = from_table(to_table(queries, answers), Source(name, "pair", [_number(entry) for entry in shown]))
    return checked


def _number(entry: Entry) -> str:
    return entry.place.rpartition(" ")[2]


def _answers(entries: list[Entry], unnamed: str) -> list[Answer]:
    given: dict[tuple[str, str], Answer] = {}
    places: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.choice is None:
            continue
        who = entry.annotator
        if who is None:
            count = counts[entry.key] = counts.get(entry.key, 0) + 1
            who = unnamed if count == 1 else f"{unnamed}-{count}"
        key = entry.key, who
        if key in given:
            raise UserError(f"{entry.place}: {who!r} has answered {entry.key!r} in {places[key]}: one answer of each")
        given[key] = Answer(entry.key, entry.choice, who, entry.seconds, entry.replays)
        places[key] = entry.place
    return list(given.values())


def _segments(trajectories: list[Trajectory]) -> Segments:
    columns = {
        name: np.stack([getattr(t, name) for t in trajectories]) for name in ("obs", "action", "reward", "success")
    }
    numbers = np.array([t.number() for t in trajectories], np.int64)
    return Segments(**columns, episode=numbers, start=np.array([t.start for t in trajectories], np.int64))
