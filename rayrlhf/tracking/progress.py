"""The progress line: phase, labels used, success, steps per second, time left."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_WINDOW = 30.0
"""Seconds over which the speed is taken."""
_REDRAW = 0.1
_PLAIN = 10.0
"""Seconds between two lines where the output is no terminal."""


@dataclass(frozen=True)
class State:
    """What the line says. `success` is a fraction, or none before the first evaluation; `speed` is in steps/s."""

    phase: str
    env_steps: int
    total_steps: int
    labels: int
    budget: int
    success: float | None
    speed: float | None
    open_questions: int = 0


class Progress:
    """One line on `stream`, redrawn in place on a terminal, written every ten seconds elsewhere.

    budget: labels the run may spend; 0 leaves labels out of the line
    start: environment steps at the start (more than 0 after a resume)
    """

    def __init__(
        self,
        total_steps: int,
        budget: int,
        *,
        start: int = 0,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._budget = total_steps, budget
        self._stream = sys.stderr if stream is None else stream
        self._enabled, self._clock = enabled, clock
        self._terminal = self._stream.isatty()
        self._seen = deque([(clock(), start)])
        self._drawn = float("-inf")
        self._state: State | None = None
        self._labels = 0
        self._success: float | None = None

    def update(
        self,
        env_steps: int,
        phase: str,
        *,
        labels: int | None = None,
        success: float | None = None,
        open_questions: int = 0,
    ) -> None:
        """Takes the newest numbers and redraws when it is time; what is not given keeps its last value."""
        self._labels = self._labels if labels is None else labels
        self._success = self._success if success is None else success
        new_phase = self._state is None or self._state.phase != phase
        self._state = State(
            phase,
            env_steps,
            self._total,
            self._labels,
            self._budget,
            self._success,
            self._speed(env_steps),
            open_questions,
        )
        interval = _REDRAW if self._terminal else _PLAIN
        if self._enabled and (new_phase or self._clock() - self._drawn >= interval):
            self._draw()

    def write(self, message: str) -> None:
        """A line of its own above the progress line."""
        if self._enabled:
            self._stream.write(f"\r\x1b[K{message}\n" if self._terminal else f"{message}\n")
            self._drawn = float("-inf")
            self._stream.flush()

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._enabled and self._state is not None:
            self._draw()
            if self._terminal:
                self._stream.write("\n")
                self._stream.flush()
        self._enabled = False

    def _speed(self, env_steps: int) -> float | None:
        now = self._clock()
        self._seen.append((now, env_steps))
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW:
            self._seen.popleft()
        (first, steps), (last, latest) = self._seen[0], self._seen[-1]
        return (latest - steps) / (last - first) if last > first and latest > steps else None

    def _draw(self) -> None:
        assert self._state is not None
        self._drawn = self._clock()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{line(self._state, width=width)}\x1b[K")
        else:
            self._stream.write(f"{line(self._state)}\n")
        self._stream.flush()


def line(state: State, *, width: int | None = None) -> str:
    """The text of `state`; with `width` columns it has a bar and is no longer than that."""
    done = min(1.0, state.env_steps / state.total_steps)
    parts = [f"{state.phase:<12}", f"{state.env_steps:,}/{state.total_steps:,} steps"]
    if state.budget:
        parts.append(f"{state.labels}/{state.budget} labels")
    if state.open_questions:
        parts.append(f"{state.open_questions} open questions")
    if state.success is not None:
        parts.append(f"success {state.success:.0%}")
    if state.speed:
        left = max(0, state.total_steps - state.env_steps) / state.speed
        parts += [f"{state.speed:,.0f} steps/s", f"{duration(left)} left"]
    text = f"{done:4.0%}  " + "  ".join(parts)
    if width is None:
        return text
    room = width - len(text) - 1
    return (f"{_bar(done, min(room, 24))} {text}" if room >= 6 else text)[:width]


def _bar(done: float, width: int) -> str:
    full = int(done * width)
    return "█" * full + "░" * (width - full)


def duration(seconds: float) -> str:
    """`45 s`, `3:05 min`, `2:10 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
