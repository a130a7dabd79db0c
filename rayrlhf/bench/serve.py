"""`bench serve part=NAME`: the servers over HTTP, each measured by a module of its own."""

from collections.abc import Callable
from typing import Any

from rayrlhf.bench import serve_policy, serve_queue
from rayrlhf.errors import UserError, nearest

PARTS: dict[str, Callable[..., dict[str, Any]]] = {"policy": serve_policy.run, "queue": serve_queue.run}
"""By part: what measures it, with options of its own."""


def run(*, part: str = "policy", **given: Any) -> dict[str, Any]:
    """Measures one part. Raises `UserError` for a part that is not there."""
    if part not in PARTS:
        hint = nearest(str(part), PARTS) or f"; there are {', '.join(PARTS)}"
        raise UserError(f"bench serve has no part {part!r}{hint}")
    return PARTS[part](**given)
