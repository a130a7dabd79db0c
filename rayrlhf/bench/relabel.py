"""`bench relabel`: a whole replay's rewards recomputed by the learner, against the bare forward pass.

Ours is what a session's end calls: new weights taken in, every row of the resident replay scored, the reward column
written. The reference has its inputs concatenated beforehand and only runs the networks, in whichever chunks are
fastest on this machine.
"""

from typing import Any

import torch

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, filled_learner, random_fragment
from rayrlhf.bench.reference_reward import bare_forward, fastest_chunk, member_networks
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import alternate, confined
from rayrlhf.config import RewardOptions, SacOptions
from rayrlhf.rewards import RewardEnsemble


class RelabelBench(DeviceOptions):
    """Options of `bench relabel`."""

    rounds: Count = 3
    rows: Count = 1_000_000
    members: Count = 3
    hidden: tuple[Count, ...] = (256, 256, 256)


def run(**given: Any) -> dict[str, Any]:
    """Measures one replay."""
    options = options_from(RelabelBench, given, "relabel")
    report = Report("relabel", options.chosen_device)
    with confined(options.threads):
        _measure(report, options)
        return report.as_dict()


def _measure(report: Report, options: RelabelBench) -> None:
    device = report.device
    reward = RewardOptions(members=options.members, hidden=options.hidden)
    weights = RewardEnsemble(reward, OBS_DIM, ACTION_DIM, seed=0).weights()
    fragment = random_fragment(options.rows)
    learner = filled_learner(fragment, SacOptions(), threads=options.threads, device=device, reward=reward)
    columns = learner.replay.columns
    inputs = torch.cat([columns["obs"], columns["action"]], dim=1)[: options.rows]
    networks = member_networks(reward, weights, device)
    chunk = fastest_chunk(networks, inputs)

    def ours() -> float:
        learner.reward_with("ensemble", weights, 1)
        return float(learner.replay.size)

    def bare() -> float:
        bare_forward(networks, inputs, chunk)
        return float(len(inputs))

    rates = alternate({"ours": ours, "bare": bare}, rounds=options.rounds, warm_up=1, clock=options.clock)
    against = f"the bare forward pass of {options.members} plain networks, inputs ready, {chunk} rows a pass (fastest)"
    report.add(f"{options.rows}_transitions", rates, "ours", "bare", unit="transitions/s", against=against)
    expected = bare_forward(networks, inputs[:1000], chunk).mean(0)
    report.notes["largest_difference"] = float((learner.replay.reward[: len(expected)] - expected).abs().max())
