"""`rayrlhf bench`: ratios against a named reference, measured side by side in one run."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.config.yaml import parse_yaml
from rayrlhf.errors import UserError


@dataclass(frozen=True)
class BenchOptions:
    """Measure one part against a reference in the same run. Options of a benchmark's own are `key=value`."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """learner, rollout, relabel, query, reward, serve, end2end, driver, memory, controls, faults, chaos, cluster,
    metaworld, scale, limits, share, methods, language or few_shot."""
    options: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """The benchmark's own, such as rounds=3; one that it lacks names those it has."""
    json: bool = False
    """Print the result as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf bench ARGS`."""
    options = parse(BenchOptions, args, "bench")
    chosen = dict(_pair(word) for word in options.options)
    # imported here, so that help and mistakes come at once
    from rayrlhf.bench import run as run_bench
    from rayrlhf.cli.guard import one_line

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it started ends with it
    with one_line():
        result = run_bench(options.name, **chosen)
    cases = result.get("cases", {})
    rows = [(name, *_row(case)) for name, case in cases.items()]
    if rows:
        show(f"bench {options.name}", ("case", "ours", "reference", "ratio", "unit", "against"), rows, right=(1, 2, 3))
    if table := result.get("table"):
        show(f"bench {options.name}", tuple(table["columns"]), table["rows"])
    for name, (low, high) in result.get("spread", {}).items():
        say(f"{name}: ratio {low:.3g} to {high:.3g} over the rounds")
    finish(result, as_json=options.json)
    return 0


def _pair(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not (equals and key.isidentifier()):
        raise UserError(f"unexpected argument {word!r}: a benchmark's option is written key=value")
    return key, parse_yaml(value, f"value of {key}")


def _row(case: dict[str, Any]) -> tuple[str, ...]:
    numbers = (_number(case.get("ours")), _number(case.get("reference")), _number(case.get("ratio")))
    return (*numbers, str(case.get("unit", "")), str(case.get("against", "")))


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else str(value if value is not None else "")
