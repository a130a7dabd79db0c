"""`rayrlhf status`: what runs are doing, and what has become of them."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, show
from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.tracking import RunDirectory
from rayrlhf.tracking.progress import duration
from rayrlhf.tracking.status import Status, status_of


@dataclass(frozen=True)
class StatusOptions:
    """What a run does now, or how it ended. Reads its folder, or what is at its URL, and disturbs nobody.

    Where RAY_ADDRESS names the cluster that it runs in, its processes there are listed, too.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders or URLs of runs; of several, a table."""
    follow: bool = False
    """Look again until Ctrl-C, or until none of them runs any more."""
    every: float = 5.0
    """Seconds between two looks."""
    json: bool = False
    """Print one JSON object, as the last line; with --follow one at each look."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf status ARGS`."""
    options = parse(StatusOptions, args, "status")
    if not options.runs:
        raise UserError("which run? Give the folder of one or more, as in: rayrlhf status runs/NAME")
    if not options.every > 0:
        raise UserError(f"--every is {options.every:g}, wanted seconds above 0")
    with suppress(KeyboardInterrupt):
        while _look(options) and options.follow:
            time.sleep(options.every)
    return 0


def _look(options: StatusOptions) -> bool:
    """Shows how things are; whether any of the runs is running."""
    found = [_status(run) for run in options.runs]
    processes = {one.path: _processes(one) for one in found}
    if not options.json and len(found) == 1:
        show(found[0].name, ("", ""), _rows(found[0], *processes[found[0].path]))
    elif not options.json:
        show("", [name for name, _ in _COLUMNS], [[words(one) for _, words in _COLUMNS] for one in found])
    finish({"runs": [_plain(one, *processes[one.path]) for one in found]}, as_json=options.json)
    return any(one.state == "running" for one in found)


def _status(run: str) -> Status:
    if not is_url(run):
        return status_of(RunDirectory.open(run))
    from rayrlhf.remote import seen  # pyarrow takes a moment to load

    copy, elsewhere = seen(run)
    return status_of(RunDirectory.open(copy), elsewhere)


def _processes(status: Status) -> tuple[list[dict[str, Any]], str | None]:
    """The run's processes in its cluster, or why they cannot be told, if one is named."""
    if status.state != "running" or status.job is None or not os.environ.get("RAY_ADDRESS"):
        return [], None
    from rayrlhf.cluster import actors_of  # Ray takes a second to load

    try:
        return [asdict(actor) for actor in actors_of(status.name, status.job)], None
    except UserError as error:
        return [], str(error)


def _plain(status: Status, actors: list[dict[str, Any]], problem: str | None) -> dict[str, Any]:
    return {**asdict(status), "actors": actors, "actors_problem": problem}


def _rows(status: Status, actors: list[dict[str, Any]], problem: str | None) -> list[tuple[str, str]]:
    """Name and words of what is known of one run."""
    rows = [
        ("state", status.state + (f", {status.holder}" if status.holder else "")),
        ("taught by", status.taught_by),
        ("phase", status.phase or ""),
        ("environment steps", _steps(status)),
        ("labels", _labels(status)),
        ("open questions", str(status.open_questions) if status.open_questions else ""),
        ("success", _success(status)),
        ("return", "" if status.true_return is None else f"{status.true_return:,.1f}"),
        ("speed", _speeds(status)),
        ("checkpoint", "none" if status.checkpoint is None else f"{status.checkpoint}, {_ago(status.checkpoint_age)}"),
        ("processes lost", ", ".join(f"{name} {count}" for name, count in status.lost.items())),
        *(("error", error) for error in status.errors),
        *(("damaged", what) for what in status.damage),
        ("last event", "" if status.last is None else f"{status.last}, {_ago(status.last_age)}"),
        *((actor["name"], _actor(actor)) for actor in actors),
        ("cluster", problem or ""),
    ]
    return [(name, words) for name, words in rows if words]


def _steps(status: Status) -> str:
    return f"{status.env_steps:,} of {status.total_steps:,}"


def _labels(status: Status) -> str:
    return f"{status.labels:,} of {status.budget:,}" if status.budget else ""


def _success(status: Status) -> str:
    return "" if status.success_rate is None else f"{status.success_rate:.0%}"


def _speeds(status: Status) -> str:
    words = [
        f"{speed:,.0f} {unit}/s"
        for speed, unit in ((status.steps_per_second, "steps"), (status.updates_per_second, "updates"))
        if speed is not None
    ]
    return ", ".join(words)


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} ago"


def _actor(actor: dict[str, Any]) -> str:
    restarts = f", started again {actor['restarts']} times" if actor["restarts"] else ""
    return f"{actor['role']}, {actor['state']}, node {actor['node']}{restarts}"


_COLUMNS = (
    ("run", lambda one: one.name),
    ("state", lambda one: one.state),
    ("phase", lambda one: one.phase or ""),
    ("steps", _steps),
    ("labels", _labels),
    ("success", _success),
    ("speed", _speeds),
    ("checkpoint", lambda one: _ago(one.checkpoint_age)),
    ("lost", lambda one: str(sum(one.lost.values())) if one.lost else ""),
    ("error", lambda one: one.errors[-1] if one.errors and one.state == "failed" else ""),
)
"""Of the table of several runs: each column's head and what stands there."""
