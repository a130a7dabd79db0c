"""What the queue sends piece by piece: everything that was answered, and what is new."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool

from rayrlhf.preferences.store import Reports, UnavailableError
from rayrlhf.preferences.store.reports import PAGE

_EVENT_SECONDS = 1.0
"""How often a stream of events looks whether anything is new."""
_LOOKS = 600


def answered_lines(reports: Reports, run: str) -> Iterator[str]:
    """Every answered question, by id, a JSON object a line."""
    last = ""
    while page := reports.browse(run, after_id=last, limit=PAGE):
        yield from (json.dumps(asdict(item)) + "\n" for item in page)
        last = page[-1].query_id


async def news(reports: Reports, run: str, annotator: str) -> AsyncIterator[str]:
    """What is new, when it is; a comment in between shows that the connection lives."""

    def look() -> dict[str, Any]:
        found = asdict(reports.runs(annotator, only=run)[0])
        return {name: found[name] for name in ("open", "answers", "mine", "doing")}

    last: dict[str, Any] | None = None
    for _ in range(_LOOKS):  # whoever comes again shows their token again
        try:
            now = await run_in_threadpool(look)
        except UnavailableError:
            now = last or {}
        if now != last:
            last = now
            yield f"event: news\ndata: {json.dumps(now)}\n\n"
        else:
            yield ":\n\n"
        await asyncio.sleep(_EVENT_SECONDS)
