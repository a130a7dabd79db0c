"""`bench reward`: fitting the ensemble to labels, against the two usual ways of writing it.

All three start from the same weights and see the same pairs in the same orders, so that their loss curves must agree;
where they do not, the comparison is void and an error says so.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf import seeding
from rayrlhf.bench.data import ACTION_DIM, OBS_DIM
from rayrlhf.bench.reference_reward import LoopedFit, StackedFit
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import Side, alternate, confined
from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.rewards.fit import shuffles

LOOP = "a loop over members: a batch's pairs in one forward pass, autograd, Adam"
STACKED = "all members in one stacked product: baddbmm, autograd, Adam"
CURVES_AGREE = 0.02
"""Largest relative difference of two loss curves: rounding, grown over the epochs."""


class RewardBench(DeviceOptions):
    """Options of `bench reward`."""

    rounds: Count = 5
    labels: Count = 500
    length: Count = 50
    members: Count = 3
    batch_size: Count = 128
    hidden: tuple[Count, ...] = (256, 256, 256)
    epochs: Count = 1
    """Per portion."""


def run(**given: Any) -> dict[str, Any]:
    """Measures fits of one set of labels."""
    options = options_from(RewardBench, given, "reward")
    report = Report("reward", options.chosen_device)
    with confined(options.threads):
        _measure(report, options)
        return report.as_dict()


def _measure(report: Report, options: RewardBench) -> None:
    reward = RewardOptions(members=options.members, batch_size=options.batch_size, hidden=options.hidden)
    labels = made_up_labels(options.labels, options.length)
    curves: dict[str, list[list[float]]] = {"ours": [], "loop": [], "stacked": []}
    sides = fits(reward, labels, curves, epochs=options.epochs, device=report.device)
    rates = alternate(sides, rounds=options.rounds, clock=options.clock)
    report.notes["curves"] = {name: np.mean(curve, axis=1).tolist() for name, curve in curves.items()}
    apart = _largest_difference(curves)
    report.notes["curves_apart"] = apart
    if apart > CURVES_AGREE:
        raise RuntimeError(f"the loss curves of the three fits differ by {apart:.1%}: they did not do the same work")
    faster = max(("loop", "stacked"), key=rates.median)
    report.add("fit", rates, "ours", faster, unit="pairs/s", against=LOOP if faster == "loop" else STACKED)
    report.add("fit_loop", rates, "ours", "loop", unit="pairs/s", against=LOOP)
    report.add("fit_stacked", rates, "ours", "stacked", unit="pairs/s", against=STACKED)


def fits(
    reward: RewardOptions, labels: Labels, curves: dict[str, list[list[float]]], *, epochs: int, device: str
) -> dict[str, Side]:
    """The three sides; each appends its members' losses of every epoch to its curve."""
    ensemble = RewardEnsemble(reward, OBS_DIM, ACTION_DIM, seed=0, device=device)
    weights = ensemble.weights()
    pairs = torch.from_numpy(np.stack([_inputs(labels.left), _inputs(labels.right)], axis=1)).to(device)
    target = torch.from_numpy(labels.target).to(device)
    plain: dict[str, LoopedFit | StackedFit] = {
        "loop": LoopedFit(reward, weights, device),
        "stacked": StackedFit(reward, weights, device),
    }

    def ours() -> float:
        for _ in range(epochs):
            curves["ours"].append(ensemble.fit_epoch(labels).loss.tolist())
        return float(epochs * len(labels))

    def reference(name: str) -> Side:
        def side() -> float:
            for _ in range(epochs):
                orders = _orders(len(labels), reward.members, epoch=len(curves[name]))
                curves[name].append(plain[name].epoch(pairs, target, orders))
            return float(epochs * len(labels))

        return side

    return {"ours": ours, "loop": reference("loop"), "stacked": reference("stacked")}


def _orders(count: int, members: int, *, epoch: int) -> NDArray[np.int64]:
    """The ensemble's own shuffles of epoch `epoch`."""
    return shuffles(range(members), count, lambda member: seeding.generator(0, "reward", member, "shuffle", epoch))


def _inputs(side: Segments) -> NDArray[np.float32]:
    return np.concatenate([side.obs, side.action], axis=-1)


def _largest_difference(curves: dict[str, list[list[float]]]) -> float:
    ours = np.array(curves["ours"])
    others = [np.array(curves[name]) for name in ("loop", "stacked")]
    return float(max(np.abs(other / ours - 1).max() for other in others))


def made_up_labels(count: int, length: int, *, seed: int = 0) -> Labels:
    """Pairs of random segments, answered by a hidden linear reward."""
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal(OBS_DIM + ACTION_DIM).astype(np.float32)
    left, right = (_segments(count, length, rng) for _ in range(2))
    better = (_inputs(right) @ taste).sum(1) > (_inputs(left) @ taste).sum(1)
    return Labels(left, right, better.astype(np.float32))


def _segments(count: int, length: int, rng: np.random.Generator) -> Segments:
    return Segments(
        obs=rng.standard_normal((count, length, OBS_DIM), dtype=np.float32),
        action=rng.uniform(-1, 1, (count, length, ACTION_DIM)).astype(np.float32),
        reward=np.zeros((count, length), np.float32),
        success=np.zeros((count, length), bool),
        episode=np.arange(count, dtype=np.int64),
        start=np.zeros(count, np.int64),
    )
