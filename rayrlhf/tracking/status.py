"""What a run is doing, from its folder alone: while it trains, after its end, and after whatever ended it."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayrlhf.config.protocol import taught_by
from rayrlhf.tracking.directory import RunDirectory
from rayrlhf.tracking.story import BEGINS, ENDS

WINDOW = 300.0
"""Seconds of training over which a speed is taken."""
Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Elsewhere:
    """What a copy of a run's folder does not show: where the run is, who trains in it, and its newest checkpoint."""

    path: str
    holder: str | None
    checkpoint: str | None


@dataclass(frozen=True)
class Status:
    """A run as its folder shows it; none is what nobody has written yet.

    state: running, finished, stopped (Ctrl-C, SIGTERM), failed, killed (it left no word), or new (nothing was trained)
    holder: the process that has the folder   phase: random, exploring, learning
    taught_by: what says what is good: a teacher, the true reward, a fixed reward model
    steps_per_second, updates_per_second: over the last minutes of training
    checkpoint: the newest one; its age is in seconds   lost: how often a process died, by what it was
    errors: what ended the run, oldest first   damage: what in the folder cannot be read
    last: the newest event, and seconds since it   job: the run's job of its Ray
    """

    name: str
    path: str
    state: str
    holder: str | None
    task: str
    taught_by: str
    phase: str | None
    env_steps: int
    total_steps: int
    labels: int
    budget: int
    open_questions: int | None
    success_rate: float | None
    true_return: float | None
    steps_per_second: float | None
    updates_per_second: float | None
    checkpoint: str | None
    checkpoint_age: float | None
    lost: dict[str, int]
    errors: tuple[str, ...]
    damage: tuple[str, ...]
    last: str | None
    last_age: float | None
    job: str | None


def status_of(run: RunDirectory, elsewhere: Elsewhere | None = None) -> Status:
    """Reads a run's folder, or a copy of one that is `elsewhere`.

    UserError where its config cannot be read; what else is damaged is left out and named.
    """
    config = run.config()
    # first: what an ending process writes is there when it lets go
    holder = run.holder() if elsewhere is None else elsewhere.holder
    events, torn = _objects(run.events_file)
    rows, bad = _objects(run.metrics_file)
    process = _of_last_process(events)
    last = events[-1] if events else None
    checkpoint, age = _checkpoint(run, events, elsewhere)
    return Status(
        name=run.name,
        path=str(run.path) if elsewhere is None else elsewhere.path,
        state=_state(run, holder, process),
        holder=holder,
        task=config.env.task,
        taught_by=taught_by(config),
        phase=_newest(process, "phase"),
        env_steps=int(max(_newest(rows, "env_steps") or 0, _newest(process, "env_steps") or 0)),
        total_steps=config.total_steps,
        labels=int(max(_newest(rows, "labels") or 0, _newest(process, "labels") or 0)),
        budget=config.queries.budget if config.asks else 0,
        open_questions=_whole(_newest(rows, "open_questions")),
        success_rate=_newest([*rows, *process], "success_rate"),
        true_return=_newest([*rows, *process], "true_return_mean"),
        steps_per_second=_speed(rows, "env_steps"),
        updates_per_second=_speed(rows, "updates"),
        checkpoint=checkpoint,
        checkpoint_age=age,
        lost=dict(Counter(str(one.get("who")) for one in events if one.get("event") == "lost")),
        errors=tuple(str(one.get("error")) for one in events if one.get("event") == "failed"),
        damage=_damage({run.events_file.name: torn, run.metrics_file.name: bad}),
        last=None if last is None else str(last.get("message")),
        last_age=None if last is None else _since(last.get("time")),
        job=_newest(process, "job"),
    )


def _objects(path: Path) -> tuple[Objects, int]:
    """The JSON objects in a file, one a line, and how many of its lines are none; the last may be half written."""
    if not path.is_file():
        return [], 0
    found: Objects = []
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict):
            found.append(one)
    return found, len(lines) - len(found)


def _of_last_process(events: Objects) -> Objects:
    """What the process that trained last, or trains, has said: it may have gone back to a checkpoint."""
    begins = [number for number, one in enumerate(events) if one.get("event") in BEGINS]
    return events[begins[-1] :] if begins else events


def _state(run: RunDirectory, holder: str | None, process: Objects) -> str:
    if holder is not None:
        return "running"
    ends = [one["event"] for one in process if one.get("event") in ENDS]
    if ends:
        return ENDS[ends[-1]]
    if run.summary_file.is_file():
        return "finished"
    return "killed" if process else "new"


def _newest(objects: Sequence[dict[str, Any]], name: str) -> Any:
    """The last value of `name` that there is."""
    return next((one[name] for one in reversed(objects) if one.get(name) is not None), None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _speed(rows: Objects, name: str) -> float | None:
    """How fast `name` has grown over the last minutes that training took."""
    timed = [(one["wall_seconds"], one[name]) for one in rows if one.get("wall_seconds") and one.get(name) is not None]
    recent = [(at, count) for at, count in timed if at >= timed[-1][0] - WINDOW]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    return float((recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]))


def _checkpoint(run: RunDirectory, events: Objects, elsewhere: Elsewhere | None) -> tuple[str | None, float | None]:
    """The newest checkpoint, and seconds since it."""
    if elsewhere is not None:
        made = [one.get("time") for one in events if one.get("checkpoint") == elsewhere.checkpoint]
        return elsewhere.checkpoint, _since(made[-1]) if made else None
    newest = max(run.checkpoints.glob("step-*"), default=None)
    if newest is None:
        return None, None
    try:
        return newest.name, max(0.0, time.time() - newest.stat().st_mtime)
    except OSError:  # pruned this moment
        return newest.name, None


def _since(moment: Any) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (TypeError, ValueError):
        return None


def _damage(lines: dict[str, int]) -> tuple[str, ...]:
    return tuple(f"{name}: {count} lines are damaged" for name, count in lines.items() if count)
