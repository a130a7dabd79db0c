"""The benchmarks that lose things, in little: real nodes, a real S3 protocol, real kills."""

import pytest

from rayrlhf.bench import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_faults() -> None:
    """What dies with its run is resumed by one command; what does not goes on by itself; no answer is lost."""
    found = run("faults", only=("rollout", "driver", "renderer", "storage"), times=1)
    by_itself = {fault: notes[0]["by_itself"] for fault, notes in found["notes"].items()}
    assert by_itself == {"rollout": True, "driver": False, "renderer": True, "storage": True}
    assert all(notes[0]["answers_lost"] == 0 for notes in found["notes"].values())
    assert len(found["table"]["rows"]) == 4


def test_chaos() -> None:
    """Nothing is left of a run that lost processes until Ctrl-C."""
    found = run("chaos", minutes=2.0, every_seconds=20.0, checkpoint_seconds=5.0, episodes=2)["notes"]
    assert sum(found["killed"].values()) >= 3
    assert (found["answers_lost"], found["left"], found["orphans"]) == (0, 0, 0)


def test_a_cluster_costs_something() -> None:
    found = run("cluster", rounds=1, preset="toy", overrides=("total_steps=1500",))
    assert found["cases"]["train"]["ratio"] > 0
