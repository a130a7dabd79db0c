"""Episodes of one draw of a MetaWorld task in which somebody acts who may want something else.

From these come preferences for learning over many tasks (Hejna & Sadigh 2022, arXiv 2212.03363, appendix B): its own
scripted expert; the expert of another draw (`within`), or of another task (`cross`), whose simulator runs beside this
one and is what that expert sees; random actions.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from rayrlhf import seeding
from rayrlhf.config.recipe import Episodes
from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.metaworld import ACTION_DIM, OBS_DIM, MetaWorldEnv, plain_name
from rayrlhf.preferences.fragments import Floats, Fragment


def start_of(seed: int, task: str, draw: int) -> int:
    """The seed from which all episodes of a draw of a task begin."""
    return seeding.integer_seed(seed, "draw", plain_name(task), draw)


def play(
    options: EnvOptions, tasks: Sequence[str], draws: int, draw: int, episodes: Episodes, seed: int
) -> list[Fragment]:
    """All episodes of one `draw` of the task `options.task`, a fragment each, of one environment.

    An episode ends with `env.horizon`, or when whoever acts, or who is acted for, succeeds.

    Args:
        tasks: whose experts come in `cross`, but for its own.
        draws: how many draws each task has; the experts of `within` are of the others.
        seed: all of it follows from this, the task and the draw.
    """
    others = [task for task in tasks if plain_name(task) != plain_name(options.task)]
    found = []
    for number, kind in enumerate(episodes.kinds()):
        rng = seeding.generator(seed, "episode", plain_name(options.task), draw, number)
        actor: tuple[str, int] | None = (options.task, draw)
        if kind == "within":
            actor = options.task, (draw + int(rng.integers(1, max(2, draws)))) % max(2, draws)
        elif kind == "cross":
            actor = (others[int(rng.integers(len(others)))] if others else options.task), int(rng.integers(draws))
        elif kind == "random":
            actor = None
        found.append(_episode(options, actor, draw, number, episodes.noise, seed, rng))
    return found


@lru_cache(maxsize=64)
def _simulator(options: EnvOptions, role: str) -> MetaWorldEnv:
    """Loading one takes longer than an episode; `role` keeps apart who acts and who is acted for."""
    return MetaWorldEnv(options)


def _episode(
    options: EnvOptions,
    actor: tuple[str, int] | None,
    draw: int,
    number: int,
    noise: float,
    seed: int,
    rng: np.random.Generator,
) -> Fragment:
    """One episode in which the expert of `actor`, a task and its draw, acts; none: nobody who knows anything."""
    env = _simulator(options, "acted for")
    obs = env.reset(start_of(seed, options.task, draw))
    beside = expert = None
    if actor is not None:
        sees = options.model_copy(update={"task": actor[0], "goal_hidden": False})
        make_expert: Any = ENV_POLICY_MAP[f"{plain_name(actor[0])}-v3"]
        beside, expert = _simulator(sees, "acts"), make_expert()
        seen = beside.reset(start_of(seed, *actor))
    columns: list[tuple[Any, ...]] = []
    over = False
    while not over and len(columns) < (options.horizon or 500):
        if expert is None or beside is None:
            drawn = rng.uniform(-1, 1, ACTION_DIM)
        else:
            with warnings.catch_warnings():  # of actions beyond [-1, 1], which are clipped below
                warnings.simplefilter("ignore")
                drawn = expert.get_action(seen) + noise * rng.standard_normal(ACTION_DIM)
        action: Floats = np.clip(drawn, -1, 1).astype(np.float32)
        before = obs.astype(np.float32)
        obs, reward, *_, over = env.step(action)
        columns.append((before, action, obs.astype(np.float32), reward, over))
        if beside is not None:
            seen, *_, done = beside.step(action)
            over = over or done
    return _fragment(columns, number)


def _fragment(columns: list[tuple[Any, ...]], episode: int) -> Fragment:
    before, action, after, reward, success = (np.array(column)[:, None] for column in zip(*columns, strict=True))
    steps = len(columns)
    ended, never = np.zeros((2, steps, 1), np.bool_)
    ended[-1] = True
    numbers, index = np.full((steps, 1), episode, np.int64), np.arange(steps, dtype=np.int64)[:, None]
    rewards: Floats = reward.astype(np.float32)
    assert before.shape == (steps, 1, OBS_DIM)
    return Fragment(before, action, after, rewards, never, ended, success.astype(np.bool_), numbers, index)
