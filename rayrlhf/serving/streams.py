"""What the queue sends piece by piece: everything that was answered, and what is new."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool

from rayrlhf.preferences.store import RefusedError, Reports, UnavailableError
from rayrlhf.preferences.store.reports import PAGE, News

_EVENT_SECONDS = 1.0
"""How often a stream of events looks whether anything is new."""
_FRESH_SECONDS = 0.5
"""For how long what one stream read is new enough for the others."""
_LOOKS = 600


def answered_lines(reports: Reports, run: str) -> Iterator[str]:
    """Every answered question, by id, a JSON object a line."""
    last = ""
    while page := reports.browse(run, after_id=last, limit=PAGE):
        yield from (json.dumps(asdict(item)) + "\n" for item in page)
        last = page[-1].query_id


class Board:
    """What is new in each run, read once for all streams of a replica, however many there are."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._read: dict[str, tuple[float, News]] = {}
        self._reading = asyncio.Lock()

    async def look(self, run: str) -> News:
        """The newest of `run`.

        Raises:
            RefusedError: there is no such run.
            UnavailableError: the store is away.
        """
        async with self._reading:
            at, found = self._read.get(run, (0.0, None))
            if found is None or time.monotonic() - at >= _FRESH_SECONDS:
                found = await run_in_threadpool(self._reports.news, run)
                self._read[run] = time.monotonic(), found
            return found


async def news(board: Board, run: str, annotator: str) -> AsyncIterator[str]:
    """What is new, when it is; a comment in between shows that the connection lives."""
    last: dict[str, Any] | None = None
    for _ in range(_LOOKS):  # whoever comes again shows their token again
        try:
            found = await board.look(run)
        except UnavailableError:
            yield ":\n\n"
        except RefusedError:  # another database has taken its place
            return
        else:
            told = {"answers": sum(found.answers.values()), "mine": found.answers.get(annotator, 0)}
            now = {"open": found.open, **told, "doing": found.doing}
            yield ":\n\n" if now == last else f"event: news\ndata: {json.dumps(now)}\n\n"
            last = now
        await asyncio.sleep(_EVENT_SECONDS)
