"""EPIC on small tables: its exact value, what it is blind to, and that it is a pseudometric."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rayrlhf.evaluation.epic import Reward, canonical, epic_distance, mean_reward, pearson_distance

STATES, ACTIONS = 3, 2
Table = NDArray[np.float64]
"""`[S, A, S]`: a reward of every transition."""
EVERY = np.array(list(product(range(STATES), range(ACTIONS), range(STATES))))
TRANSITIONS = (EVERY[:, [0]], EVERY[:, [1]], EVERY[:, [2]])
PAIRS = np.array(list(product(range(ACTIONS), range(STATES))))
"""Every action with every successor: the means over these are exact for uniform distributions."""


def of_table(table: Table) -> Reward:
    return lambda obs, action, next_obs: table[obs[:, 0], action[:, 0], next_obs[:, 0]]


def distance(first: Table, second: Table, gamma: float = 0.9) -> float | None:
    columns = PAIRS[:, [0]], PAIRS[:, [1]]
    return epic_distance(of_table(first), of_table(second), TRANSITIONS, *columns, gamma=gamma)


def tables(seed: int, count: int) -> list[Table]:
    return list(np.random.default_rng(seed).normal(size=(count, STATES, ACTIONS, STATES)))


def slow_canonical(table: Table, gamma: float) -> Table:
    """Definition 4.1, term by term, with the constant."""
    shaped = np.zeros_like(table)
    every = [(a, s) for a in range(ACTIONS) for s in range(STATES)]
    mean = [sum(table[s, a, after] for a, after in every) / len(every) for s in range(STATES)]
    constant = gamma * sum(mean) / STATES
    for s, a, after in product(range(STATES), range(ACTIONS), range(STATES)):
        shaped[s, a, after] = table[s, a, after] + gamma * mean[after] - mean[s] - constant
    return shaped


@given(st.integers(0, 500), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_equals_the_definition_on_tables(seed: int, gamma: float) -> None:
    first, second = tables(seed, 2)
    shaped = [slow_canonical(table, gamma).ravel() for table in (first, second)]
    expected = math.sqrt((1 - np.corrcoef(*shaped)[0, 1]) / 2)
    assert distance(first, second, gamma) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 500), st.floats(0.01, 100), st.floats(-10, 10), st.floats(0, 1))
def test_scale_constant_and_potential_change_nothing(seed: int, scale: float, constant: float, gamma: float) -> None:
    [table] = tables(seed, 1)
    potential = np.random.default_rng(seed + 1).normal(size=STATES)
    shaped = scale * table + constant + gamma * potential[None, None, :] - potential[:, None, None]
    assert distance(table, shaped, gamma) == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 500))
def test_is_symmetric_and_keeps_the_triangle_inequality(seed: int) -> None:
    first, second, third = tables(seed, 3)
    sides = [distance(first, second), distance(second, third), distance(first, third)]
    assert None not in sides
    assert distance(second, first) == pytest.approx(sides[0], abs=1e-12)
    ab, bc, ac = (side for side in sides if side is not None)
    assert ac <= ab + bc + 1e-12
    assert distance(first, first) == 0


def test_a_reward_and_its_negative_are_farthest_apart() -> None:
    [table] = tables(0, 1)
    assert distance(table, -table) == pytest.approx(1)


def test_worked_by_hand() -> None:
    # two states, one action, gamma 0: what is left of R(s, s') is its distance from the mean over s'
    first, second = np.array([[[0.0, 2.0]], [[1.0, 5.0]]]), np.array([[[1.0, -1.0]], [[-1.0, 1.0]]])
    every = np.array(list(product(range(2), [0], range(2))))
    transitions = (every[:, [0]], every[:, [1]], every[:, [2]])
    found = epic_distance(
        of_table(first), of_table(second), transitions, np.zeros((2, 1), int), np.array([[0], [1]]), gamma=0.0
    )
    correlation = (-1 - 1 + 2 + 2) / math.sqrt((1 + 1 + 4 + 4) * 4)  # of (-1, 1, -2, 2) with (1, -1, -1, 1): 0.316
    assert found == pytest.approx(math.sqrt((1 - correlation) / 2))


def test_samples_come_near_the_exact_value() -> None:
    rng = np.random.default_rng(0)
    first, second = tables(3, 2)
    exact = distance(first, second)
    drawn = [rng.integers(count, size=(4000, 1)) for count in (STATES, ACTIONS, STATES)]
    actions, states = rng.integers(ACTIONS, size=(2000, 1)), rng.integers(STATES, size=(2000, 1))
    found = epic_distance(of_table(first), of_table(second), (drawn[0], drawn[1], drawn[2]), actions, states, gamma=0.9)
    assert found == pytest.approx(exact, abs=0.03)


def test_of_state_and_action_alone_the_successors_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    obs, next_obs, action = rng.normal(size=(50, 2)), rng.normal(size=(50, 2)), rng.uniform(-1, 1, (50, 1))
    actions = rng.uniform(-1, 1, (20, 1))

    def reward(obs: NDArray[np.float64], action: NDArray[np.float64], _: object) -> NDArray[np.float64]:
        value: NDArray[np.float64] = obs[:, 0] * action[:, 0]
        return value

    found = [canonical(reward, (obs, action, next_obs), actions, rng.normal(size=(20, 2)), gamma=0.9) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    by_hand = obs[:, 0] * action[:, 0] + (0.9 * next_obs[:, 0] - obs[:, 0]) * actions.mean()
    np.testing.assert_allclose(found[0], by_hand)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 400))
def test_means_do_not_depend_on_how_they_are_cut(count: int, pairs: int) -> None:
    obs, actions = np.arange(count, dtype=float)[:, None], np.arange(pairs, dtype=float)[:, None]
    means = mean_reward(lambda o, a, n: o[:, 0] + a[:, 0] * n[:, 0], obs, actions, actions)
    np.testing.assert_allclose(means, obs[:, 0] + np.square(actions).mean())


def test_what_does_not_vary_has_no_distance() -> None:
    [table] = tables(0, 1)
    potential = np.array([1.0, -2.0, 5.0])
    only_shaping = np.broadcast_to(0.9 * potential[None, None, :] - potential[:, None, None], table.shape)
    assert distance(table, np.ones_like(table)) is None
    assert distance(table, only_shaping) is None  # canonically shaped, nothing is left of it
    assert pearson_distance(np.zeros(0), np.zeros(0)) is None
    with pytest.raises(ValueError, match=r"\[N\]"):
        pearson_distance(np.zeros(2), np.zeros(3))
