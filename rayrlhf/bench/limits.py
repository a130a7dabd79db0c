"""`bench limits`: where the time of a run goes on this device, and how far each part is from what the device can do.

A part's case is its arithmetic per second, counted from the sizes of its networks (products of matrices and distances
alone), against the product of two large float32 matrices in the same run; gathering is bytes per second against a
copy. The table has the milliseconds of one call, how many calls a run has, and what they add up to, one after the
other: for PEBBLE's published settings unless told otherwise. A minibatch of PPO, whose networks have the same layers,
is beside them, and no call of that run. Rollouts, evaluations and Ray are not in it (`bench rollout`, `bench end2end`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, filled_learner, random_fragment
from rayrlhf.bench.learner import PPO_ENVS, PPO_STEPS, acted, ppo_learner_of
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.reward import made_up_labels
from rayrlhf.bench.timing import Side, alternate, confined
from rayrlhf.config import (
    ExploreOptions,
    PpoOptions,
    QueryOptions,
    RewardOptions,
    RunConfig,
    SacOptions,
)
from rayrlhf.exploration.state_entropy import StateEntropy
from rayrlhf.rewards import RewardEnsemble

ARITHMETIC, MEMORY = "product", "copy"
"""The two limits, by the names of their sides."""
UNITS = {ARITHMETIC: "GFLOP/s", MEMORY: "GB/s"}
AGAINST = {ARITHMETIC: "the product of two large float32 matrices", MEMORY: "a copy of a large tensor"}
FLOAT = 4
"""Bytes."""


class LimitsBench(DeviceOptions):
    """Options of `bench limits`."""

    rounds: Count = 5
    hidden: tuple[Count, ...] = (256, 256, 256)
    batch_size: Count = 512
    steps: Count = 1_000_000
    """Of the run whose calls are counted; one update each."""
    budget: Count = 4000
    """Its labels, as in `queries.budget`."""
    rows: Count = 500_000
    """In the replay, and scored when it is relabelled: on average half the steps."""
    states: Count = 10_000
    """Visited in the unsupervised phase."""
    matrix: Count | None = None
    """Rows of the large matrices; none: 1024 on a CPU, 8192 on a GPU."""


@dataclass(frozen=True)
class _Part:
    """One kind of call.

    call:  does it    calls: in the run    work: FLOP or bytes of one    limit: which of the two
    many:  calls per portion that is timed
    """

    call: Callable[[int], Any]
    calls: float
    work: float
    limit: str = ARITHMETIC
    many: int = 1


def run(**given: Any) -> dict[str, Any]:
    """Measures all parts in turn."""
    options = options_from(LimitsBench, given, "limits")
    report = Report("limits", options.chosen_device)
    with confined(options.threads):
        parts = _parts(options, report.device)
        sides = {name: _portion(part) for name, part in parts.items()} | _limits(options, report.device)
        rates = alternate(sides, rounds=options.rounds, clock=options.clock)
    rows = []
    for name, part in parts.items():
        report.add(name, rates, name, part.limit, unit=UNITS[part.limit], against=AGAINST[part.limit])
        seconds = part.work / (1e9 * rates.median(name))
        rows.append((name, seconds, part.calls))
    all_of = {name: seconds * calls for name, seconds, calls in rows}
    whole = sum(all_of.values())
    report.notes["seconds"] = all_of
    table = [
        [name, f"{1000 * one:.3g}", f"{calls:,.0f}", f"{all_of[name] / 60:.2f}", f"{all_of[name] / whole:.1%}"]
        for name, one, calls in rows
    ]
    columns = ["part", "ms a call", f"calls in {options.steps:,} steps", "minutes", "share"]
    return report.as_dict() | {"table": {"columns": columns, "rows": table}}


def _portion(part: _Part) -> Side:
    def side() -> float:
        part.call(part.many)
        return part.many * part.work / 1e9

    return side


def _limits(options: LimitsBench, device: str) -> dict[str, Side]:
    count = options.matrix or (8192 if device == "cuda" else 1024)
    one, other = (torch.randn(count, count, device=device) for _ in range(2))
    source = torch.randn(64 * count, 128, device=device)
    target = torch.empty_like(source)

    def product() -> float:
        torch.mm(one, other)
        return 2 * count**3 / 1e9

    def copy() -> float:
        target.copy_(source)
        return 2 * source.nbytes / 1e9

    return {ARITHMETIC: product, MEMORY: copy}


def _parts(options: LimitsBench, device: str) -> dict[str, _Part]:
    hidden, batch = options.hidden, options.batch_size
    reward = RewardOptions(hidden=hidden)
    queries = QueryOptions(budget=options.budget)
    sac, fragment = SacOptions(hidden=hidden, batch_size=batch), random_fragment(options.rows)
    learner = filled_learner(fragment, sac, threads=options.threads, device=device, reward=reward)
    ensemble = RewardEnsemble(reward, OBS_DIM, ACTION_DIM, seed=0, device=device)
    weights = ensemble.weights()
    labels = made_up_labels(options.budget // 2, queries.segment_length)
    states = torch.randn(options.states, OBS_DIM, device=device)
    index = torch.randint(options.rows, (batch,), device=device)
    on_a_gpu = device == "cuda"

    actor = _products(OBS_DIM, *hidden, 2 * ACTION_DIM)
    critic = _products(OBS_DIM + ACTION_DIM, *hidden, 1)
    scored = reward.members * _products(OBS_DIM + ACTION_DIM, *hidden, 1)
    sessions = options.budget / queries.per_session
    # forward 1, backward 2, backward to the inputs alone 1; both targets, both critics, both in the actor's loss
    update = 2 * batch * ((2 + 6 + 4) * critic + (1 + 3) * actor)
    return {
        "update": _Part(learner.learn, options.steps, update, many=100 if on_a_gpu else 5),
        "gather (in the update)": _Part(
            partial(_repeat, lambda: learner.replay.gather(index)),
            0,
            2 * batch * FLOAT * (2 * OBS_DIM + ACTION_DIM + 2),
            limit=MEMORY,
            many=100,
        ),
        "relabel": _Part(
            partial(_repeat, lambda: learner.reward_with("ensemble", weights, 1)), sessions, 2 * options.rows * scored
        ),
        "an epoch of a fit": _Part(
            partial(_repeat, lambda: ensemble.fit_epoch(labels)),
            sessions * reward.epochs,
            2 * 3 * 2 * len(labels) * queries.segment_length * scored,
        ),
        "state entropy": _Part(
            partial(_repeat, lambda: _visited(states, device)), 1, 3 * OBS_DIM * options.states**2 / 2
        ),
        "a minibatch of PPO": _ppo(options, device),
    }


def _ppo(options: LimitsBench, device: str) -> _Part:
    ppo = PpoOptions(hidden=options.hidden)
    learner = ppo_learner_of(ppo, threads=options.threads, device=device)
    fragment = acted(random_fragment(PPO_ENVS * PPO_STEPS))
    minibatches = PPO_ENVS * PPO_STEPS // ppo.batch_size

    def learn(many: int) -> None:
        learner.insert([fragment])
        learner.learn(many // minibatches, minibatches, ppo.clip)

    products = _products(OBS_DIM, *options.hidden, ACTION_DIM) + _products(OBS_DIM, *options.hidden, 1)
    return _Part(learn, 0, 2 * 3 * ppo.batch_size * products, many=2 * minibatches)


def _products(*widths: int) -> int:
    """Multiplications of one row in an MLP's forward pass."""
    return sum(before * after for before, after in pairwise(widths))


def _repeat(call: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        call()


def _visited(states: torch.Tensor, device: str) -> None:
    entropy = StateEntropy(OBS_DIM, ExploreOptions().neighbours, capacity=len(states), device=device)
    steps = RunConfig().rollout.round_steps
    for start in range(0, len(states), steps):
        entropy.add(states[start : start + steps])
