"""Which processes a run has, and whether a cluster has room for them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import changed

from rayrlhf.config import RunConfig
from rayrlhf.config.load import load_config, preset_names
from rayrlhf.placement import MARK, Placement, Process, placement_of

AMOUNTS = st.sampled_from([0.0, 0.1, 0.5, 0.6, 1.0, 2.0])
NEEDS = st.dictionaries(st.sampled_from(["CPU", "GPU", "spot"]), AMOUNTS.filter(bool), max_size=2)


def placeable(bundles: list[dict[str, float]], nodes: list[dict[str, float]]) -> bool:
    """Whether any way to deal out `bundles` fits, by trying all. A share of a GPU is of one that a node has."""
    for way in itertools.product(range(len(nodes)), repeat=len(bundles)):
        shares = [
            [bundle["GPU"] for bundle, index in zip(bundles, way, strict=True) if index == number and "GPU" in bundle]
            for number in range(len(nodes))
        ]
        if not all(on_gpus(mine, node.get("GPU", 0.0)) for mine, node in zip(shares, nodes, strict=True)):
            continue
        free = [dict(node) for node in nodes]
        for bundle, index in zip(bundles, way, strict=True):
            for name, amount in bundle.items():
                free[index][name] = free[index].get(name, 0.0) - amount
        if all(amount >= -1e-6 for node in free for amount in node.values()):
            return True
    return False


def on_gpus(wanted: list[float], there: float) -> bool:
    """The same of one node's GPUs."""
    gpus = [min(1.0, there - i) for i in range(math.ceil(there))]
    for way in itertools.product(range(len(gpus)), repeat=sum(math.ceil(one) for one in wanted)):
        free, cards = list(gpus), iter(way)
        for one in wanted:
            for _ in range(math.ceil(one)):
                free[next(cards)] -= min(one, 1.0)
        if all(amount >= -1e-6 for amount in free):
            return True
    return not wanted


@given(st.lists(NEEDS, max_size=4), st.lists(NEEDS, max_size=3))
def test_what_is_said_to_fit_does(needs: list[dict[str, float]], nodes: list[dict[str, float]]) -> None:
    processes = [Process(f"role{i}", 1, one) for i, one in enumerate(needs)]
    placement = Placement((Process("driver", 1, {"CPU": 99.0}), *processes))
    if placement.misfit(nodes) is None:
        assert not needs or placeable(needs, nodes)
    elif len(needs) == 1:
        assert not placeable(needs, nodes), "one process: dealing out is no question of order"


def test_shares_of_gpus_do_not_add_up_over_several() -> None:
    def misfit(count: int, gpus: float, nodes: list[dict[str, float]]) -> str | None:
        return Placement((Process("driver", 1, {}), Process("reward", count, {"GPU": gpus}))).misfit(nodes)

    assert misfit(2, 0.6, [{"GPU": 2.0}]) is None
    assert misfit(3, 0.6, [{"GPU": 2.0}]) is not None, "three shares of 0.6 want three cards"
    assert misfit(4, 0.5, [{"GPU": 2.0}]) is None
    assert misfit(1, 2.0, [{"GPU": 2.0}]) is None
    assert misfit(1, 2.0, [{"GPU": 1.0}, {"GPU": 1.0}]) is not None
    assert misfit(1, 1.0, [{"GPU": 0.9}]) is not None


def test_what_asks_for_nothing_takes_no_place_in_a_trial(small_run: RunConfig) -> None:
    run = changed(small_run, resources={"reward_cpus": 0.0}, rollout={"actors": 1})
    assert placement_of(run).bundles() == [{"CPU": 0.5}, {"CPU": 0.5}]


def test_the_roles_of_a_run(small_run: RunConfig) -> None:
    resources = {"learners": 2, "gpus_per_learner": 1.0, "learner_cpus": 3.0, "reward_actors": 2, "reward_gpus": 0.25}
    run = changed(small_run, resources=resources | {"rollout_on": "spot", "durable_on": "kept"})
    run = changed(run, rollout={"actors": 3}, reward={"members": 2}, teacher={"name": "human"})
    kept = {"kept": MARK}
    assert placement_of(run).bundles() == [
        {"CPU": 0.5} | kept,
        *[{"CPU": 0.5, "spot": MARK}] * 3,
        *[{"CPU": 3.0, "GPU": 1.0} | kept] * 2,
        *[{"CPU": 0.1, "GPU": 0.25} | kept] * 2,
        {"CPU": 0.1} | kept,
    ]
    seeing = changed(small_run, teacher={"name": "my.module:Mine", "clips": True})
    assert [process.role for process in placement_of(seeing).processes] == ["driver", "rollout", "reward", "renderer"]
    oracle = changed(small_run, mode="oracle", resources={"gpus_per_learner": 1.0}, rollout={"actors": 0})
    assert placement_of(oracle).bundles() == [{"CPU": 0.5, "GPU": 1.0}]


@pytest.mark.parametrize("preset", preset_names())
def test_a_trial_of_each_preset_fits_two_cpus(preset: str) -> None:
    placement = placement_of(load_config(preset))
    assert placement.cpus() <= 2.0
    assert placement.misfit([{"CPU": 2.0}]) is None


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([], "no node has the 2 CPUs, 1 GPU that learner wants; there is no node"),
        ([{"CPU": 8.0}] * 2, "no node has the resource GPU, which learner wants"),
        (
            [{"CPU": 1.0, "GPU": 4.0}, {"CPU": 1.5}],
            "no node has the 2 CPUs, 1 GPU that learner wants; there is 1 CPU and 4 GPUs",
        ),
        (
            [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 4.0}],
            "there is room for 0 of 1 reward processes (0.1 CPU each): the run wants 7.1 CPUs, 1 GPU, there is 3",
        ),
    ],
)
def test_why_a_run_does_not_fit(small_run: RunConfig, nodes: list[dict[str, float]], wanted: str) -> None:
    resources = {"learners": 1, "gpus_per_learner": 1.0, "learner_cpus": 2.0, "rollout_cpus": 1.0}
    run = changed(small_run, rollout={"actors": 5}, resources=resources)
    problem = placement_of(run).misfit(nodes)
    assert problem is not None and problem.startswith(wanted)
    assert placement_of(run).misfit([{"CPU": 8.0, "GPU": 1.0}]) is None
