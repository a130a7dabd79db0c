"""The progress line says what matters, fits the terminal and stays quiet where nobody looks."""

import io
from dataclasses import replace

import pytest

from rayrlhf.tracking.progress import Progress, State, duration, line


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STATE = State("learning", 20_000, 80_000, 40, 100, 0.6, 150.0)


def test_line_names_phase_steps_labels_success_speed_and_time_left() -> None:
    assert [part.strip() for part in line(STATE).split("  ") if part] == [
        "25%",
        "learning",
        "20,000/80,000 steps",
        "40/100 labels",
        "success 60%",
        "150 steps/s",
        "6:40 min left",
    ]


def test_line_leaves_out_what_is_not_known() -> None:
    assert "40/100 labels  3 open questions" in line(replace(STATE, open_questions=3))
    assert line(State("exploring", 0, 10, 0, 0, None, None)) == "  0%  exploring     0/10 steps"


@pytest.mark.parametrize("width", [1, 20, 60, 79, 100, 200])
def test_line_fits_the_terminal(width: int) -> None:
    assert len(line(STATE, width=width)) <= width


def test_elsewhere_a_line_every_ten_seconds_and_at_each_phase() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(1000, 10, stream=out, clock=clock)
    for second in range(1, 26):
        clock.now = float(second)
        progress.update(second * 10, "exploring" if second < 5 else "learning", labels=1)
    lines = out.getvalue().splitlines()
    assert [entry.split()[2] for entry in lines] == ["10/1,000", "50/1,000", "150/1,000", "250/1,000"]
    assert "\r" not in out.getvalue()
    assert "10 steps/s" in lines[-1]


def test_the_speed_forgets_earlier_phases() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(100_000, 0, stream=out, clock=clock)
    steps = 0
    for second in range(1, 101):
        clock.now = float(second)
        steps += 1000 if second <= 50 else 10
        progress.update(steps, "learning")
    assert "  10 steps/s" in out.getvalue().splitlines()[-1]


def test_on_a_terminal_the_line_is_redrawn_in_place() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(100, 10, stream=out, clock=clock)
    progress.update(1, "learning", success=0.5)
    clock.now = 1.0
    progress.update(2, "learning")
    progress.close()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r") == 3
    assert "success 50%" in out.getvalue().rsplit("\r", 1)[1], "an old value stays until a new one comes"


def test_a_disabled_progress_writes_nothing() -> None:
    out = Terminal()
    progress = Progress(100, 10, stream=out, enabled=False)
    progress.update(1, "learning")
    progress.write("hello")
    progress.close()
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7800, "2:10 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
