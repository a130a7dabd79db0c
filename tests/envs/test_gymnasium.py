"""Gymnasium and DeepMind Control environments against the libraries' own."""

import gymnasium
import mujoco
import numpy as np
import pytest

from rayrlhf import seeding
from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import EnvironmentBroken, check_env, make_env, task_names
from rayrlhf.envs.gymnasium import UNSTABLE
from rayrlhf.errors import UserError


def options(task: str, **others: object) -> EnvOptions:
    return EnvOptions(**{"suite": "gymnasium", "task": task, "horizon": None, **others})


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "Pendulum-v1"])
def test_same_trajectory_as_gymnasium(task: str) -> None:
    """Through terminations and truncations, with each episode's seed and with scaled actions."""
    ours, theirs = make_env(options(task), 1, seed=2, indices=[3]), gymnasium.make(task)
    rng = np.random.default_rng(0)

    def reset(episode: int) -> np.ndarray:
        seed = seeding.integer_seed(2, "environment", 3, "episode", episode)
        return theirs.reset(seed=seed)[0].astype(np.float32)

    episode = 0
    np.testing.assert_array_equal(ours.reset([0])[0], reset(0))
    low, high = theirs.action_space.low, theirs.action_space.high
    for _ in range(250):
        action = rng.uniform(-1, 1, (1, ours.spec.action_dim)).astype(np.float32)
        obs, reward, terminated, truncated, _ = theirs.step((low + high) / 2 + (high - low) / 2 * action[0])
        step = ours.step(action)
        np.testing.assert_array_equal(step.next_obs[0], obs.astype(np.float32))
        assert step.reward[0] == np.float32(reward)
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated and not terminated)
        assert not step.success[0]
        if terminated or truncated:
            episode += 1
            np.testing.assert_array_equal(step.obs[0], reset(episode))
    assert episode >= (0 if task == "HalfCheetah-v5" else 1)


def test_own_limit_counts_only_without_a_horizon() -> None:
    assert check_env(options("Hopper-v5")).horizon == 1000
    assert check_env(options("Hopper-v5", action_repeat=4)).horizon == 250
    assert check_env(options("Hopper-v5", horizon=77)).horizon == 77
    assert check_env(options("Pendulum-v1", horizon=700)).horizon == 700  # beyond its own 200


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("CartPole-v1", "Discrete actions"),
        ("Taxi-v3", "Discrete observations"),
        ("HalfCheetah", "did you mean 'HalfCheetah-v5'"),
        ("HalfCheetah-v2", "cannot make HalfCheetah-v2"),
        ("no_such_module:Env-v0", "no_such_module"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(task: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_env(options(task))
    assert "\n" not in str(caught.value)


def test_ids_of_modules_are_found() -> None:
    assert check_env(options("gymnasium.envs:Pendulum-v1")).obs_dim == 3


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Reacher-v5"])
def test_a_simulation_that_blows_up_is_named(task: str) -> None:
    """MuJoCo puts the state back to its start by itself, and the step looks like any other."""
    env = make_env(options(task, horizon=20), 2, seed=0)
    env.reset([0, 0])
    actions = np.zeros((2, env.spec.action_dim), np.float32)
    env.step(actions)
    data = env.envs[1].mujoco()[1]  # type: ignore[attr-defined]
    data.qvel[0] = np.nan
    with pytest.raises(EnvironmentBroken, match=r"environment 1 broke in episode 0, step 1: .*became unstable"):
        env.step(actions)
    assert np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all()
    env.reset([1, 1])
    env.step(actions)  # a reset forgets it


def test_the_warnings_are_mujocos() -> None:
    kinds = mujoco.mjtWarning
    wanted = [kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC]
    assert list(range(*UNSTABLE.indices(kinds.mjNWARNING))) == [int(kind) for kind in wanted]


class TestDmc:
    def test_every_task_of_the_suite_can_be_made(self) -> None:
        """Two environments from two calls, as training and evaluation have them, begin an episode alike."""
        pytest.importorskip("shimmy")
        for task in set(task_names("dmc")) - {"quadruped-escape"}:  # its terrain goes through OpenGL at each reset
            choice = EnvOptions(suite="dmc", task=task, horizon=5)
            first, second = (make_env(choice, 1, seed=3) for _ in range(2))
            np.testing.assert_array_equal(first.reset([2]), second.reset([2]), task)
            action = np.full((1, first.spec.action_dim), 0.3, np.float32)
            for _ in range(3):
                one, other = first.step(action), second.step(action)
                np.testing.assert_array_equal(one.next_obs, other.next_obs, task)
            for env in (first, second):
                env.close()

    def test_same_trajectory_as_dm_control(self) -> None:
        pytest.importorskip("shimmy")
        suite = pytest.importorskip("dm_control.suite")
        ours = make_env(EnvOptions(suite="dmc", task="cartpole-swingup", horizon=None), 1, seed=0)
        seed = seeding.integer_seed(0, "environment", 0, "episode", 0)
        theirs = suite.load("cartpole", "swingup", task_kwargs={"random": seed})
        time_step = theirs.reset()

        def flat(observation: dict[str, np.ndarray]) -> np.ndarray:
            return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)

        np.testing.assert_array_equal(ours.reset([0])[0], flat(time_step.observation))
        for action in np.random.default_rng(0).uniform(-1, 1, (30, 1)).astype(np.float32):
            time_step = theirs.step(action)
            step = ours.step(action[None])
            np.testing.assert_array_equal(step.next_obs[0], flat(time_step.observation))
            assert step.reward[0] == np.float32(time_step.reward)
        assert ours.spec.horizon == 1000

    def test_reset_does_not_depend_on_history(self) -> None:
        pytest.importorskip("shimmy")
        choice = EnvOptions(suite="dmc", task="cheetah-run", horizon=3)
        env = make_env(choice, 2, seed=0)
        env.reset([0, 0])
        steps = [env.step(np.ones((2, 6), np.float32)) for _ in range(3)]
        fresh = make_env(choice, 1, seed=0, indices=[1])
        np.testing.assert_array_equal(fresh.reset([1])[0], steps[-1].obs[1])
        assert steps[-1].truncated.all()

    def test_unknown_task_offers_the_nearest(self) -> None:
        pytest.importorskip("shimmy")
        with pytest.raises(UserError, match="cheetah-run"):
            check_env(EnvOptions(suite="dmc", task="cheetah-runn"))
