"""`rayrlhf status` beside a run that trains, after it was killed, after it has gone on to its end, and on damage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import SMALL

from rayrlhf.config.load import load_config
from rayrlhf.tracking import RunDirectory

RAYRLHF = [sys.executable, "-m", "rayrlhf"]


def call(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RAYRLHF, *args], capture_output=True, text=True, timeout=240)


def status(*runs: Path) -> list[dict[str, Any]]:
    done = call("status", *map(str, runs), "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["runs"]
    return found


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_a_run_that_trains_is_killed_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [f"--storage_path={tmp_path}", "--name=run", "--checkpoint.interval=200", "--total_steps=1000000"]
    process = subprocess.Popen(
        [*RAYRLHF, "train", "toy", *SMALL, *options, "--tracking.log_interval=100", "--evaluation.interval=300"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    events = run / "events.jsonl"
    wait_for(lambda: events.is_file() and '"learning"' in events.read_text(), process)
    wait_for(lambda: len(list(run.glob("checkpoints/step-*"))) > 1, process)
    (actor,) = [one for one in psutil.Process(process.pid).children(recursive=True) if "RolloutA" in one.name()]
    actor.kill()
    wait_for(lambda: '"back"' in events.read_text(), process)
    (found,) = status(run)
    assert (found["state"], found["phase"]) == ("running", "learning")
    assert found["holder"].startswith(f"process {process.pid} on ")
    assert found["lost"] == {"rollout-1": 1} and found["errors"] == [] and found["damage"] == []
    assert found["env_steps"] > 300 and found["total_steps"] == 1_000_000 and 0 < found["labels"] <= 12
    assert found["steps_per_second"] > 0 and found["success_rate"] is not None
    assert found["checkpoint"].startswith("step-") and found["checkpoint_age"] >= 0
    assert not found["actors"]
    os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert "metric" not in err.lower()
    (found,) = status(run)
    assert (found["state"], found["holder"]) == ("killed", None)

    done = call("train", f"--resume={run}", "--total_steps=1000", "--quiet")
    assert done.returncode == 0, done.stderr
    (found,) = status(run)
    assert (found["state"], found["total_steps"], found["last"]) == ("finished", 1000, "the run is complete")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    resume = [one["event"] for one in told].index("resume")
    assert [one["event"] for one in told[:3]] == ["start", "config", "ray"]
    assert told[resume + 1]["changed"] == {"total_steps": "1000"}
    assert {"phase", "session", "session-over", "evaluation", "checkpoint", "lost", "back", "restored", "end"} <= {
        one["event"] for one in told
    }

    with events.open("a") as file, (run / "metrics.jsonl").open("a") as rows:
        file.write('no JSON\n[1]\n{"event": "hal')
        rows.write("{}\n\x00\x00\n")
    (found,) = status(run)
    assert found["state"] == "finished"
    assert found["damage"] == ["events.jsonl: 2 lines are damaged", "metrics.jsonl: 1 lines are damaged"]
    shown = call("status", str(run)).stdout
    assert "finished" in shown and "2 lines are damaged" in shown and "rollout-1 1" in shown
    followed = call("status", str(run), "--follow")
    assert followed.returncode == 0, "it ends with the run"


def test_several_runs_are_a_table(tmp_path: Path) -> None:
    places = []
    for name in ("one", "two"):
        places.append(RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}", f"name={name}"])).path)
    assert [(one["name"], one["state"]) for one in status(*places)] == [("one", "new"), ("two", "new")]
    shown = call("status", *map(str, places)).stdout
    assert [line.split()[:2] for line in shown.splitlines() if "new" in line] == [["one", "new"], ["two", "new"]]


def test_looking_at_a_run_keeps_nobody_from_training_in_it(tmp_path: Path) -> None:
    run = RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}", "name=run"]))
    for _ in range(20):
        with run.held():
            assert run.holder() == f"process {os.getpid()} on {os.uname().nodename}"
        assert run.holder() is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "which run? Give the folder of one or more, as in: rayrlhf status runs/NAME"),
        (["nowhere"], "there is no run 'nowhere'"),
        (["tests"], "'tests' is not a run's folder: it has no config.yaml"),
        (["nowhere", "--every=0"], "--every is 0, wanted seconds above 0"),
    ],
)
def test_mistakes_are_one_line(words: list[str], line: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([*RAYRLHF, "status", *words], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (2, f"rayrlhf: {line}\n")
