"""EPIC: how far apart two reward functions are, whatever their scale and however they are shaped.

Gleave, Dennis, Legg, Russell and Leike 2021, Quantifying Differences in Reward Functions, arXiv 2006.13900, section 4.
The distance is 0 for rewards that differ by a positive factor, a constant and potential shaping, which leave the order
of policies as it is; 1 for a reward and its negative, and about 0.71 for unrelated ones. It bounds the regret of acting
by one reward where the other counts, as far as the distribution of transitions covers what the policies do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Reward = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]]
"""`reward(obs [B, O], action [B, A], next_obs [B, O]) -> [B]`; one of state and action alone looks at no successor."""
ROWS_AT_ONCE = 1 << 16


def pearson_distance(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """`sqrt((1 - correlation) / 2)` of `[N]` and `[N]`, from 0 to 1; None where either is constant."""
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape} must both be [N]")
    a, b = (_deviation(column.astype(np.float64)) for column in (first, second))
    if a is None or b is None:
        return None
    # half the chord between unit vectors: exact where the two agree, of which 1 - a @ b would keep eight digits
    return min(1.0, float(np.linalg.norm(a - b)) / 2.0)


def shaped_by_means(reward: NDArray[Any], mean_here: NDArray[Any], mean_next: NDArray[Any], *, gamma: float) -> Doubles:
    """The canonically shaped reward `[N]` of `N` transitions but for its constant, to which the distance is blind.

    `R(s, a, s') + gamma E[R(s', A, S')] - E[R(s, A, S')]` (definition 4.1).

    Args:
        reward: `[N]` of the transitions.
        mean_here: `[N]` mean reward of random actions and successors in the states before.
        mean_next: `[N]` the same in the states after.
        gamma: the discount; a potential shapes by `gamma phi(s') - phi(s)`.
    """
    shaped: Doubles = reward.astype(np.float64) + gamma * mean_next.astype(np.float64) - mean_here.astype(np.float64)
    return shaped


def canonical(
    reward: Reward,
    transitions: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    actions: NDArray[Any],
    states: NDArray[Any],
    *,
    gamma: float,
) -> Doubles:
    """`shaped_by_means` of a reward that can be asked anywhere, its means over samples (appendix A.1.1).

    Args:
        reward: of state, action and successor.
        transitions: obs `[N, O]`, action `[N, A]`, next obs `[N, O]`, of the coverage distribution.
        actions: `[M, A]` drawn independently of all states.
        states: `[M, O]` successors, one beside each of `actions`.
        gamma: the discount.
    """
    if len(actions) != len(states) or not len(actions):
        raise ValueError(f"{len(actions)} actions and {len(states)} states are no pairs to take a mean over")
    obs, action, next_obs = transitions
    here, after = (mean_reward(reward, place, actions, states) for place in (obs, next_obs))
    return shaped_by_means(reward(obs, action, next_obs), here, after, gamma=gamma)


def mean_reward(reward: Reward, obs: NDArray[Any], actions: NDArray[Any], states: NDArray[Any]) -> Doubles:
    """`[N]`: of each of `obs` `[N, O]` the mean reward over the pairs of `actions` `[M, A]` and successors `[M, O]`."""
    count = len(actions)
    means = [
        reward(np.repeat(part, count, axis=0), _tiled(actions, len(part)), _tiled(states, len(part)))
        .reshape(-1, count)
        .mean(axis=1, dtype=np.float64)
        for part in np.array_split(obs, -(-len(obs) * count // ROWS_AT_ONCE) or 1)
        if len(part)
    ]
    return np.concatenate(means)


def epic_distance(
    first: Reward,
    second: Reward,
    transitions: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    actions: NDArray[Any],
    states: NDArray[Any],
    *,
    gamma: float,
) -> float | None:
    """The Pearson distance of both rewards, canonically shaped, on `transitions`; see `canonical`.

    Between 0 and 1; None where either is constant there once shaping is taken off.
    """
    shaped = [canonical(reward, transitions, actions, states, gamma=gamma) for reward in (first, second)]
    return pearson_distance(*shaped)


def _tiled(rows: NDArray[Any], times: int) -> NDArray[Any]:
    return np.tile(rows, (times, 1))


def _deviation(values: Doubles) -> Doubles | None:
    """`values` `[N]` less their mean, of length one; None where they do not vary, but for rounding."""
    if not len(values):
        return None
    away = values - values.mean()
    length = float(np.linalg.norm(away))
    if length <= 1e-12 * np.linalg.norm(values) or length == 0:
        return None
    unit: Doubles = away / length
    return unit
