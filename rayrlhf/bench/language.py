"""`bench language`: whether one reward model of many tasks understands what it is told.

It is fitted to preferences over several tasks, about what scripted experts did, each with an instruction in one of six
wordings. Then it is asked about other draws of the tasks in wordings that it has not seen, and about the same with
sentences of other tasks: as far as it guesses the task from what it observes, these do it no harm. Last, it is asked
about tasks that it was not fitted to.
"""

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.bench.report import Case, Count, DeviceOptions, Report, options_from
from rayrlhf.bench.timing import confined
from rayrlhf.config import RewardOptions
from rayrlhf.config.recipe import Episodes, Recipe
from rayrlhf.config.tasks import tasks_in
from rayrlhf.errors import UserError
from rayrlhf.generating import generate
from rayrlhf.language.encoder import embed
from rayrlhf.language.instructions import held_out_wordings_of, told, vectors_of, wordings_of
from rayrlhf.preferences.answers import Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.seeding import generator

SUITE = "metaworld"


class LanguageBench(DeviceOptions):
    """Options of `bench language`."""

    tasks: str = "faucet-open, faucet-close, reach, push, pick-place, window-open, window-close"
    """Faucets look the same before anything has happened; the blocks do, too."""
    new_tasks: str = "push-back, door-close"
    """It is asked about these, too."""
    draws: Count = 8
    pairs: Count = 200
    """Of each draw."""
    test_draws: Count = 3
    horizon: Count = 200
    encoder: str = "all-MiniLM-L6-v2"
    width: Count = 16
    members: Count = 3
    hidden: tuple[Count, ...] = (256, 256)
    epochs: Count = 10
    data: str = "runs/bench/language"
    """Folder of the preferences; what is there is not made again."""


def run(**given: Any) -> dict[str, Any]:
    """Makes the preferences, fits, asks."""
    options = options_from(LanguageBench, given, "language")
    report = Report("language", options.chosen_device)
    if len(tasks_in(options.tasks)) < 2:
        raise UserError(f"bench language: tasks={options.tasks}: wanted several, whose sentences can be confused")
    report.notes["embedding"] = _cost_of_words(options)  # first: before the model is loaded, or found not to be here
    training = _labels(options, options.tasks, options.draws, seed=0)
    known = _labels(options, options.tasks, options.test_draws, seed=1)
    new = _labels(options, options.new_tasks, options.test_draws, seed=1)
    with confined(options.threads):
        begin = time.perf_counter()
        ensemble = _fitted(training, options, report)
        report.notes["fit"]["seconds"] = time.perf_counter() - begin
        _ask(report, options, ensemble, known, options.tasks, "known_tasks")
        _ask(report, options, ensemble, new, options.new_tasks, "new_tasks")
        return report.as_dict()


def _labels(options: LanguageBench, tasks: str, draws: int, *, seed: int) -> Labels:
    """Preferences over `tasks`, in words: by experts of the task, of its other draws, and of the other tasks."""
    episodes = Episodes(expert=3, within=3, cross=6, random=1)
    recipe = Recipe(
        tasks=tasks, episodes=episodes, draws=draws, pairs=options.pairs, horizon=options.horizon, seed=seed
    )
    folder = Path(options.data) / recipe.name
    generate(recipe, str(folder), lambda line: print(line, file=sys.stderr, flush=True))
    return Labels.concatenate([labels_from(*record) for record in PreferenceDataset(folder).read()])


def _cost_of_words(options: LanguageBench) -> dict[str, float]:
    """Seconds for all sentences of a run: when the model has never seen them, and ever after."""
    sentences = [said for task in tasks_in(options.tasks) for said in wordings_of(SUITE, task, 6)]
    with TemporaryDirectory() as fresh:
        found = {}
        for name in ("first_seconds", "later_seconds"):
            begin = time.perf_counter()
            embed(sentences, options.encoder, cache=Path(fresh))
            found[name] = time.perf_counter() - begin
    return {"sentences": len(sentences), **found}


def _told(labels: Labels, sentences: tuple[str, ...], options: LanguageBench) -> Labels:
    """The labels with these sentences in their observations."""
    numbers = partial(vectors_of, encoder=options.encoder, width=options.width)
    return told(replace(labels, instructions=sentences), numbers, "the dataset")


def _fitted(labels: Labels, options: LanguageBench, report: Report) -> RewardEnsemble:
    learnt = _told(labels, labels.instructions, options)
    reward = RewardOptions(
        members=options.members,
        hidden=options.hidden,
        epochs=options.epochs,
        target_accuracy=1.0,
        normalize_inputs=True,
    )
    widths = learnt.left.obs.shape[2], learnt.left.action.shape[2]
    ensemble = RewardEnsemble(reward, *widths, seed=0, device=report.device)
    fit = ensemble.fit(learnt)
    report.notes["fit"] = {"labels": len(learnt), "epochs": fit.epochs, "accuracy": float(np.mean(fit.accuracy))}
    return ensemble


def _ask(
    report: Report, options: LanguageBench, ensemble: RewardEnsemble, labels: Labels, tasks: str, name: str
) -> None:
    """Accuracy in wordings that were not seen, against the same with the sentences of other tasks."""
    names = tasks_in(tasks)
    task_of = {said: task for task in names for said in wordings_of(SUITE, task, 6)}
    own = [task_of[said] for said in labels.instructions]
    rng = generator(0, "bench", "language", name)
    foreign = [str(rng.choice([task for task in tasks_in(options.tasks) if task != mine])) for mine in own]
    right = {
        "seen_wordings": _right(ensemble, _told(labels, labels.instructions, options)),
        "held_out_wordings": _right(ensemble, _told(labels, _unseen(own, rng), options)),
        "of_other_tasks": _right(ensemble, _told(labels, _unseen(foreign, rng), options)),
    }
    accuracy = {said: float(found.mean()) for said, found in right.items()}
    against = "the same questions with other tasks' sentences"
    report.cases[name] = Case(accuracy["held_out_wordings"], accuracy["of_other_tasks"], "of answers", against)
    mine = np.array(own)
    by_task = {task: {said: float(found[mine == task].mean()) for said, found in right.items()} for task in names}
    report.notes[name] = {"questions": len(labels), **accuracy, "by_task": by_task}


def _unseen(tasks: list[str], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(rng.choice(held_out_wordings_of(SUITE, task))) for task in tasks)


def _right(ensemble: RewardEnsemble, labels: Labels) -> NDArray[np.bool_]:
    """Whether the ensemble's mean probability says what the teacher said, `[N]`."""
    said: NDArray[np.bool_] = (ensemble.probabilities(labels).mean(0) > 0.5) == (labels.target > 0.5)
    return said
