"""Runs on a real cluster of several nodes, each with a Ray, an object store and an address of its own."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support import APART, SMALL, assert_identical, curve, networks, of_kind

from rayrlhf.bench.faulty import actors_of
from rayrlhf.bench.nodes import Nodes
from rayrlhf.tracking import RunDirectory

MARKED = ["--resources.durable_on=durable", "--resources.rollout_on=spot"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head node for the driver, a durable worker, and one for rollout actors."""
    with tempfile.TemporaryDirectory(prefix="rn", ignore_cleanup_errors=True) as folder, Nodes(Path(folder)) as nodes:
        nodes.start_head(1, {"durable": 1})
        nodes.add(2, {"durable": 1})
        nodes.add(2, {"spot": 1})
        yield nodes


def train(words: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayrlhf", "train", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("environment", ["toy", pytest.param("metaworld", marks=pytest.mark.slow)])
def test_roles_on_several_nodes_give_the_curve_of_one_node(nodes: Nodes, tmp_path: Path, environment: str) -> None:
    """To the bit, in the synchronous mode. Nothing but rollout actors is on the node for them."""
    words = [*of_kind(environment), *APART, f"--storage_path={tmp_path}"]
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        spot = nodes.nodes[2]
        while not done.is_set():
            there = {process.pid for process in spot.processes()}
            actors = actors_of(nodes.address, nodes.environment())
            seen.update(f"{actor.kind} {actor.pid in there}" for actor in actors)
            time.sleep(0.5)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        several = train([*words, *MARKED, "--name=several"], nodes.environment())
    finally:
        done.set()
        thread.join()
    assert several.returncode == 0, several.stderr[-2000:]
    assert "rollout" in several.stderr and "on spot" in several.stderr, "the plan is printed"
    one = train([*words, "--name=one"])
    assert one.returncode == 0, one.stderr[-2000:]
    runs = RunDirectory(tmp_path / "several"), RunDirectory(tmp_path / "one")
    assert curve(runs[0]) == curve(runs[1])
    assert_identical(*(networks(run) for run in runs))
    assert "RolloutActor True" in seen and "RolloutActor False" not in seen
    assert "RewardHost False" in seen and "RewardHost True" not in seen


def test_what_no_node_can_hold_is_refused_before_anything_starts(nodes: Nodes, tmp_path: Path) -> None:
    begin = ["toy", *SMALL, f"--storage_path={tmp_path}"]
    for words, wanted in (
        (["--resources.rollout_cpus=3"], "no node has the 3 CPUs that rollout wants; there is 2 x 2 CPUs; 1 CPU"),
        (["--resources.rollout_on=gold"], "no node has the resource gold, which rollout wants"),
        (["--rollout.actors=4", "--resources.rollout_cpus=2"], "there is room for 2 of 4 rollout processes"),
        (["--resources.gpus_per_learner=1"], "the run wants 1 GPUs, and there are 0"),
    ):
        refused = train([*begin, *words], nodes.environment())
        assert refused.returncode == 2 and wanted in refused.stderr, refused.stderr
        assert refused.stderr.strip().splitlines()[-1].startswith("rayrlhf: ")
        assert not list(tmp_path.iterdir()), "its name is free"


def test_a_run_waits_for_a_node_that_is_to_come(nodes: Nodes, tmp_path: Path) -> None:
    words = ["toy", *SMALL, f"--storage_path={tmp_path}", "--name=run", "--resources.rollout_on=late"]
    timer = threading.Timer(15.0, nodes.add, (1, {"late": 1}))
    timer.start()
    waited = train([*words, "--resources.wait_minutes=3"], nodes.environment())
    timer.join()
    assert waited.returncode == 0, waited.stderr[-2000:]
    assert "no node has the resource late, which rollout wants: waiting up to 3 minutes" in waited.stderr
    nodes.kill(nodes.nodes[-1])


def test_a_run_goes_on_with_other_nodes_learners_and_actors(nodes: Nodes, tmp_path: Path) -> None:
    """On this machine alone: counters, replay, labels and the reward's version are those it had on the cluster."""
    name = ["--name=run", f"--storage_path={tmp_path}"]
    begun = train(["toy", *SMALL, *APART, *MARKED, *name, "--total_steps=800"], nodes.environment())
    assert begun.returncode == 0, begun.stderr[-2000:]
    run = RunDirectory(tmp_path / "run")
    before = run.metrics()[-1]
    other = ["--resources.learners=0", "--resources.reward_actors=1", "--rollout.actors=1"]
    other += ["--resources.durable_on=none", "--resources.rollout_on=none", "--total_steps=1000"]
    resumed = train(["--resume", str(run.path), *other])
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    rows = run.metrics()
    after = next(row for row in rows if (row["env_steps"] or 0) > 800)
    assert rows[: rows.index(after)][-1]["env_steps"] == before["env_steps"] == 800
    for counter in ("labels", "answers", "sessions", "updates", "reward_version"):
        assert (after[counter] or 0) >= (before[counter] or 0) > 0
    assert run.summary()["labels"] == 12 and run.summary()["env_steps"] == 1000


def test_nodes_need_no_common_folder(nodes: Nodes, tmp_path: Path) -> None:
    """Learners and reward actors are on a machine with another disk; what they save comes back to them."""
    hide = f'mount -t tmpfs -o size=16m none {tmp_path} && exec "$@"'
    apart = ("unshare", "--mount", "sh", "-c", hide, "sh")
    if os.geteuid() != 0 or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a node with a disk of its own needs root")
    node = nodes.add(3, {"apart": 1}, through=apart)
    try:
        words = ["toy", *SMALL, *APART, "--resources.learners=2", "--resources.durable_on=apart", "--name=run"]
        words += [f"--storage_path={tmp_path}", "--checkpoint.interval=250"]
        begun = train([*words, "--total_steps=800"], nodes.environment())
        assert begun.returncode == 0, begun.stderr[-2000:]
        run = RunDirectory(tmp_path / "run")
        newest = max(run.checkpoints.glob("step-*"))
        inside = {str(path.relative_to(newest)) for path in newest.rglob("*.safetensors")}
        feedback = {"feedback/trajectories.safetensors", *(f"feedback/ensemble{i:03d}.safetensors" for i in range(2))}
        assert inside == {"learner.safetensors", "shard000.safetensors", "shard001.safetensors", *feedback}
        resumed = train(["--resume", str(run.path), "--total_steps=1000"], nodes.environment())
        assert resumed.returncode == 0, resumed.stderr[-2000:]
        assert run.summary()["labels"] == 12 and run.summary()["env_steps"] == 1000
    finally:
        nodes.kill(node)


@pytest.mark.slow
def test_the_curve_of_a_run_that_goes_on_elsewhere(nodes: Nodes, tmp_path: Path) -> None:
    """Killed on the cluster in the middle of the toy, it is solved with other learners and actors on this machine."""
    run = RunDirectory(tmp_path / "run")
    words = ["toy", *APART, *MARKED, "--name=run", f"--storage_path={tmp_path}", "--checkpoint.interval=500"]
    command = [sys.executable, "-m", "rayrlhf", "train", *words]
    with subprocess.Popen(command, env=nodes.environment(), stderr=subprocess.DEVNULL) as process:
        while not list(run.checkpoints.glob("step-*3000/manifest.json")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    other = ["--resources.learners=0", "--resources.reward_actors=1", "--rollout.actors=1"]
    resumed = train(["--resume", str(run.path), *other, "--resources.durable_on=none", "--resources.rollout_on=none"])
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    rows = run.metrics()
    steps = [row["env_steps"] for row in rows]
    assert steps[:-1] == sorted(set(steps[:-1])), "the last row is the final evaluation's"
    assert max(after - before for before, after in pairwise(steps)) <= 300
    evaluated = {row["env_steps"]: row["true_return_mean"] for row in rows if row.get("true_return_mean") is not None}
    assert sorted(round(step, -3) for step in evaluated) == [1000, 2000, 3000, 4000, 5000, 6000]
    assert run.summary()["labels"] == 150
    assert evaluated[max(evaluated)] > 35, "random answers come to 11 to 29, the true ones to 41 to 44"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_prefppo_goes_on_when_the_node_of_its_rollout_actors_is_lost(nodes: Nodes, tmp_path: Path) -> None:
    """In the middle of an iteration, which wants a fragment of each; another node comes later."""
    run = RunDirectory(tmp_path / "run")
    lost = nodes.add(2, {"brief": 1})
    words = ["toy_ppo", "--name=run", f"--storage_path={tmp_path}", "--resources.rollout_on=brief"]
    command = [sys.executable, "-m", "rayrlhf", "train", *words, "--total_steps=40000"]
    log = tmp_path / "log"
    with log.open("wb") as out, subprocess.Popen(command, env=nodes.environment(), stderr=out) as process:
        try:
            while not run.metrics_file.is_file() or (run.metrics()[-1:] or [{"env_steps": 0}])[0]["env_steps"] < 6000:
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.05)
            nodes.kill(lost)
            time.sleep(5)
            another = nodes.add(2, {"brief": 1})
            assert process.wait(280) == 0, log.read_text()[-2000:]
        finally:
            process.kill()
    nodes.kill(another)
    summary, rows = run.summary(), run.metrics()
    assert summary is not None and summary["env_steps"] >= 40_000 and summary["labels"] == 150
    steps = [row["env_steps"] for row in rows]
    assert steps[:-1] == sorted(set(steps[:-1])), "no round was counted twice"
    assert '"event": "lost"' in run.events_file.read_text()
