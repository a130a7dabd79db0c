"""What people said of questions that a dataset has, in CSV.

    query_id,choice,annotator,seconds,replays
    demo/00000/00001,left,eva,4.2,1

`seconds` and `replays` may be empty or left out; they are 0 then.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from rayrlhf.errors import UserError, printable
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.table import Record

COLUMNS = ("query_id", "choice", "annotator", "seconds", "replays")
_NEEDED = COLUMNS[:3]


def read_answers(stream: BinaryIO, name: str, known: Iterable[Record]) -> list[Record]:
    """The answers in a CSV file with the queries of `known` that they are to.

    Raises:
        UserError: a row is malformed, or is about a query that is not known; it is named by its line.
    """
    asked = {key: queries for queries, _ in known for key in queries.ids}
    given: dict[str, list[Answer]] = {}
    said: dict[tuple[str, str], str] = {}
    for place, row in _rows(stream, name):
        answer = _answer(row, place)
        if answer.query_id not in asked:
            raise UserError(f"{place}: the dataset has no query {answer.query_id!r}")
        earlier = said.setdefault((answer.query_id, answer.annotator), place)
        if earlier != place:
            raise UserError(
                f"{place}: {answer.annotator!r} has answered {answer.query_id!r} in {earlier}: one answer of each"
            )
        given.setdefault(answer.query_id, []).append(answer)
    if not given:
        raise UserError(f"{name} holds no answers")
    every = {id(queries): queries for queries in asked.values()}
    return [
        (queries.among(given), [a for key in queries.ids for a in given.get(key, ())])
        for queries in every.values()
        if not given.keys().isdisjoint(queries.ids)
    ]


def write_answers(records: Iterable[Record], stream: BinaryIO) -> None:
    """Writes a row for each answer."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for _, answers in records:
        rows.writerows((a.query_id, a.choice, a.annotator, repr(float(a.seconds)), a.replays) for a in answers)
    text.flush()
    text.detach()


def _rows(stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, restkey="", skipinitialspace=True, strict=True)
    try:
        header = rows.fieldnames or []
        if missing := [column for column in _NEEDED if column not in header]:
            raise UserError(f"{name}: its first line lacks {missing[0]}; wanted {','.join(COLUMNS)}")
        if unknown := [column for column in header if column not in COLUMNS]:
            raise UserError(f"{name}: unknown column {unknown[0][:40]!r}; there are {', '.join(COLUMNS)}")
        for row in rows:
            if "" in row or None in row.values():
                raise UserError(f"{name}, line {rows.line_num}: it has not as many fields as the first line")
            yield f"{name}, line {rows.line_num}", row
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text in UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{name}, after line {rows.line_num}: {error}") from error


def _answer(row: dict[str, str], place: str) -> Answer:
    try:
        seconds, replays = float(row.get("seconds") or 0), int(row.get("replays") or 0)
    except ValueError as error:
        raise UserError(f"{place}: seconds or replays is no number: {printable(str(error))}") from error
    try:
        return Answer(row["query_id"], row["choice"], row["annotator"], seconds, replays)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
