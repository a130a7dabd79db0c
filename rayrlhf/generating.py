"""Preference data over many tasks, made by Ray tasks: a draw of a MetaWorld task each.

A session of the dataset is one draw; what was finished before an interruption is not made again.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from rayrlhf import seeding
from rayrlhf.algorithms.collector import EPISODE_BITS
from rayrlhf.cluster import ray_session
from rayrlhf.config import EnvOptions, TeacherOptions
from rayrlhf.config.recipe import Recipe
from rayrlhf.envs import check_env
from rayrlhf.envs.experts import play
from rayrlhf.errors import UserError, nearest
from rayrlhf.files import is_url, read_object, write_atomically
from rayrlhf.language.instructions import wordings_of
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, query_id
from rayrlhf.preferences.trajectories import TrajectoryStore
from rayrlhf.queries.selection import draw_pairs
from rayrlhf.teachers import PRESETS, make_teacher

RECIPE = "generated.json"
AHEAD = 2
"""Draws that wait for each processor, so that none is idle."""


def chosen_tasks(recipe: Recipe) -> tuple[str, ...]:
    """The tasks. Raises `UserError` where none is left, or one is unknown."""
    left_out = set(_known(recipe.without)) if recipe.without else set[str]()
    tasks = tuple(task for task in _known(recipe.tasks) if task not in left_out)
    if not tasks:
        raise UserError(f"--tasks {recipe.tasks} without {recipe.without} leaves none")
    return tasks


def _known(tasks: str) -> tuple[str, ...]:
    options = EnvOptions(task=tasks)
    check_env(options)
    return options.tasks


def _require_scripted(teacher: str) -> None:
    known = (*PRESETS, "random")
    if teacher not in known:
        raise UserError(f"--teacher is {teacher!r}, wanted one of {', '.join(known)}{nearest(teacher, known)}")


def generate(recipe: Recipe, folder: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes what of `recipe` the dataset in `folder` lacks; how many questions and labels it has then.

    Raises:
        UserError: the recipe cannot be followed, or the folder holds something else.
    """
    _require_scripted(recipe.teacher)
    tasks = chosen_tasks(recipe)
    if is_url(folder):
        raise UserError(f"{folder}: generate into a folder, then copy it, or `rayrlhf dataset combine` it")
    dataset = PreferenceDataset(folder)
    _require_own(dataset, recipe, Path(folder))
    there = set(dataset.sessions())
    missing = [(task, draw) for task in range(len(tasks)) for draw in range(recipe.draws)]
    missing = [(task, draw) for task, draw in missing if task * recipe.draws + draw not in there]
    if missing:
        with ray_session(os.cpu_count() or 1):
            for done, (queries, answers) in enumerate(_made(recipe, tasks, missing), start=1):
                dataset.append(queries, answers)
                task = tasks[queries.session // recipe.draws]
                say(f"{len(there) + done} of {len(tasks) * recipe.draws} draws: {task}, {len(queries):,} questions")
    questions = answered = 0
    for session in dataset.sessions():  # one at a time: all would want gigabytes
        queries, answers = dataset.read_session(session)
        questions, answered = questions + len(queries), answered + len(answers)
    whole = {"draws": len(dataset.sessions()), "questions": questions, "answers": answered}
    return {"dataset": folder, "tasks": list(tasks), **whole}


def _require_own(dataset: PreferenceDataset, recipe: Recipe, folder: Path) -> None:
    noted = read_object(folder / RECIPE, "not a JSON object; move it away to go on")
    wanted = recipe.model_dump()
    if noted is None:
        if dataset.sessions():
            raise UserError(f"{folder} holds other preferences: generate into a folder of its own, then combine them")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, json.dumps(wanted, indent=1))
    elif noted != wanted:
        differing = [name for name in wanted if noted.get(name) != wanted[name]]
        raise UserError(f"{folder} was begun with another {', '.join(differing)}: give the same, or another folder")


def _made(
    recipe: Recipe, tasks: tuple[str, ...], missing: list[tuple[int, int]]
) -> Iterator[tuple[Queries, list[Answer]]]:
    """Draws as they are finished, as many at a time as there are processors."""
    remote = ray.remote(num_cpus=1)(draw_of)
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    at_once = AHEAD * max(1, int(there.get("CPU", 1)))
    waiting, running = list(missing), list[Any]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(remote.remote(recipe, tasks, *waiting.pop(0)))
        [done], running = ray.wait(running, num_returns=1)
        yield ray.get(done)


def draw_of(recipe: Recipe, tasks: tuple[str, ...], task: int, draw: int) -> tuple[Queries, list[Answer]]:
    """The questions about one draw of the task with this number, and a scripted teacher's answers."""
    options = EnvOptions(task=tasks[task], horizon=recipe.horizon, goal_hidden=not recipe.show_goal)
    spec = check_env(options)
    store = TrajectoryStore(len(recipe.episodes.kinds()), obs_dim=spec.obs_dim, action_dim=spec.action_dim)
    session = task * recipe.draws + draw
    for fragment in play(options, tasks, recipe.draws, draw, recipe.episodes, recipe.seed):
        store.add(replace(fragment, episode=fragment.episode | (session << EPISODE_BITS)))  # unique over the dataset
    rng = seeding.generator(recipe.seed, "pairs", session)
    if store.legal_starts(recipe.segment_length) < 2:
        raise UserError(
            f"{tasks[task]}, draw {draw}: no episode has {recipe.segment_length} steps before somebody succeeds: lower "
            "--segment_length, or raise --random"
        )
    left, right = draw_pairs(store, recipe.pairs, recipe.segment_length, rng)
    ids = tuple(query_id(recipe.name, session, i) for i in range(recipe.pairs))
    said = wordings_of(options.suite, tasks[task], recipe.wordings)
    sentences = tuple(said[i] for i in rng.integers(len(said), size=recipe.pairs))
    typical = store.typical_return(recipe.segment_length, len(recipe.episodes.kinds()))
    queries = Queries(ids, session, left, right, typical, sentences)
    teacher = make_teacher(TeacherOptions(name=recipe.teacher), recipe.seed)
    teacher.ask(queries)
    return queries, teacher.collect()
