"""`bench query`: choosing questions, on segments of real MetaWorld episodes.

`k_center`: our running minimum against all distances computed anew for every pick. `disagreement`: candidate pairs
from segments to scores, against the bare forward pass of the ensemble over inputs that lie ready.
"""

from typing import Any

import torch

from rayrlhf import seeding
from rayrlhf.bench.data import real_fragment, store_of
from rayrlhf.bench.reference_queries import k_center_anew
from rayrlhf.bench.reference_reward import bare_forward, fastest_chunk, member_networks
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import alternate, confined
from rayrlhf.config import EnvOptions, RewardOptions, RunConfig
from rayrlhf.preferences.segments import Segments
from rayrlhf.queries import disagreement, draw_pairs, k_center
from rayrlhf.queries.selection import pair_features
from rayrlhf.rewards import RewardEnsemble

Pairs = tuple[Segments, Segments]


class QueryBench(DeviceOptions):
    """Options of `bench query`."""

    rounds: Count = 3
    candidates: Count = 1000
    centres: Count = 1000
    """Labelled pairs."""
    picks: Count = 100
    length: Count = 50
    steps: Count = 20_000
    """Of experience, in episodes of 500, from which segments are drawn."""
    members: Count = 3
    task: str = "drawer-open"


def run(**given: Any) -> dict[str, Any]:
    """Measures both parts."""
    options = options_from(QueryBench, given, "query")
    report = Report("query", options.chosen_device)
    with confined(options.threads):
        store = store_of(real_fragment(RunConfig(env=EnvOptions(task=options.task)), options.steps))
        rng = seeding.generator(0, "bench", "query")
        candidates = draw_pairs(store, options.candidates, options.length, rng)
        labelled = draw_pairs(store, options.centres, options.length, rng)
        _measure_k_center(report, options, candidates, labelled)
        _measure_disagreement(report, options, candidates)
        return report.as_dict()


def _measure_k_center(report: Report, options: QueryBench, candidates: Pairs, labelled: Pairs) -> None:
    points = pair_features(*candidates).to(report.device)
    centres = pair_features(*labelled).to(report.device)
    picked: dict[str, list[int]] = {}

    def ours() -> float:
        picked["ours"] = k_center(points, centres, options.picks).tolist()
        return float(options.picks)

    def anew() -> float:
        picked["anew"] = k_center_anew(points, centres, options.picks)
        return float(options.picks)

    warm_up = 1 if report.device == "cuda" else 0  # the reference takes long on a CPU, and has nothing to wake there
    rates = alternate({"ours": ours, "anew": anew}, rounds=options.rounds, warm_up=warm_up, clock=options.clock)
    against = "torch.cdist from all candidates to all centres, anew for every pick"
    report.add("k_center", rates, "ours", "anew", unit="picks/s", against=against)
    same = sum(a == b for a, b in zip(picked["ours"], picked["anew"], strict=True))
    report.notes["k_center"] = {"same_picks": same, "picks": options.picks}


def _measure_disagreement(report: Report, options: QueryBench, candidates: Pairs) -> None:
    device, reward = report.device, RewardOptions(members=options.members)
    left, right = candidates
    widths = left.obs.shape[2], left.action.shape[2]
    ensemble = RewardEnsemble(reward, *widths, seed=0, device=device)
    networks = member_networks(reward, ensemble.weights(), device)
    inputs = torch.cat([_inputs(left), _inputs(right)]).to(device)
    chunk = fastest_chunk(networks, inputs)
    pairs = float(len(left))
    scores: dict[str, torch.Tensor] = {}

    def ours() -> float:
        scores["ours"] = disagreement(torch.sigmoid(ensemble.pair_logits(left, right))).cpu()
        return pairs

    def bare() -> float:
        scores["bare"] = bare_forward(networks, inputs, chunk)
        return pairs

    rates = alternate({"ours": ours, "bare": bare}, rounds=2 * options.rounds, clock=options.clock)
    against = f"the bare forward pass of {options.members} plain networks, inputs ready, {chunk} rows a pass (fastest)"
    report.add("disagreement", rates, "ours", "bare", unit="pairs/s", against=against)
    sums = scores["bare"].view(options.members, 2, len(left), options.length).sum(-1)
    expected = torch.sigmoid(sums[:, 1] - sums[:, 0]).std(dim=0, correction=0).cpu()
    report.notes["disagreement"] = {"largest_difference": float((scores["ours"] - expected).abs().max())}


def _inputs(side: Segments) -> torch.Tensor:
    both = torch.cat([torch.from_numpy(side.obs), torch.from_numpy(side.action)], dim=-1)
    return both.flatten(0, 1)
