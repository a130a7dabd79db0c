"""`bench methods`: what the methods of label efficiency cost, against plain PEBBLE with the same networks and batches.

Updates: RUNE adds a gather and a product of two columns, QPA draws half of each batch from the newest rows, MRN now and
then differentiates through an update of the critic, steps the ensemble and relabels the whole replay. Fits: SURF learns
from four pairs that nobody was asked about beside each label, and from segments with context, so that what counts is
time for a pair used; RIME has all members predict all labels before each epoch.
"""

from typing import Any

import numpy as np

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, filled_learner, random_fragment
from rayrlhf.bench.report import Case, Count, DeviceOptions, Report, options_from
from rayrlhf.bench.reward import made_up_labels
from rayrlhf.bench.timing import Side, alternate, confined
from rayrlhf.config import EnvOptions, ExploreOptions, RewardOptions, SacOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.rewards import Episodes, RewardEnsemble

PLAIN = "plain PEBBLE"
FIT = "a fit of plain PEBBLE"
EPISODES, EPISODE = 100, 500


class MethodsBench(DeviceOptions):
    """Options of `bench methods`."""

    rounds: Count = 5
    rows: Count = 100_000
    """Of the replay."""
    labels: Count = 500
    length: Count = 50
    members: Count = 3
    hidden: tuple[Count, ...] = (256, 256, 256)
    batch_size: Count = 512
    updates: Count | None = None
    """In a portion; none: 20, on a GPU 500."""
    meta_interval: Count = 1000
    """Updates between two of MRN's outer steps."""


def run(**given: Any) -> dict[str, Any]:
    """Measures updates, then fits."""
    options = options_from(MethodsBench, given, "methods")
    report = Report("methods", options.chosen_device)
    with confined(options.threads):
        _measure_updates(report, options)
        _measure_fits(report, options)
        return report.as_dict()


def _measure_updates(report: Report, options: MethodsBench) -> None:
    fragment = random_fragment(options.rows, episode=EPISODE)
    reward = RewardOptions(members=options.members, hidden=options.hidden)
    ensemble = RewardEnsemble(reward, OBS_DIM, ACTION_DIM, seed=0, device=report.device)
    labels = made_up_labels(50, 1)
    many = options.updates or (500 if report.device == "cuda" else 20)
    rune = ExploreOptions(seed_steps=0, unsupervised_steps=0, spread_weight=0.05)
    learners = {
        "plain": _learner(fragment, options, reward, ensemble),
        "rune": _learner(fragment, options, reward, ensemble, explore=rune),
        "qpa": _learner(fragment, options, reward, ensemble, recent_share=0.5),
    }

    def updates(name: str) -> Side:
        def side() -> float:
            learners[name].learn(many, options.rows, True)
            return float(many)

        return side

    def outer_step() -> float:
        gradients, _ = learners["plain"].outer_gradients(labels)
        ensemble.step(gradients)
        learners["plain"].reward_with("ensemble", ensemble.weights(), 1)
        return 1.0

    sides: dict[str, Side] = {name: updates(name) for name in learners} | {"outer": outer_step}
    rates = alternate(sides, rounds=options.rounds, clock=options.clock)
    for name in ("rune", "qpa"):
        report.add(f"{name}_updates", rates, name, "plain", unit="updates/s", against=PLAIN)
    plain, interval = rates.median("plain"), options.meta_interval
    whole = interval / (interval / plain + 1 / rates.median("outer"))
    report.cases["mrn_updates"] = Case(whole, plain, "updates/s", f"{PLAIN}; an outer step each {interval:,} updates")
    report.notes["mrn_outer_step_seconds"] = 1 / rates.median("outer")


def _learner(
    fragment: Fragment,
    options: MethodsBench,
    reward: RewardOptions,
    ensemble: RewardEnsemble,
    *,
    recent_share: float = 0.0,
    **others: Any,
) -> Any:
    sac = SacOptions(hidden=options.hidden, batch_size=options.batch_size, recent_share=recent_share)
    env = EnvOptions(horizon=EPISODE)
    learner = filled_learner(
        fragment, sac, threads=options.threads, device=options.chosen_device, reward=reward, env=env, **others
    )
    learner.reward_with("ensemble", ensemble.weights(), 1)
    return learner


def _measure_fits(report: Report, options: MethodsBench) -> None:
    labels = made_up_labels(options.labels, options.length)
    plain = RewardOptions(members=options.members, hidden=options.hidden)
    surf = plain.model_copy(update={"crop": 5, "unlabelled": 4})
    sides = {
        "plain": _epochs(plain, labels, report.device),
        "surf": _epochs(surf, labels, report.device),
        "rime": _epochs(plain.model_copy(update={"denoise": True}), labels, report.device),
    }
    rates = alternate(sides, rounds=options.rounds, clock=options.clock)
    report.add("surf_fit", rates, "surf", "plain", unit="pairs/s", against=FIT)
    report.add("rime_fit", rates, "rime", "plain", unit="pairs/s", against=FIT)


def _epochs(reward: RewardOptions, labels: Labels, device: str) -> Side:
    """An epoch a portion; its pairs are the labels it kept and those that nobody was asked about."""
    ensemble = RewardEnsemble(reward, OBS_DIM, ACTION_DIM, seed=0, device=device)
    fragment = random_fragment(EPISODES * EPISODE, episode=EPISODE)
    rows = np.concatenate([fragment.obs[:, 0], fragment.action[:, 0]], axis=1)
    ensemble.take_unlabelled(Episodes(rows, np.full(EPISODES, EPISODE)))
    steps = -(-len(labels) // reward.batch_size)
    unlabelled = steps * reward.unlabelled * min(reward.batch_size, len(labels))

    def side() -> float:
        return float(ensemble.fit_epoch(labels).kept + unlabelled)

    return side
