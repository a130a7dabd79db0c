"""Which leases are somebody's, and which question they are asked next, as SQL."""

from typing import Any

from sqlalchemy import Select, and_, exists, func, or_, select

from rayrlhf.preferences.store.tables import leases, queries

_LAST_SECONDS = 1.0
"""Of a lease, in which it cannot be made longer."""
_REPEAT_GAP = 5
"""Questions between an annotator's answer and the same question again."""


def _taken(now: float) -> Any:
    """A vote's seat that is answered, or kept for somebody."""
    return and_(leases.c.purpose == "vote", or_(leases.c.answered, leases.c.expires_at > now))


def held(run: str, annotator: str, now: float) -> Select[Any]:
    """Leases of `annotator`'s that can still be answered, oldest first."""
    usable = or_(and_(leases.c.purpose != "vote", queries.c.ready), queries.c.status == "open")
    # not in its last moment, when another may sit down
    mine = and_(leases.c.annotator == annotator, ~leases.c.answered, leases.c.expires_at > now + _LAST_SECONDS)
    joined = select(leases.c.id).join_from(leases, queries).where(queries.c.run == run, mine, usable)
    return joined.order_by(leases.c.granted_at, leases.c.id)


def tests_left(run: str, annotator: str, now: float) -> Select[Any]:
    """Tests of `annotator`'s whose lease ran out before an answer: query and purpose, oldest first."""
    gone = and_(leases.c.purpose != "vote", ~leases.c.answered, leases.c.expires_at <= now + _LAST_SECONDS)
    joined = select(leases.c.query, leases.c.purpose).join_from(leases, queries)
    mine = and_(queries.c.run == run, queries.c.ready, leases.c.annotator == annotator)
    return joined.where(mine, gone).order_by(leases.c.id)


def leases_in(run: str, annotator: str) -> Select[Any]:
    joined = select(func.count()).select_from(leases.join(queries))
    return joined.where(queries.c.run == run, leases.c.annotator == annotator)


def votes_wanted(run: str, annotator: str, now: float) -> Select[Any]:
    """Open questions with a free seat that `annotator` has none of; the newest session's first."""
    seats = select(func.count()).where(leases.c.query == queries.c.id, _taken(now)).scalar_subquery()
    own = exists().where(leases.c.query == queries.c.id, leases.c.annotator == annotator, _taken(now))
    askable = and_(queries.c.run == run, queries.c.status == "open", queries.c.ready, queries.c.gold.is_(None))
    found = select(queries.c.id).where(askable, ~own, seats < queries.c.wanted)
    return found.order_by(queries.c.session.desc(), queries.c.position, queries.c.id)


def golds(run: str, annotator: str) -> Select[Any]:
    """Questions with a known answer that `annotator` was not shown, in their order."""
    shown = exists().where(leases.c.query == queries.c.id, leases.c.annotator == annotator)
    known = and_(queries.c.run == run, queries.c.gold.is_not(None), queries.c.ready)
    return select(queries.c.id).where(known, ~shown).order_by(queries.c.session, queries.c.position, queries.c.id)


def repeats(run: str, annotator: str) -> Select[Any]:
    """Questions that `annotator` answered some while ago and once, in the order of answering."""
    newer = leases.alias()
    mine = and_(leases.c.annotator == annotator, leases.c.purpose == "vote", leases.c.answered, queries.c.run == run)
    asked = queries.alias()
    here = and_(newer.c.annotator == annotator, newer.c.id > leases.c.id, asked.c.run == run)
    after = (
        select(func.count()).select_from(newer.join(asked, newer.c.query == asked.c.id)).where(here).scalar_subquery()
    )
    again = leases.alias()
    repeated = exists().where(
        again.c.query == leases.c.query, again.c.annotator == annotator, again.c.purpose == "repeat"
    )
    often = and_(queries.c.ready, ~repeated, after >= _REPEAT_GAP)
    joined = select(leases.c.query).join_from(leases, queries).where(mine, often)
    return joined.order_by(leases.c.id)
