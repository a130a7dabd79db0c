"""Speed and controls: each benchmark is a ratio against a named reference, both measured in the same run.

`run("learner", rounds=5)` returns `{"bench": ..., "cases": {NAME: {"ours": x, "reference": y, "ratio": x / y, "unit":
..., "against": "what the reference is"}}}` and, beside these, the spread over rounds, notes and the machine. References
are `reference_*.py`: plain loops as the literature describes them, none of them slower than it has to be.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rayrlhf.errors import UserError, nearest

BENCHES = (
    "learner", "rollout", "relabel", "query", "reward", "serve", "end2end", "driver", "memory", "controls", "faults",
    "chaos", "cluster", "metaworld", "scale", "limits", "share", "methods", "language", "few_shot",
)  # fmt: skip
"""Each a module of this package with a function `run(**options)`; loading one loads what it measures."""

__all__ = ["BENCHES", "run"]


def run(name: str, /, **options: Any) -> dict[str, Any]:
    """Measures `name` and returns its result. Raises `UserError` for unknown names and options."""
    if name not in BENCHES:
        hint = nearest(name, BENCHES) or f"; there are {', '.join(BENCHES)}"
        raise UserError(f"there is no benchmark {name!r}{hint}")
    measure: Callable[..., dict[str, Any]] = import_module(f"rayrlhf.bench.{name}").run
    return measure(**options)
