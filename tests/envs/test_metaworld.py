"""MetaWorld's protocol options, and draws that depend on seed, environment and episode alone."""

import subprocess
import sys

import numpy as np
import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import check_env, make_env, task_names

HOLD = np.zeros((1, 4), np.float32)


def first_obs(index: int, episode: int, **options: object) -> np.ndarray:
    env = make_env(EnvOptions(task="push", **options), 1, seed=3, indices=[index])
    return env.reset([episode])[0]


def test_all_fifty_tasks_are_there() -> None:
    names = task_names("metaworld")
    assert len(names) == 50
    assert {"drawer-open", "window-close", "sweep-into"} <= set(names)


def test_first_observation_does_not_depend_on_what_ran_before() -> None:
    alone = first_obs(index=1, episode=2)
    env = make_env(EnvOptions(task="push", horizon=3), 2, seed=3)
    env.reset([0, 0])
    rng = np.random.default_rng(0)
    for _ in range(6):  # two episodes of three steps lead to episode 2
        step = env.step(rng.uniform(-1, 1, (2, 4)))
    np.testing.assert_array_equal(step.obs[1], alone)
    assert not np.array_equal(step.obs[0], step.obs[1])


def test_first_observation_is_the_same_in_another_process() -> None:
    program = (
        "from rayrlhf.envs import make_env; from rayrlhf.config.schema import EnvOptions; "
        "env = make_env(EnvOptions(task='push'), 1, seed=3, indices=[7]); print(env.reset([4]).tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout.strip()) == first_obs(index=7, episode=4).tobytes()


def test_streams_episodes_and_environments_draw_differently() -> None:
    starts = [first_obs(0, 0), first_obs(0, 1), first_obs(1, 0)]
    evaluation = make_env(EnvOptions(task="push"), 1, seed=3, stream="evaluation")
    starts.append(evaluation.reset([0])[0])
    assert len({start.tobytes() for start in starts}) == 4


def test_numpys_global_generator_is_neither_read_nor_moved() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    env = make_env(EnvOptions(task="push", horizon=2), 1, seed=0)
    start = env.reset([0])
    for _ in range(4):
        env.step(HOLD)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(1)
    np.testing.assert_array_equal(env.reset([0]), start)


def test_a_fixed_start_is_one_draw_of_the_run() -> None:
    """In every episode of every environment, evaluation's too; another seed has another."""
    fixed = EnvOptions(task="push", random_start=False, goal_hidden=False)

    def start(index: int, episode: int, *, seed: int = 3, stream: str = "environment") -> np.ndarray:
        return make_env(fixed, 1, seed=seed, stream=stream, indices=[index]).reset([episode])[0]

    one = start(0, 0)
    for other in (start(0, 1), start(0, 5), start(1, 0), start(0, 0, stream="evaluation")):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, start(0, 0, seed=4))


def test_goal_is_hidden_or_shown() -> None:
    hidden, shown = first_obs(0, 0), first_obs(0, 0, goal_hidden=False)
    np.testing.assert_array_equal(hidden[36:39], 0.0)
    assert np.abs(shown[36:39]).max() > 0.1
    np.testing.assert_array_equal(hidden[:36], shown[:36])


def test_goal_is_drawn_anew_at_each_reset() -> None:
    goals = {first_obs(0, episode, goal_hidden=False)[36:39].tobytes() for episode in range(4)}
    assert len(goals) == 4


def test_success_does_not_end_an_episode() -> None:
    env = make_env(EnvOptions(task="drawer-close", horizon=120), 1, seed=0)
    env.reset([0])
    push = np.array([[0.0, 1.0, -1.0, 0.0]], np.float32)  # a constant action that closes the drawer
    steps = [env.step(push) for _ in range(120)]
    succeeded = [t for t, step in enumerate(steps) if step.success[0]]
    assert succeeded and succeeded[0] < 119
    assert [bool(step.truncated[0]) for step in steps] == [False] * 119 + [True]
    assert not any(step.terminated[0] for step in steps)


def test_action_repeat_sums_rewards_and_halves_the_own_limit() -> None:
    once = make_env(EnvOptions(task="reach"), 1, seed=0)
    twice = make_env(EnvOptions(task="reach", action_repeat=2), 1, seed=0)
    np.testing.assert_array_equal(once.reset([0]), twice.reset([0]))
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (5, 1, 4)):
        first, second = once.step(action), once.step(action)
        both = twice.step(action)
        np.testing.assert_array_equal(both.next_obs, second.next_obs)
        np.testing.assert_allclose(both.reward, first.reward + second.reward, rtol=1e-6)
    assert check_env(EnvOptions(task="reach", action_repeat=2, horizon=None)).horizon == 250
    assert check_env(EnvOptions(task="reach", action_repeat=3, horizon=None)).horizon == 167


def test_an_episode_may_be_longer_than_metaworlds_own_limit() -> None:
    env = make_env(EnvOptions(task="button-press", horizon=505), 1, seed=0)
    env.reset([0])
    ends = [bool(env.step(HOLD).truncated[0]) for _ in range(505)]
    assert ends == [False] * 504 + [True]


def test_reward_versions_differ() -> None:
    rewards = []
    for version in ("v1", "v2"):
        env = make_env(EnvOptions(task="drawer-open", reward_version=version), 1, seed=0)
        env.reset([0])
        rewards.append(env.step(HOLD).reward[0])
    assert abs(rewards[0] - rewards[1]) > 0.1


@pytest.mark.parametrize("task", ["push-v3", "push"])
def test_the_version_may_be_written(task: str) -> None:
    assert check_env(EnvOptions(task=task)).name == "metaworld/push"
