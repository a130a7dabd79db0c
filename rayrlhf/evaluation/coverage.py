"""Transitions on which a reward model and the true reward are compared, and how far apart they are there."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rayrlhf import seeding
from rayrlhf.config import RunConfig
from rayrlhf.envs.instructions import Instructions
from rayrlhf.evaluation.epic import ROWS_AT_ONCE, canonical, mean_reward, pearson_distance, shaped_by_means
from rayrlhf.evaluation.episodes import Act, Episode, acting, environments, play
from rayrlhf.evaluation.metrics import Alignment, alignment
from rayrlhf.policies import Actor
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards import RewardScorer

STREAM = "coverage"
STEPS = 12_000
"""So many transitions at least are collected."""
COMPARED, ACTIONS = 3000, 64
"""So many of them are canonically shaped, by the mean over so many random actions."""
SIDE_BY_SIDE = 6
DISTRIBUTION = "a third of the episodes by the policy, a third by random actions, a third by either, step by step"


@dataclass(frozen=True)
class Distance:
    """A reward model beside the true reward on transitions of `DISTRIBUTION`.

    epic:      from 0 (the same) to 1 (the contrary), about 0.71 where they are unrelated; None where either is constant
    per_step:  the model's rewards of single transitions against the true ones
    explained: R^2, on episodes it has not seen, of the regression that stands for the true reward of actions nobody
               took: as far as it is below 1, `epic` is the regression's as much as the model's
    """

    epic: float | None
    per_step: Alignment
    explained: float
    transitions: int


def distance_to_truth(
    policy: Actor, scorer: RewardScorer, run: RunConfig, instructions: Instructions | None = None, *, gamma: float
) -> Distance:
    """EPIC distance of a reward model and the environment's own reward; `evaluation/epic.py` has the maths.

    EPIC takes means over random actions in each state. The model can be asked for them; the simulator cannot be put
    back, so there the true reward of an action is a regression on observation and action, fitted to the transitions.
    In two thirds of the episodes actions are drawn without regard to the state, so all of them are there to learn from.
    What was really rewarded enters as it was. Where the observation hides what is rewarded (a goal), `explained` tells.
    Where observations end with `instructions`, all tasks are among the episodes.
    """
    episodes = collect(policy, run, instructions)
    rows = Episode(*(np.concatenate(column) for column in zip(*map(_columns, episodes), strict=True)))
    rng = seeding.generator(run.seed, STREAM, "compared")
    regression, explained = regress(episodes, run.seed)
    chosen = rng.permutation(len(rows))[:COMPARED]
    obs, action, next_obs = rows.obs[chosen], rows.action[chosen], rows.next_obs[chosen]
    actions = rng.uniform(-1.0, 1.0, (ACTIONS, action.shape[1])).astype(np.float32)
    none = np.zeros((ACTIONS, 0), np.float32)  # neither reward looks at the successor
    here, after = (mean_reward(regression, place, actions, none) for place in (obs, next_obs))
    true = shaped_by_means(rows.reward[chosen], here, after, gamma=gamma)
    learned = canonical(_of(scorer), (obs, action, next_obs), actions, none, gamma=gamma)
    predicted = _of(scorer)(rows.obs, rows.action)
    return Distance(
        epic=pearson_distance(true, learned),
        per_step=alignment(rows.reward, predicted, rng),
        explained=explained,
        transitions=len(rows),
    )


def collect(policy: Actor, run: RunConfig, instructions: Instructions | None = None) -> list[Episode]:
    """Episodes of `DISTRIBUTION`, `STEPS` transitions or somewhat more, in environments of their own."""
    rng = seeding.generator(run.seed, STREAM, "actions")
    env = environments(run.env, run.seed, STREAM, SIDE_BY_SIDE, instructions)
    act = _mixed(acting(policy), np.repeat([0.0, 0.5, 1.0], SIDE_BY_SIDE // 3), env.spec.action_dim, rng)
    episodes: list[Episode] = []
    while sum(map(len, episodes)) < STEPS:
        first = len(episodes)
        episodes += play(act, env, range(first, first + SIDE_BY_SIDE))
    return episodes


def _mixed(policy: Act, random: NDArray[np.float64], width: int, rng: np.random.Generator) -> Act:
    """The policy, but in environment `i` with probability `random[i]`, each step anew, a uniformly random action."""

    def act(obs: Floats) -> Floats:
        drawn = rng.uniform(-1.0, 1.0, (len(obs), width)).astype(np.float32)
        action: Floats = np.where(rng.random((len(obs), 1)) < random[:, None], drawn, policy(obs))
        return action

    return act


def regress(episodes: list[Episode], seed: int) -> tuple[Callable[..., Floats], float]:
    """The true reward as a function of observation and action, and its R^2 on every sixth round of episodes.

    Those are then learnt from, too.
    """
    held_out = np.concatenate([np.full(len(episode), i // SIDE_BY_SIDE % 6 == 1) for i, episode in enumerate(episodes)])
    columns = list(zip(*map(_columns, episodes), strict=True))
    obs, action, reward = (np.concatenate(columns[i]) for i in (0, 1, 3))
    inputs = np.concatenate([obs, action], axis=1)
    if not held_out.any():  # a single round
        held_out = np.arange(len(reward)) % 6 == 1
    number = seeding.integer_seed(seed, STREAM, "regression")
    network = MLPRegressor(hidden_layer_sizes=(64, 64), early_stopping=True, max_iter=100, random_state=number)
    model = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `explained` says how good it has become
        model.fit(inputs[~held_out], reward[~held_out])
        explained = float(model.score(inputs[held_out], reward[held_out]))
        model.fit(inputs, reward)
    return lambda obs, action, _=None: model.predict(np.concatenate([obs, action], axis=1)), explained


def _of(scorer: RewardScorer) -> Callable[..., Floats]:
    """The model's reward `[B]` of observations and actions."""

    def reward(obs: Floats, action: Floats, _: object = None) -> Floats:
        rows = range(0, len(obs), ROWS_AT_ONCE)
        parts = [scorer.score(obs[i : i + ROWS_AT_ONCE], action[i : i + ROWS_AT_ONCE]).cpu().numpy() for i in rows]
        return np.concatenate(parts)

    return reward


def _columns(episode: Episode) -> tuple[NDArray[Any], ...]:
    return episode.obs, episode.action, episode.next_obs, episode.reward, episode.success
