"""Pairs of clips in the queue, and what people say of them in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rayrlhf.config import QueueOptions
from rayrlhf.envs.video import browser_clip, clip_seconds
from rayrlhf.errors import UserError
from rayrlhf.files import write_atomically
from rayrlhf.preferences.pairs import Pair
from rayrlhf.preferences.store import Database, PreferenceStore, Question, RefusedError, Reports, Run
from rayrlhf.preferences.store.reports import PAGE
from rayrlhf.serving.clips import Clips
from rayrlhf.serving.labelling import Place

GOLD_EVERY = 10
"""How often a person is tested where pairs have known answers and nothing is said of it."""
_MOST_APART = 0.1
"""Part of the longer clip's length that the other may be shorter by."""


def rules_for(pairs: list[Pair], options: QueueOptions) -> QueueOptions:
    """The rules by which `pairs` are asked: where some have a known answer, everybody is asked those, too."""
    if options.gold_every or all(pair.gold is None for pair in pairs):
        return options
    return options.model_copy(update={"gold_every": GOLD_EVERY})


def warning_of_lengths(pairs: list[Pair]) -> str | None:
    """One line where the two clips of a pair differ in length, which people may judge instead of what is in them."""
    apart: list[tuple[Pair, float, float]] = []
    for pair in pairs:
        left, right = clip_seconds(pair.left), clip_seconds(pair.right)
        if left is not None and right is not None and abs(left - right) > _MOST_APART * max(left, right):
            apart.append((pair, left, right))
    if not apart:
        return None
    first, left, right = apart[0]
    what = f"one clip is more than {100 * _MOST_APART:.0f} % shorter than the other"
    where = f"first in {first.id!r} (left {left:.1f} s, right {right:.1f} s)"
    return f"warning: in {len(apart)} of {len(pairs)} pairs {what}, {where}"


def ask_pairs(
    place: Place, source: Path, name: str, pairs: list[Pair], options: QueueOptions, *, sentence: str, guidelines: str
) -> dict[str, Pair]:
    """Puts the pairs of clips of `source` as questions of the run `name`; by id. What was said of them before stays.

    A question's id follows from what its clips show, so that other clips of the same name are other questions: those
    of the run that are not among `pairs` any more are asked no longer.

    Raises:
        UserError: a clip cannot be read, the disk is full, or another file has the run's name in this queue; nothing
            was asked then.
    """
    database = Database(place.database)
    try:
        store = PreferenceStore(database)
        _register(store, Run(name, name, sentence, guidelines, options, _identity_of(source)), source)
        asked, questions = _questions(place, name, pairs)
        store.enqueue(name, questions)
        store.ask_only(name, asked)
    finally:
        database.close()
    return asked


def _register(store: PreferenceStore, run: Run, source: Path) -> None:
    try:
        store.register(run, adopting=True)
    except RefusedError as error:
        raise UserError(
            f"this queue asks of another {run.name!r} already: rename {source.name}, or give another --storage-path"
        ) from error


def _identity_of(source: Path) -> str:
    """The same again for the same file or folder."""
    return hashlib.blake2b(str(source.resolve()).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _questions(place: Place, name: str, pairs: list[Pair]) -> tuple[dict[str, Pair], list[Question]]:
    """What is asked, and the pairs by the questions' ids; the clips are kept in the queue's folder."""
    clips, asked, questions = Clips(place.clips), dict[str, Pair](), []
    for position, pair in enumerate(pairs):
        left, right = (clips.keep(browser_clip(path)) for path in (pair.left, pair.right))
        shown = hashlib.blake2b(f"{left} {right}".encode(), digest_size=8).hexdigest()
        key = f"{name}/{pair.id}~{shown}"
        asked[key] = pair
        questions.append(Question(key, 0, position, gold=pair.gold, left_clip=left, right_clip=right))
    return asked, questions


def labels_in(file: Path) -> list[dict[str, Any]]:
    """The labels of pairs that `write_labels` has written to `file`; none where there is no such file.

    Raises:
        UserError: it is a file of something else.
    """
    try:
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if all(isinstance(label["question"], str) for label in found):
            return found
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{file} is there and holds no labels of pairs: give another file with --to")


def write_labels(
    file: Path, reports: Reports, name: str, asked: Mapping[str, Pair], before: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Writes what was said of the pairs `asked` to a JSON-lines file, whole; how many are decided.

    A line is `{"id", "question", "left", "right", "status", "choice", "target", "votes"}`; `target` is P(right
    preferred). Lines from `before` of questions that nobody has answered here stay.
    """
    lines, decided = dict[str, Mapping[str, Any]](), 0
    for row in _answered(reports, name):
        key = row["query_id"]
        if (pair := asked.get(key)) is not None:
            said = {part: row[part] for part in ("status", "choice", "target", "votes")}
            lines[key] = {"id": pair.id, "question": key, "left": str(pair.left), "right": str(pair.right), **said}
            decided += row["status"] != "open"
    kept = [label for label in before if label["question"] not in lines]
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in [*kept, *lines.values()]))
    return decided


def _answered(reports: Reports, name: str) -> Iterator[dict[str, Any]]:
    last = ""
    while page := reports.browse(name, after_id=last, limit=PAGE):
        yield from (asdict(item) for item in page)
        last = page[-1].query_id
