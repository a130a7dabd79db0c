"""What can be said of a run's questions and of the people who answer them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Row, and_, func, or_, select, true

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.agreement import agreement
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store.database import Database
from rayrlhf.preferences.store.records import Curves, Vote, unknown_run
from rayrlhf.preferences.store.store import counts, votes_of
from rayrlhf.preferences.store.tables import answers, leases, queries, runs
from rayrlhf.preferences.store.voting import Status

Among = Literal["run", "task", "all"]
PAGE = 200
"""Most questions of one call of `browse`."""
_CURVES = TypeAdapter(Curves)
_ASKED = (queries.c.status == "open", queries.c.ready, queries.c.gold.is_(None))


@dataclass(frozen=True)
class Progress:
    """Questions by what has become of them, those that test annotators left out; `answers` to them that count.

    unready: open ones whose clips are still to be made
    """

    open: int = 0
    unready: int = 0
    label: int = 0
    skip: int = 0
    disputed: int = 0
    expired: int = 0
    answers: int = 0


@dataclass(frozen=True)
class RunInfo:
    """A run as those who answer see it.

    doing: what training does, as it said last   open: questions that can be shown   mine: answers of one's own
    settle_seconds: an answer can be taken back for so long   play_once: both clips are to be seen before an answer
    """

    name: str
    task: str
    sentence: str
    guidelines: str
    doing: dict[str, Any]
    open: int
    answers: int
    mine: int
    settle_seconds: float
    play_once: bool


@dataclass(frozen=True)
class News:
    """What those who wait for questions of a run want to hear.

    open: questions that can be shown   answers: by annotator   doing: what training does, as it said last
    """

    open: int
    answers: dict[str, int]
    doing: dict[str, Any]


@dataclass
class Person:
    """What one annotator has done in a run. Shares are (right, of): of nothing they say nothing.

    seconds:    median time taken
    gold:       questions with a known answer that were answered so
    same:       repeated questions that were answered as before
    with_label: questions with several votes that were answered as their label says
    """

    name: str
    answers: int = 0
    skips: int = 0
    seconds: float | None = None
    gold: tuple[int, int] = (0, 0)
    same: tuple[int, int] = (0, 0)
    with_label: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Answered:
    """One question as the browser lists it, newest first; `place` is where the next page goes on.

    gold: it tests annotators, and `choice` is the known answer
    """

    query_id: str
    run: str
    session: int
    status: Status
    choice: Choice | None
    target: float | None
    left_clip: str | None
    right_clip: str | None
    answered_at: float
    votes: tuple[Vote, ...] = ()
    curves: Curves | None = None
    gold: bool = False

    @property
    def place(self) -> tuple[float, str]:
        """What `browse` takes as `before`."""
        return self.answered_at, self.query_id


class Reports:
    """Reads `database`, and changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def news(self, run: str) -> News:
        """The newest of a run, for everybody. Raises `RefusedError` where there is none of that name."""
        given = select(leases.c.annotator, func.count()).select_from(answers.join(leases).join(queries))
        valid = given.where(queries.c.run == run, answers.c.undone_at.is_(None))
        with self._database.reading() as connection:
            doing = connection.scalar(select(runs.c.status).where(runs.c.name == run))
            if doing is None:
                raise unknown_run(run)
            count = connection.scalar(select(func.count()).where(queries.c.run == run, *_ASKED)) or 0
            said = {name: number for name, number in connection.execute(valid.group_by(leases.c.annotator))}
        return News(count, said, json.loads(doing))

    def identities(self) -> set[str]:
        """Of all runs that ask here."""
        with self._database.reading() as connection:
            return set(connection.scalars(select(runs.c.identity)))

    def runs(self, annotator: str) -> list[RunInfo]:
        """Every run, the newest first, with how many answers are `annotator`'s."""
        valid = and_(queries.c.run == runs.c.name, answers.c.undone_at.is_(None))
        given = select(func.count()).select_from(answers.join(leases).join(queries)).where(valid)
        counts = {
            "open": select(func.count()).where(queries.c.run == runs.c.name, *_ASKED),
            "answers": given,
            "mine": given.where(leases.c.annotator == annotator),
        }
        columns = [count.correlate(runs).scalar_subquery().label(name) for name, count in counts.items()]
        listed = select(runs, *columns).order_by(runs.c.created_at.desc(), runs.c.name)
        with self._database.reading() as connection:
            rows = connection.execute(listed).all()
        return [_run_info(row) for row in rows]

    def progress(self, run: str) -> Progress:
        """How far the run's questions are."""
        ordinary = and_(queries.c.run == run, queries.c.gold.is_(None))
        groups = select(queries.c.status, queries.c.ready, func.count()).where(ordinary)
        votes = select(func.count()).select_from(answers.join(leases).join(queries))
        counts = {name: 0 for name in ("open", "unready", "label", "skip", "disputed", "expired")}
        with self._database.reading() as connection:
            for status, ready, count in connection.execute(groups.group_by(queries.c.status, queries.c.ready)):
                counts[status] += count
                counts["unready"] += count if status == "open" and not ready else 0
            said = connection.scalar(votes.where(ordinary, answers.c.counted, answers.c.undone_at.is_(None)))
        return Progress(**counts, answers=said or 0)

    def leased(self, run: str) -> int:
        """Open questions that somebody has before them, those that test annotators left out."""
        now = self._database.clock.now()
        held = and_(leases.c.query == queries.c.id, ~leases.c.answered, leases.c.expires_at > now)
        asked = and_(queries.c.run == run, queries.c.status == "open", queries.c.gold.is_(None))
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).where(asked, select(leases.c.id).where(held).exists())) or 0

    def people(self, run: str, *, only: str | None = None) -> list[Person]:
        """Everybody who answered in the run, by name; or `only` the one of that name."""
        found: dict[str, _Work] = {}
        for row in self._said(run, annotator=only):
            found.setdefault(row.annotator, _Work(row.annotator)).take(row)
        return [found[name].person() for name in sorted(found)]

    def agreement(self, run: str) -> float | None:
        """Krippendorff's alpha over the run's votes."""
        votes: dict[str, dict[str, Choice]] = {}
        for row in self._said(run):
            if row.purpose == "vote":
                votes.setdefault(row.query, {})[row.annotator] = row.choice
        return agreement(list(votes.values()))

    def _said(self, run: str, *, annotator: str | None = None) -> Sequence[Row[Any]]:
        """Every answer in the run, or one annotator's, that was not taken back, in the order they came."""
        columns = (leases.c.annotator, leases.c.query, leases.c.purpose, answers.c.choice, answers.c.seconds)
        of_query = (queries.c.gold, queries.c.status, queries.c.choice.label("label"))
        votes = (
            select(func.count())
            .select_from(answers.join(leases))
            .where(answers.c.counted, answers.c.undone_at.is_(None))
        )
        several = votes.where(leases.c.query == queries.c.id).correlate(queries).scalar_subquery() > 1
        joined = select(*columns, *of_query, several.label("several")).select_from(answers.join(leases).join(queries))
        with self._database.reading() as connection:
            here = joined.where(queries.c.run == run, answers.c.undone_at.is_(None)).order_by(answers.c.id)
            return connection.execute(here if annotator is None else here.where(leases.c.annotator == annotator)).all()

    def browse(
        self,
        run: str,
        *,
        among: Among = "run",
        gold: bool = False,
        annotator: str | None = None,
        statuses: Sequence[Status] = (),
        disagreed: bool = False,
        since: float | None = None,
        before: tuple[float, str] | None = None,
        after_id: str | None = None,
        limit: int = 50,
    ) -> list[Answered]:
        """Questions with votes that count: the newest first, or by id.

        among: this run's, those of all runs of its task, or all   gold: those that test annotators instead
        annotator: answered by this one   disagreed: not all said the same   since: the newest answer is not older
        before: the `place` to go on after
        after_id: by id, those behind this one ("" is before all): so everything comes once, also while people answer
        """
        counted = and_(leases.c.query == queries.c.id, counts(gold))
        votes = select(answers.c.id).select_from(answers.join(leases)).where(counted).correlate(queries)
        newest = select(func.max(answers.c.answered_at)).select_from(answers.join(leases)).where(counted)
        answered_at = newest.correlate(queries).scalar_subquery().label("answered_at")
        is_kind = queries.c.gold.is_not(None) if gold else queries.c.gold.is_(None)
        listed = select(queries, answered_at).where(_is_among(run, among), is_kind, votes.exists())
        if annotator is not None:
            listed = listed.where(votes.where(leases.c.annotator == annotator).exists())
        if statuses:
            listed = listed.where(queries.c.status.in_(statuses))
        if disagreed:
            kinds = select(func.count(answers.c.choice.distinct())).select_from(answers.join(leases)).where(counted)
            listed = listed.where(kinds.correlate(queries).scalar_subquery() > 1)
        page = listed.subquery()
        recent = page.c.answered_at >= (since or 0.0)
        found = select(page).where(recent).order_by(page.c.answered_at.desc(), page.c.id.desc()).limit(min(limit, PAGE))
        if after_id is not None:
            found = select(page).where(recent, page.c.id > after_id).order_by(page.c.id).limit(min(limit, PAGE))
        elif before is not None:
            at, last = before
            found = found.where(or_(page.c.answered_at < at, and_(page.c.answered_at == at, page.c.id < last)))
        with self._database.reading() as connection:
            rows = connection.execute(found).all()
            said = votes_of(connection, [row.id for row in rows], gold=gold)
        return [
            Answered(
                row.id, row.run, row.session, row.status, row.gold or row.choice, row.target, row.left_clip,
                row.right_clip, row.answered_at, said[row.id],
                _CURVES.validate_json(row.curves) if row.curves else None, row.gold is not None,
            )
            for row in rows
        ]  # fmt: skip


def _is_among(run: str, among: Among) -> ColumnElement[bool]:
    if among == "run":
        return queries.c.run == run
    its_task = select(runs.c.task).where(runs.c.name == run).scalar_subquery()
    same = select(runs.c.name).where(runs.c.task == its_task)
    return queries.c.run.in_(same) if among == "task" else true()


def _run_info(row: Row[Any]) -> RunInfo:
    options = QueueOptions.model_validate_json(row.options)
    said = row.name, row.task, row.sentence, row.guidelines, json.loads(row.status)
    return RunInfo(*said, row.open, row.answers, row.mine, options.settle_seconds, options.play_once)


class _Work:
    """One annotator's answers, counted."""

    def __init__(self, name: str) -> None:
        self._person = Person(name)
        self._seconds: list[float] = []
        self._first: dict[str, Choice] = {}

    def take(self, row: Row[Any]) -> None:
        """Takes in the next answer, in the order they came."""
        person, purpose = self._person, row.purpose
        person.answers += 1
        person.skips += row.choice == "skip"
        self._seconds.append(row.seconds)
        if purpose == "gold":
            person.gold = _more(person.gold, row.choice == row.gold)
        elif purpose == "repeat":
            person.same = _more(person.same, row.choice == self._first.get(row.query))
        else:
            self._first[row.query] = row.choice
            if row.several and row.status == "label":
                person.with_label = _more(person.with_label, row.choice == row.label)

    def person(self) -> Person:
        """The sum."""
        self._person.seconds = median(self._seconds) if self._seconds else None
        return self._person


def _more(share: tuple[int, int], right: bool) -> tuple[int, int]:
    return share[0] + right, share[1] + 1
