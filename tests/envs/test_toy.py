"""The point mass: fair, learnable, and the same however many points are stepped together."""

import numpy as np
import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import make_env


def flee(obs: np.ndarray) -> np.ndarray:
    """Pushes away from the goal, along each axis."""
    return -np.sign(obs[:, :2])


def options(task: str = "point", **others: object) -> EnvOptions:
    return EnvOptions(**{"suite": "toy", "task": task, "horizon": None, **others})


def success_rate(policy: object, task: str = "point", num_envs: int = 300) -> float:
    """Share of first episodes with a success, over `num_envs` environments."""
    env = make_env(options(task), num_envs, seed=0)
    obs = env.reset([0] * num_envs)
    success, over = np.zeros((2, num_envs), np.bool_)
    for _ in range(env.spec.horizon):
        step = env.step(policy(obs))  # type: ignore[operator]
        success |= step.success & ~over
        over |= step.terminated | step.truncated
        obs = step.obs
    assert over.all()
    return float(success.mean())


def steer(obs: np.ndarray) -> np.ndarray:
    """Pushes to the goal and brakes."""
    return np.clip(10 * obs[:, :2] - 20 * obs[:, 2:], -1, 1)


@pytest.mark.parametrize("task", ["point", "point-terminating"])
def test_random_fails_and_steering_succeeds(task: str) -> None:
    rng = np.random.default_rng(0)
    assert success_rate(lambda obs: rng.uniform(-1, 1, (len(obs), 2)), task) < 0.15
    assert success_rate(steer, task) > 0.99


def test_fleeing_is_rewarded_where_steering_is_not() -> None:
    assert success_rate(flee, "point-away") > 0.9
    assert success_rate(steer, "point-away") < 0.35
    assert success_rate(flee) < 0.15


def test_the_two_tasks_differ_in_rewards_alone() -> None:
    near, away = (make_env(options(task), 20, seed=3) for task in ("point", "point-away"))
    np.testing.assert_array_equal(near.reset([0] * 20), away.reset([0] * 20))
    for _ in range(60):
        steps = [env.step(np.full((20, 2), 0.3, np.float32)) for env in (near, away)]
        np.testing.assert_array_equal(steps[0].obs, steps[1].obs)
        np.testing.assert_allclose(steps[0].reward + steps[1].reward, 1.0, rtol=1e-6)


def test_no_constant_action_solves_it() -> None:
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        action = np.array([np.cos(angle), np.sin(angle)])
        assert success_rate(lambda obs, a=action: np.tile(a, (len(obs), 1)), num_envs=100) < 0.15


@pytest.mark.parametrize("task", ["point", "point-terminating"])
def test_many_points_move_as_each_alone(task: str) -> None:
    rng = np.random.default_rng(1)
    actions = np.where(rng.random((120, 4, 1)) < 0.5, 1.0, rng.uniform(-1, 1, (120, 4, 2)))  # drifts out of the square
    together = make_env(options(task), 4, seed=5)
    alone = [make_env(options(task), 1, seed=5, indices=[i]) for i in range(4)]
    np.testing.assert_array_equal(together.reset([0] * 4), np.concatenate([env.reset([0]) for env in alone]))
    for action in actions:
        step = together.step(action)
        parts = [env.step(action[i : i + 1]) for i, env in enumerate(alone)]
        for name in ("next_obs", "obs", "reward", "terminated", "truncated", "success"):
            np.testing.assert_array_equal(getattr(step, name), np.concatenate([getattr(part, name) for part in parts]))


def test_leaving_the_square_ends_the_episode_only_without_walls() -> None:
    right = np.array([[1.0, 0.0]], np.float32)
    ended = {}
    for task in ("point", "point-terminating"):
        env = make_env(options(task), 1, seed=0)
        env.reset([0])
        steps = [env.step(right) for _ in range(40)]
        ended[task] = [t for t, step in enumerate(steps) if step.terminated[0]]
    assert not ended["point"]
    assert ended["point-terminating"]


def test_a_reset_gives_the_named_episode() -> None:
    env = make_env(options(horizon=2), 1, seed=0)
    env.reset([0])
    obs = [env.step(np.ones((1, 2), np.float32)).obs for _ in range(6)]
    for episode, t in ((1, 1), (2, 3), (3, 5)):
        fresh = make_env(options(horizon=2), 1, seed=0)
        np.testing.assert_array_equal(fresh.reset([episode]), obs[t])


def test_action_repeat_equals_repeating() -> None:
    once, thrice = make_env(options(horizon=60), 3, seed=0), make_env(options(horizon=20, action_repeat=3), 3, seed=0)
    once.reset([0] * 3)
    thrice.reset([0] * 3)
    for action in np.random.default_rng(0).uniform(-1, 1, (15, 3, 2)):
        singles = [once.step(action) for _ in range(3)]
        joined = thrice.step(action)
        np.testing.assert_array_equal(joined.next_obs, singles[-1].next_obs)
        np.testing.assert_allclose(joined.reward, sum(step.reward for step in singles), rtol=1e-6)
        np.testing.assert_array_equal(joined.success, np.any([step.success for step in singles], axis=0))


def test_a_point_that_is_not_finite_is_broken() -> None:
    from rayrlhf.envs import EnvironmentBroken

    env = make_env(options(), 2, seed=0, indices=[4, 9])
    env.reset([0, 3])
    env._state[1, 0] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentBroken, match="environment 9 broke in episode 3, step 0: its observation"):
        env.step(np.zeros((2, 2)))
