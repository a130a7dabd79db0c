"""`bench serve [part=NAME]`: the servers over HTTP, each measured by a module of its own."""

from collections.abc import Callable
from typing import Any

from rayrlhf.bench import serve_policy, serve_queue
from rayrlhf.errors import UserError, nearest

PARTS: dict[str, Callable[..., dict[str, Any]]] = {"policy": serve_policy.run, "queue": serve_queue.run}
"""By part: what measures it, with options of its own."""


def run(*, part: str | None = None, **given: Any) -> dict[str, Any]:
    """Measures one part, or both in turn. Raises `UserError` for a part that is not there."""
    if part is None:
        both = {name: measure(**given) for name, measure in PARTS.items()}
        cases = {f"{name}_{case}": row for name, report in both.items() for case, row in report["cases"].items()}
        notes = {name: report["notes"] for name, report in both.items()}
        return {"bench": "serve", "cases": cases, "notes": notes, "machine": both["queue"]["machine"]}
    if part not in PARTS:
        hint = nearest(str(part), PARTS) or f"; there are {', '.join(PARTS)}"
        raise UserError(f"bench serve has no part {part!r}{hint}")
    return PARTS[part](**given)
