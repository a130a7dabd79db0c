"""The queue of questions and what people say of them, in SQL: leases, votes, labels.

Every method is one transaction: what it returns is on the disk. Any number of processes may share a PostgreSQL
database; an SQLite file belongs to the processes of one machine.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store.choosing import golds, held, leases_in, repeats, tests_left, votes_wanted
from rayrlhf.preferences.store.database import Database
from rayrlhf.preferences.store.records import (
    Curves,
    Decision,
    Lease,
    Purpose,
    Question,
    Receipt,
    RefusedError,
    Run,
    Vote,
    unknown_run,
)
from rayrlhf.preferences.store.tables import answers, instructions, leases, queries, runs
from rayrlhf.preferences.store.voting import decide
from rayrlhf.seeding import generator

_CHUNK = 500
"""Names in one statement: databases bound them."""
_DECISIONS = 1000
"""Decisions handed over at once."""
Item = TypeVar("Item")
_MIRRORED: dict[Choice, Choice] = {"left": "right", "right": "left", "equal": "equal", "skip": "skip"}


class PreferenceStore:
    """Questions, leases, answers and labels in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    # --- whoever asks ---

    def register(self, run: Run, *, adopting: bool = False) -> None:
        """Makes the run known, or what is written of it new; `adopting`, also one of its name that has no identity.

        Raises:
            RefusedError: another run asks under this name.
        """
        said = {"task": run.task, "sentence": run.sentence, "guidelines": run.guidelines}
        said["options"] = run.options.model_dump_json()
        row = {"name": run.name, "status": "{}", "created_at": self._clock.now(), "identity": run.identity, **said}
        with self._database.writing() as connection:
            whose = connection.scalar(select(runs.c.identity).where(runs.c.name == run.name))
            if adopting and whose == "":
                connection.execute(update(runs).where(runs.c.name == run.name).values(identity=run.identity))
            elif whose is not None and whose != run.identity:
                raise RefusedError("conflict", f"another run asks as {run.name!r} in this queue: choose another --name")
            statement = self._insert(runs).values(row)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=said))

    def note(self, run: str, doing: str) -> None:
        """Keeps what the run does just now, as JSON."""
        with self._database.writing() as connection:
            if not connection.execute(update(runs).where(runs.c.name == run).values(status=doing)).rowcount:
                raise unknown_run(run)

    def enqueue(self, run: str, asked: Sequence[Question]) -> list[str]:
        """Puts questions; the ids of those among them that are open and whose clips are still to be made.

        One that is there already stays as it is, and its verdict is handed over once more. Open questions of sessions
        that are too old now are dropped.

        Raises:
            RefusedError: the run is unknown, or an id is another run's.
        """
        with self._database.writing() as connection:
            now = self._clock.now()
            options = _options(connection, run)
            for some in _chunks(asked):
                ids = [question.id for question in some]
                rows = [_row(question, run, options, now) for question in some]
                connection.execute(self._insert(queries).on_conflict_do_nothing(), rows)
                if connection.scalar(select(queries.c.id).where(queries.c.id.in_(ids), queries.c.run != run).limit(1)):
                    message = f"questions of {run} have ids of another run's: rename one of the two"
                    raise RefusedError("conflict", message)
                connection.execute(update(queries).where(queries.c.id.in_(ids)).values(received=False))
                told = [{"query": one.id, "sentence": one.instruction} for one in some if one.instruction]
                if told:
                    connection.execute(self._insert(instructions).on_conflict_do_nothing(), told)
            _drop_old(connection, run, options)
            unready = select(queries.c.id).where(queries.c.status == "open", ~queries.c.ready)
            found: set[str] = set()
            for some in _chunks(asked):
                found.update(connection.scalars(unready.where(queries.c.id.in_([question.id for question in some]))))
        return [question.id for question in asked if question.id in found]

    def ask_only(self, run: str, query_ids: Collection[str]) -> None:
        """Nobody is asked others of the run's questions any more, until they are among `query_ids` of another call.

        What was said of them stays; those that were open are expired meanwhile.
        """
        mine, wanted = select(queries.c.id).where(queries.c.run == run), set(query_ids)
        changes = [(False, "open", "expired"), (True, "expired", "open")]
        with self._database.writing() as connection:
            for ready, before, after in changes:
                changed = connection.scalars(mine.where(queries.c.ready != ready)).all()
                for some in _chunks([key for key in changed if (key in wanted) == ready]):
                    these = queries.c.id.in_(some)
                    connection.execute(update(queries).where(these).values(ready=ready))
                    connection.execute(update(queries).where(these, queries.c.status == before).values(status=after))

    def clips_made(self, run: str, query_id: str, left: str, right: str) -> None:
        """The question's clips are there: it can be shown. Clips that it has already stay.

        Raises:
            RefusedError: the run has no such question.
        """
        mine = _named(run, query_id)
        values = {"left_clip": left, "right_clip": right, "ready": True}
        with self._database.writing() as connection:
            if connection.execute(update(queries).where(mine, ~queries.c.ready).values(values)).rowcount:
                return
            if connection.scalar(select(queries.c.id).where(mine)) is None:
                raise RefusedError("unknown", f"{run} has no question {query_id!r}")

    def shown(self, run: str, query_ids: Collection[str]) -> dict[str, tuple[str, str]]:
        """The two clips of each of these questions that is asked now."""
        found = select(queries.c.id, queries.c.left_clip, queries.c.right_clip).where(
            *(queries.c.run == run, queries.c.status == "open", queries.c.ready),
            *(queries.c.left_clip.is_not(None), queries.c.right_clip.is_not(None)),
        )
        clips: dict[str, tuple[str, str]] = {}
        with self._database.reading() as connection:
            for some in _chunks(list(query_ids)):
                rows = connection.execute(found.where(queries.c.id.in_(some)))
                clips |= {row.id: (row.left_clip, row.right_clip) for row in rows}
        return clips

    def clips_lost(self, run: str, query_id: str, left: str, right: str) -> None:
        """The question's clips are there no longer: it is not asked until they are made anew."""
        lost = and_(_named(run, query_id), queries.c.left_clip == left, queries.c.right_clip == right)
        with self._database.writing() as connection:
            connection.execute(update(queries).where(lost, queries.c.status == "open").values(ready=False))

    def withdraw(self, run: str, query_id: str) -> None:
        """The question cannot be shown: it is decided as one that nobody could tell. One that can be stays."""
        unseen = and_(queries.c.status == "open", ~queries.c.ready)
        with self._database.writing() as connection:
            decided = {"status": "skip", "decided_at": self._clock.now()}
            connection.execute(update(queries).where(_named(run, query_id), unseen).values(decided))

    def keep_curves(self, run: str, curves: Sequence[Curves]) -> None:
        """The learned reward along segments of `run`'s, for whoever looks; unknown queries are passed over."""
        with self._database.writing() as connection:
            for one in curves:
                mine = _named(run, one.query_id)
                connection.execute(update(queries).where(mine).values(curves=json.dumps(asdict(one))))

    def decisions(self, run: str, received: Collection[str] = ()) -> list[Decision]:
        """What has been decided and can no longer be taken back; the same again until it is named in `received`."""
        with self._database.writing() as connection:
            now = self._clock.now()
            options = _options(connection, run)
            for ids in _chunks(received):
                mine = and_(queries.c.run == run, queries.c.id.in_(ids), queries.c.delivered_at.is_not(None))
                connection.execute(update(queries).where(mine).values(received=True))
            settled = or_(queries.c.delivered_at.is_not(None), queries.c.decided_at <= now - options.settle_seconds)
            due = select(queries).where(
                queries.c.run == run,
                queries.c.status.in_(("label", "skip", "disputed")),
                queries.c.gold.is_(None),
                ~queries.c.received,
                settled,
            )
            # what is being taken back this moment is passed over
            first = due.order_by(queries.c.decided_at, queries.c.id).limit(_DECISIONS)
            rows = connection.execute(first.with_for_update(key_share=True, skip_locked=True)).all()
            ids = [row.id for row in rows]
            for some in _chunks(ids):
                fresh = and_(queries.c.id.in_(some), queries.c.delivered_at.is_(None))
                connection.execute(update(queries).where(fresh).values(delivered_at=now))
            said = votes_of(connection, ids)
        return [Decision(row.id, row.session, row.status, row.choice, row.target, said[row.id]) for row in rows]

    # --- whoever answers ---

    def lease(self, run: str, annotator: str, count: int = 1) -> list[Lease]:
        """Up to `count` questions for `annotator`: those that are theirs already, for longer, then new ones."""
        with self._database.writing() as connection:
            now = self._clock.now()
            options = _options(connection, run)
            until = now + options.lease_seconds
            kept = list(connection.scalars(held(run, annotator, now).limit(count)))
            granted: list[int] = []
            while len(kept) + len(granted) < count:
                found = self._choose(connection, run, annotator, options, now, wait=not granted)
                seat = None if found is None else self._seat(connection, *found, annotator, now, until)
                if seat is None:
                    break
                granted.append(seat)
            # last: who answers locks the question before its lease, and so does this
            connection.execute(update(leases).where(leases.c.id.in_(kept)).values(expires_at=until))
            theirs = [_lease(connection, lease) for lease in kept]
            return theirs + [_lease(connection, lease, fresh=True) for lease in granted]

    def answer(
        self, annotator: str, lease_id: int, choice: Choice, *, key: str, seconds: float = 0.0, replays: int = 0
    ) -> Receipt:
        """Stores `choice`, of the clips as they were shown. A second call with the same `key` does nothing.

        An answer after the lease's end is stored too, and counts while votes are wanted.

        Raises:
            RefusedError: the lease is not the annotator's or is answered already, or `key` was used for another answer.
        """
        with self._database.writing() as connection:
            now = self._clock.now()
            lease, query = _locked(connection, annotator, lease_id)
            own = _MIRRORED[choice] if lease.flipped else choice
            before = connection.execute(select(answers).where(answers.c.key == key)).one_or_none()
            if before is not None:
                if (before.lease, before.choice, before.undone_at) != (lease_id, own, None):
                    raise RefusedError("conflict", "this key was used for another answer")
                return Receipt(before.id, query.id, query.run, before.counted, None)
            if lease.answered:
                raise RefusedError("conflict", f"{annotator} has answered this question already")
            counted = lease.purpose == "vote" and query.status in ("open", "expired")
            said = {"choice": own, "seconds": seconds, "replays": replays, "answered_at": now, "counted": counted}
            statement = self._insert(answers).values(lease=lease_id, key=key, **said).on_conflict_do_nothing()
            made = connection.scalar(statement.returning(answers.c.id))
            if made is None:  # at this moment, for another question
                raise RefusedError("conflict", "this key was used for another answer")
            connection.execute(update(leases).where(leases.c.id == lease_id).values(answered=True))
            if counted:
                _count(connection, query, now)
            return Receipt(int(made), query.id, query.run, counted, now - lease.granted_at)

    def undo(self, annotator: str, answer_id: int) -> Lease:
        """Takes an answer back; the question is the annotator's again. A second call does nothing more.

        Raises:
            RefusedError: the answer is not the annotator's, `settle_seconds` have gone by, or training has learnt from
                it; or the question was answered anew since.
        """
        with self._database.writing() as connection:
            now = self._clock.now()
            found = connection.execute(select(answers.c.lease).where(answers.c.id == answer_id)).one_or_none()
            if found is None:
                raise RefusedError("unknown", f"{annotator} gave no such answer")
            lease, query = _locked(connection, annotator, found.lease)
            said = connection.execute(select(answers).where(answers.c.id == answer_id)).one()
            if said.undone_at is None:
                options = _options(connection, query.run)
                # alike for every question, or it would tell what one is asked for: nobody learns from a test
                learnt = said.counted and query.delivered_at is not None
                if learnt or now > said.answered_at + options.settle_seconds:
                    raise RefusedError("late", "it is too late to take this answer back: training learns from it")
                until = now + options.lease_seconds
                connection.execute(update(answers).where(answers.c.id == answer_id).values(undone_at=now))
                again = {"answered": False, "expires_at": until}
                connection.execute(update(leases).where(leases.c.id == lease.id).values(again))
                if said.counted:
                    _recount(connection, query, now)
            elif lease.answered:
                raise RefusedError("conflict", "this question was answered anew")
            return _lease(connection, lease.id)

    def _choose(
        self, connection: Connection, run: str, annotator: str, options: QueueOptions, now: float, *, wait: bool
    ) -> tuple[str, Purpose] | None:
        """What `annotator` is asked next, and why; none where there is nothing. A test that was left comes again."""
        left = connection.execute(tests_left(run, annotator, now).limit(1)).one_or_none()
        if left is not None:
            return left.query, left.purpose
        number = 1 + (connection.scalar(leases_in(run, annotator)) or 0)
        tests: list[tuple[Purpose, int, Select[Any]]] = [
            ("gold", options.gold_every, golds(run, annotator)),
            ("repeat", options.repeat_every, repeats(run, annotator)),
        ]
        for purpose, every, choice in tests:
            if every and number % every == 0 and (query := connection.scalar(choice.limit(1))) is not None:
                return query, purpose
        query = self._free(connection, run, annotator, now, wait=wait)
        return None if query is None else (query, "vote")

    def _free(self, connection: Connection, run: str, annotator: str, now: float, *, wait: bool) -> str | None:
        """The first question with a free seat, locked.

        Those that others have locked this moment are passed over; where only such are left they are waited for, unless
        this transaction holds locks that others may wait for.
        """
        wanted = votes_wanted(run, annotator, now)
        passing_over = True
        while True:
            choice = wanted.limit(1).with_for_update(of=queries, key_share=True, skip_locked=passing_over)
            query = connection.scalar(choice)
            if query is None:
                if not passing_over or not wait:
                    return None
                passing_over = False
            # another may have sat down between the choice and the lock
            elif connection.scalar(wanted.where(queries.c.id == query)) is not None:
                return str(query)

    def _seat(
        self, connection: Connection, query: str, purpose: Purpose, annotator: str, now: float, until: float
    ) -> int | None:
        """A lease's id; one that had run out is granted anew. None where it was answered this moment."""
        key = {"query": query, "annotator": annotator, "purpose": purpose}
        fresh = {"granted_at": now, "expires_at": until}
        statement = self._insert(leases).values(**key, **fresh, answered=False, flipped=_flipped(query, annotator))
        open_still = ~leases.c.answered
        again = statement.on_conflict_do_update(index_elements=list(key), set_=fresh, where=open_still)
        found: int | None = connection.scalar(again.returning(leases.c.id))
        return found


def _named(run: str, query_id: str) -> ColumnElement[bool]:
    """The query of that id, if it is the run's."""
    return and_(queries.c.run == run, queries.c.id == query_id)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """`items` in lists short enough for one statement."""
    whole = list(items)
    return (whole[start : start + _CHUNK] for start in range(0, len(whole), _CHUNK))


def votes_of(connection: Connection, ids: Iterable[str], *, gold: bool = False) -> dict[str, tuple[Vote, ...]]:
    """The votes that count, by query, in the order they came; or what was said where annotators were tested."""
    found: dict[str, list[Vote]] = {key: [] for key in ids}
    for some in _chunks(list(found)):
        for row in connection.execute(_votes(gold).where(leases.c.query.in_(some))):
            found[row.query].append(Vote(row.annotator, row.choice, row.seconds, row.replays, row.flipped))
    return {key: tuple(said) for key, said in found.items()}


def counts(gold: bool = False) -> ColumnElement[bool]:
    """Whether an answer is a vote that counts, or the answer to a test that was not taken back."""
    return and_(leases.c.purpose == "gold" if gold else answers.c.counted, answers.c.undone_at.is_(None))


def _votes(gold: bool = False) -> Select[Any]:
    said = (answers.c.choice, answers.c.seconds, answers.c.replays)
    joined = select(leases.c.query, leases.c.annotator, leases.c.flipped, *said).join_from(answers, leases)
    return joined.where(counts(gold)).order_by(answers.c.id)


def _options(connection: Connection, run: str) -> QueueOptions:
    found = connection.scalar(select(runs.c.options).where(runs.c.name == run))
    if found is None:
        raise unknown_run(run)
    return QueueOptions.model_validate_json(found)


def _row(question: Question, run: str, options: QueueOptions, now: float) -> dict[str, Any]:
    return {
        "id": question.id,
        "run": run,
        "session": question.session,
        "position": question.position,
        "gold": question.gold,
        "left_clip": question.left_clip,
        "right_clip": question.right_clip,
        "ready": question.ready,
        "status": "open",
        "wanted": options.overlap,
        "asked_at": now,
        "received": False,
    }


def _oldest_session(connection: Connection, run: str, options: QueueOptions) -> int:
    """The oldest session whose questions are still asked."""
    ordinary = and_(queries.c.run == run, queries.c.gold.is_(None))
    newest = connection.scalar(select(func.max(queries.c.session)).where(ordinary))
    return (newest or 0) - options.keep_sessions + 1


def _drop_old(connection: Connection, run: str, options: QueueOptions) -> None:
    old = queries.c.session < _oldest_session(connection, run, options)
    dropped = and_(queries.c.run == run, queries.c.gold.is_(None), queries.c.status == "open", old)
    connection.execute(update(queries).where(dropped).values(status="expired"))


def _recount(connection: Connection, query: Row[Any], now: float) -> None:
    """After a vote was taken back: those that came too late before are wanted now."""
    votes = select(leases.c.id).where(leases.c.query == query.id, leases.c.purpose == "vote")
    kept = and_(answers.c.lease.in_(votes), answers.c.undone_at.is_(None))
    connection.execute(update(answers).where(kept).values(counted=True))
    _count(connection, query, now)


def _count(connection: Connection, query: Row[Any], now: float) -> None:
    """Brings the status of a locked query to what its votes say."""
    options = _options(connection, query.run)
    verdict = decide([vote.choice for vote in votes_of(connection, [query.id])[query.id]], options)
    is_open = verdict.status == "open"
    is_old = is_open and query.session < _oldest_session(connection, query.run, options)
    values = {
        "status": "expired" if is_old else verdict.status,
        "wanted": verdict.wanted,
        "choice": verdict.choice,
        "target": verdict.target,
        "decided_at": None if is_open else now,
    }
    connection.execute(update(queries).where(queries.c.id == query.id).values(values))


def _locked(connection: Connection, annotator: str, lease_id: int) -> tuple[Row[Any], Row[Any]]:
    """A lease of `annotator`'s and its query, which nobody else changes until the transaction ends."""
    mine = select(leases).where(leases.c.id == lease_id, leases.c.annotator == annotator)
    lease = connection.execute(mine).one_or_none()
    if lease is None:
        raise RefusedError("unknown", f"{annotator} was not asked this")
    query = connection.execute(select(queries).where(queries.c.id == lease.query).with_for_update(key_share=True)).one()
    return connection.execute(mine).one(), query


def _lease(connection: Connection, lease_id: int, *, fresh: bool = False) -> Lease:
    columns = leases, queries.c.run, queries.c.left_clip, queries.c.right_clip, instructions.c.sentence
    joined = select(*columns).join_from(leases, queries).outerjoin(instructions, instructions.c.query == queries.c.id)
    row = connection.execute(joined.where(leases.c.id == lease_id)).one()
    left, right = (row.left_clip, row.right_clip)[:: -1 if row.flipped else 1]
    return Lease(row.id, row.query, row.run, left, right, row.expires_at, fresh, row.sentence)


def _flipped(query: str, annotator: str) -> bool:
    """Whether `annotator` is shown `query` the other way round: drawn once for the two, whatever happens."""
    return bool(generator(0, "flipped", query, annotator).integers(2))
