"""`bench few_shot`: how many labels of a new task weights that were pre-trained over other tasks save.

Reward models are fitted to ever more labels of tasks that the pre-training has not seen, and asked about other draws of
these: from the pre-trained weights with the learnt rates (few-shot), from the same weights as PEBBLE fits (the paper's
init baseline), and from nothing. `part=toy` pre-trains for the suite `toy_few_shot` of `bench metaworld`: over people
who want random things of the point.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rayrlhf.bench.report import Case, Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import confined
from rayrlhf.bench.wishes import wishes
from rayrlhf.config import RewardOptions
from rayrlhf.config.load import load_config
from rayrlhf.config.meta import MetaOptions
from rayrlhf.config.recipe import Episodes, Recipe
from rayrlhf.config.tasks import tasks_in
from rayrlhf.fitting.tasks import labels_by_session
from rayrlhf.generating import generate
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.rewards.members import Arrays
from rayrlhf.rewards.pretraining import Look, Pretraining
from rayrlhf.rewards.stored import FILE, RewardModel
from rayrlhf.seeding import generator

HOW = ("few_shot", "init", "fresh")


class FewShotBench(DeviceOptions):
    """Options of `bench few_shot`."""

    part: Literal["metaworld", "toy"] = "metaworld"
    tasks: str = "ml10-train"
    new_tasks: str = "window-close, drawer-open, door-close"
    draws: Count = 6
    pairs: Count = 200
    """Of each draw."""
    horizon: Count = 200
    members: Count = 3
    hidden: tuple[Count, ...] = (128, 128)
    steps: Count = 1000
    """Outer steps at most."""
    inner_lr: float = 0.01
    lr: float = 3e-4
    labels: tuple[Count, ...] = (4, 8, 16, 32, 64, 128, 256)
    """How many of a new task are learnt from."""
    epochs: Count = 50
    """Of a fit, at most."""
    seeds: Count = 3
    """Which labels these are, and where fresh networks begin."""
    data: str = "runs/bench/few_shot"
    """Folder of preferences and weights; preferences that are there are not made again."""


def run(**given: Any) -> dict[str, Any]:
    """Makes the preferences, pre-trains, fits to ever more labels."""
    options = options_from(FewShotBench, given, "few_shot")
    report = Report("few_shot", options.chosen_device)
    toy = options.part == "toy"
    tasks = wishes(60, options.pairs) if toy else _preferences(options, options.tasks, seed=0)
    known = _reward(options)
    with confined(options.threads):
        weights = _pretrained(tasks, options, known, report)
        if toy:
            return report.as_dict()
        curves = {name: _curves(own, options, weights) for name, own in _new_tasks(options).items()}
    _sum_up(report, options, curves)
    return report.as_dict()


def _reward(options: FewShotBench) -> RewardOptions:
    """The reward model; the toy's is that of its preset."""
    if options.part == "toy":
        return load_config("toy").reward
    return RewardOptions(
        members=options.members,
        hidden=options.hidden,
        epochs=options.epochs,
        batch_size=32,
        normalize_inputs=True,
    )


def _preferences(options: FewShotBench, tasks: str, *, seed: int) -> list[Labels]:
    recipe = Recipe(
        tasks=tasks,
        without=options.new_tasks if seed == 0 else "",
        draws=options.draws,
        episodes=Episodes(expert=3, within=3, cross=4, random=1),
        pairs=options.pairs,
        horizon=options.horizon,
        seed=seed,
    )
    folder = Path(options.data) / recipe.name
    generate(recipe, str(folder), _say)
    return labels_by_session(PreferenceDataset(folder))


def _new_tasks(options: FewShotBench) -> dict[str, tuple[Labels, Labels]]:
    """By name: labels to learn from, of most draws, and to be asked about, of the others."""
    names = tasks_in(options.new_tasks)
    draws = _preferences(options, options.new_tasks, seed=1)
    found = {}
    for number, name in enumerate(names):
        own = draws[number * options.draws : (number + 1) * options.draws]
        kept = max(1, options.draws // 3)
        found[name] = Labels.concatenate(own[kept:]), Labels.concatenate(own[:kept])
    return found


def _pretrained(tasks: Sequence[Labels], options: FewShotBench, reward: RewardOptions, report: Report) -> Arrays:
    """The weights, which are left in the folder of the data, too."""
    meta = MetaOptions(
        inner_lr=options.inner_lr,
        lr=options.lr,
        steps=options.steps,
        evaluate_every=50,
        patience=10,
    )
    training = Pretraining(tasks, reward, meta, [report.device])
    begin = time.perf_counter()
    weights, looks = training.run(_tell)
    seconds = time.perf_counter() - begin
    best = min(looks, key=lambda look: look.loss)
    report.cases["held_out_tasks"] = Case(
        best.accuracy, looks[0].accuracy, "of answers", "untrained networks after the same adaptation"
    )
    report.notes["pretraining"] = {
        "tasks": len(training.training),
        "held_out_tasks": len(training.held_out),
        "steps": training.step,
        "best_step": best.step,
        "seconds": seconds,
        "accuracy_before_labels": best.before,
    }
    folder = Path(options.data) / options.part
    folder.mkdir(parents=True, exist_ok=True)
    RewardModel(reward, training.obs_dim, training.action_dim, weights).save(folder / FILE)
    report.notes["weights"] = str(folder)
    return weights


def _curves(task: tuple[Labels, Labels], options: FewShotBench, meta: Arrays) -> dict[str, NDArray[np.float64]]:
    """Accuracy `[seeds, labels]` by how the model was fitted."""
    found = {how: np.zeros((options.seeds, len(options.labels))) for how in HOW}
    learnt, asked = task
    for seed in range(options.seeds):
        order = generator(seed, "bench", "few_shot").permutation(len(learnt))
        for place, count in enumerate(options.labels):
            labels = learnt.take(order[:count])
            for how in HOW:
                found[how][seed, place] = _accuracy(how, labels, asked, options, meta, seed)
    return found


def _accuracy(how: str, labels: Labels, asked: Labels, options: FewShotBench, meta: Arrays, seed: int) -> float:
    adaptation = "inner" if how == "few_shot" else "adam"
    reward = _reward(options).model_copy(update={"adaptation": adaptation})
    widths = labels.left.obs.shape[2], labels.left.action.shape[2]
    ensemble = RewardEnsemble(reward, *widths, seed=seed, device=options.chosen_device)
    if how != "fresh":
        ensemble.begin_from(meta)
    ensemble.fit(labels)
    said = ensemble.probabilities(asked).mean(0) > 0.5
    return float((said == (asked.target > 0.5)).mean())


def _sum_up(report: Report, options: FewShotBench, curves: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    """By task the curves, and the few-shot model beside a fresh one that has four times the labels."""
    for name, by_how in curves.items():
        means = {how: found.mean(0) for how, found in by_how.items()}
        report.notes[name] = {"labels": list(options.labels)} | {how: mean.tolist() for how, mean in means.items()}
        report.notes[name]["fresh_needs"] = [
            _needed(accuracy, means["fresh"], options.labels) for accuracy in means["few_shot"]
        ]
        for few, many in ((few, 4 * few) for few in options.labels if 4 * few in options.labels):
            ours, theirs = (means[how][options.labels.index(n)] for how, n in (("few_shot", few), ("fresh", many)))
            report.cases[f"{name}, {few} labels"] = Case(ours, theirs, "of answers", f"{many} labels from nothing")


def _needed(accuracy: float, fresh: NDArray[np.float64], labels: Sequence[int]) -> int | None:
    """The fewest labels with which a fresh model is as good; none where none of these is enough."""
    enough = np.flatnonzero(fresh >= accuracy)
    return labels[int(enough[0])] if len(enough) else None


def _tell(look: Look) -> None:
    told = f"accuracy {look.before:.1%} before the labels of held-out tasks, {look.accuracy:.1%} after"
    _say(f"outer step {look.step}: {told}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
