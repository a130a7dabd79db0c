"""The lean step and reset against MetaWorld's own, bit for bit."""

from typing import Any

import numpy as np
import pytest
from metaworld.env_dict import ENV_CLS_MAP

from rayrlhf.envs.sawyer import lean

FAST = ["button-press-v3", "pick-place-v3", "door-open-v3", "window-close-v3"]


def upstream(task: str, version: str, goal_hidden: bool) -> Any:
    """MetaWorld's own class under the same protocol."""
    env = ENV_CLS_MAP[task](reward_function_version=version)
    env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
    env._partially_observable = goal_hidden
    del env.sawyer_observation_space
    return env


def upstream_reset(env: Any, seed: int) -> np.ndarray:
    """MetaWorld's own reset with the draw held, as its benchmarks do, after an episode of something else."""
    env.seed(seed)
    env._freeze_rand_vec = False
    env.reset_model()  # draws, with the tasks' own rules for draws that are too near
    env._freeze_rand_vec = True
    return env.reset()[0]


def assert_same(task: str, version: str, *, goal_hidden: bool, episodes: int = 2, steps: int) -> None:
    theirs = upstream(task, version, goal_hidden)
    ours = lean(ENV_CLS_MAP[task])(reward_version=version, goal_hidden=goal_hidden)
    rng = np.random.default_rng(0)
    for episode in range(episodes):  # the second episode starts from the remembered state
        np.testing.assert_array_equal(ours.lean_reset(episode), upstream_reset(theirs, episode))
        for _ in range(steps):
            action = rng.uniform(-1, 1, 4).astype(np.float32)
            obs, reward, _, _, info = theirs.step(action)
            lean_obs, lean_reward, lean_info = ours.lean_step(action)
            np.testing.assert_array_equal(lean_obs, obs)
            assert lean_reward == reward
            assert lean_info["success"] == info["success"]
        np.testing.assert_array_equal(ours.data.qacc_warmstart, theirs.data.qacc_warmstart)


@pytest.mark.parametrize("task", FAST)
@pytest.mark.parametrize(("version", "goal_hidden"), [("v1", False), ("v2", True)])
def test_lean_equals_metaworld(task: str, version: str, goal_hidden: bool) -> None:
    assert_same(task, version, goal_hidden=goal_hidden, steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(ENV_CLS_MAP))
@pytest.mark.parametrize(("version", "goal_hidden"), [("v1", False), ("v2", True)])
def test_lean_equals_metaworld_on_all_tasks(task: str, version: str, goal_hidden: bool) -> None:
    assert_same(task, version, goal_hidden=goal_hidden, episodes=3, steps=300)


def test_a_reset_without_a_draw_of_its_own_mixes_two_draws() -> None:
    """Why a draw is held: MetaWorld's window begins where the other draw put it, and the reward refers to that."""
    env = upstream("window-close-v3", "v2", goal_hidden=True)
    env._freeze_rand_vec = False
    env.seed(0)
    first = env.reset()[0][5]
    second = env.step(np.zeros(4, np.float32))[0][5]
    assert abs(first - second) > 0.01
    held = upstream("window-close-v3", "v2", goal_hidden=True)
    first = upstream_reset(held, 0)[5]
    second = held.step(np.zeros(4, np.float32))[0][5]
    assert abs(first - second) < 1e-3


def test_an_unstable_simulation_is_an_error() -> None:
    env = lean(ENV_CLS_MAP["reach-v3"])(reward_version="v2", goal_hidden=True)
    env.lean_reset(0)
    env.data.qvel[0] = np.inf
    with pytest.raises(FloatingPointError, match="unstable"):
        env.lean_step(np.zeros(4, np.float32))
    env.lean_reset(1)
    env.lean_step(np.zeros(4, np.float32))  # a reset mends it
