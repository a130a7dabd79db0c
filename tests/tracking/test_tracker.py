"""Rows of metrics survive kills and full disks, and reach TensorBoard and Weights & Biases."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rayrlhf.config import TrackingOptions
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.tracking import RunDirectory, Tracker, read_metrics

QUIET = TrackingOptions(tensorboard=False)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}"]))


def test_rows_survive_kill_nine(run: RunDirectory) -> None:
    program = f"""
import os, signal
from rayrlhf.config import TrackingOptions
from rayrlhf.tracking import RunDirectory, Tracker
tracker = Tracker(RunDirectory.open({str(run.path)!r}), TrackingOptions(tensorboard=False))
for step in range(5):
    tracker.log(step, {{"x": 1.5 * step}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    assert run.metrics() == [{"env_steps": step, "x": 1.5 * step} for step in range(5)]


def test_half_a_row_at_the_end_is_dropped(run: RunDirectory) -> None:
    run.metrics_file.write_text('{"env_steps": 1}\n{"env_ste')
    assert run.metrics() == [{"env_steps": 1}]
    with Tracker(run, QUIET) as tracker:
        tracker.log(2, {})
    assert run.metrics() == [{"env_steps": 1}, {"env_steps": 2}]


def test_damage_in_the_middle_is_named(run: RunDirectory) -> None:
    run.metrics_file.write_text('{"env_steps": 1}\nrubbish\n{"env_steps": 3}\n')
    with pytest.raises(UserError, match="line 2: damaged"):
        list(read_metrics(run.metrics_file))


def test_what_is_no_number_becomes_none(run: RunDirectory) -> None:
    with Tracker(run, QUIET) as tracker:
        tracker.log(1, {"a": float("nan"), "b": float("-inf"), "c": 1.0})
    assert run.metrics() == [{"env_steps": 1, "a": None, "b": None, "c": 1.0}]


def _log_until_full(path: str, options: TrackingOptions, room: int, full: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))  # stands for the disk's end
    try:
        with Tracker(RunDirectory.open(path), options) as tracker:
            for step in range(200):
                tracker.log(step, {"x": 0.25})
    except UserError as error:
        os._exit(42 if str(error).startswith(f"cannot write {path}/{full}: ") else 1)
    os._exit(1)


@pytest.mark.parametrize(
    ("options", "room", "full"), [(QUIET, 100, "metrics.jsonl"), (TrackingOptions(), 2000, "tensorboard")]
)
def test_a_full_disk_is_one_clear_error_and_leaves_whole_rows(
    run: RunDirectory, options: TrackingOptions, room: int, full: str
) -> None:
    """TensorBoard's rows are larger: its file is full first, which must not wait for anybody."""
    child = os.fork()
    if child == 0:
        _log_until_full(str(run.path), options, room, full)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    text = run.metrics_file.read_text()
    assert text.endswith("\n")
    assert run.metrics() == [{"env_steps": step, "x": 0.25} for step in range(len(run.metrics()))]
    assert run.metrics()


def test_tensorboard_reads_the_rows_back(run: RunDirectory) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Tracker(run, TrackingOptions()) as tracker:
        tracker.log(10, {"eval/success_rate": 0.5})
        tracker.log(20, {"eval/success_rate": float("nan")})
        tracker.log(30, {"eval/success_rate": 1.0})
    run.note_resume(20)
    with Tracker(run, TrackingOptions(), resume_from=20) as tracker:
        tracker.log(30, {"eval/success_rate": 0.75})
    events = accumulator.EventAccumulator(str(run.tensorboard)).Reload().Scalars("eval/success_rate")
    assert [(event.step, event.value) for event in events] == [(10, 0.5), (30, 0.75)]


@pytest.mark.slow
def test_wandb_offline_needs_no_account(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with Tracker(run, TrackingOptions(tensorboard=False, wandb="offline")) as tracker:
        tracker.log(10, {"x": 0.5})
    assert list(run.path.glob("wandb/offline-run-*/*.wandb"))
