"""The C++ backend: its steps, what it refuses, and its parity with the Python backend under scripted experts."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import EnvironmentBroken, VectorEnv, check_env, make_env, task_names
from rayrlhf.errors import UserError

pytest.importorskip("envpool")

FAST = ["button-press", "drawer-close", "window-close"]
OTHER_REWARD = {
    "button-press-topdown-wall": "mended in MetaWorld 3.0.1; EnvPool was built from 3.0.0",
    "door-lock": "MetaWorld measures from the lock as it moves, EnvPool from where it was: returns 3450 and 4200",
}
OTHER_TASK = {"dial-turn": "EnvPool's dial hardly turns: the expert succeeds always in MetaWorld and never in EnvPool"}


def pool(num_envs: int, task: str = "drawer-open", seed: int = 0, **options: Any) -> VectorEnv:
    return make_env(EnvOptions(task=task, backend="envpool", **options), num_envs, seed=seed)


def test_both_backends_know_the_same_tasks() -> None:
    assert task_names("metaworld", "envpool") == task_names("metaworld", "python")


def test_tasks_that_differ_from_metaworlds_say_so_and_name_the_other_backend() -> None:
    caveats = {task: check_env(EnvOptions(task=task, backend="envpool")).caveat for task in task_names("metaworld")}
    assert {task for task, caveat in caveats.items() if caveat} == OTHER_REWARD.keys() | OTHER_TASK.keys()
    assert all(task in caveats[task] and "env.backend python" in caveats[task] for task in OTHER_REWARD | OTHER_TASK)
    assert not any(check_env(EnvOptions(task=task)).caveat for task in caveats)


def test_a_step_has_the_last_observation_and_the_next_episodes_first() -> None:
    """Compared with a pool of a longer horizon, in which nothing ends, and with the pool's own next episode."""
    short, long = pool(3, horizon=4), pool(3, horizon=50)
    np.testing.assert_array_equal(short.reset([0] * 3), long.reset([0] * 3))
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 4))
    for t, action in enumerate(actions):
        ended, going = short.step(action), long.step(action)
        np.testing.assert_array_equal(ended.next_obs, going.next_obs)
        np.testing.assert_array_equal(ended.reward, going.reward)
        assert ended.truncated.all() == (t == 3) and not ended.terminated.any()
    assert not np.allclose(ended.obs, ended.next_obs)
    np.testing.assert_array_equal(ended.obs[:, :18], ended.obs[:, 18:36])  # a first observation repeats its frame
    after = short.step(np.ones((3, 4)))
    assert not after.truncated.any()
    assert not np.array_equal(after.next_obs, ended.obs)  # the step after the end is an executed step, not the reset
    np.testing.assert_allclose(after.next_obs[:, 18:36], ended.obs[:, :18], atol=1e-6)  # and it follows the first frame


def test_environments_of_a_pool_end_on_their_own() -> None:
    env = pool(2, horizon=5)
    env.reset([0, 0])
    env._step[1] = 3  # the second one ends two steps on, the first one goes on undisturbed
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2, 4))
    steps = [env.step(action) for action in actions]
    assert [step.truncated.tolist() for step in steps] == [
        [False, False],
        [False, True],
        [False] * 2,
        [False] * 2,
        [True, False],
    ]
    alone = make_env(EnvOptions(task="drawer-open", backend="envpool", horizon=50), 1, seed=0, indices=[0])
    alone.reset([0])
    for action, step in zip(actions, steps, strict=True):
        np.testing.assert_array_equal(alone.step(action[:1]).next_obs[0], step.next_obs[0])


def test_reset_gives_the_same_start_for_the_same_episode() -> None:
    env = pool(2)
    starts = [env.reset([0, 0]), env.reset([3, 4]), env.reset([0, 0])]
    np.testing.assert_array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], pool(2, seed=1).reset([0, 0]))


def test_goal_is_hidden_or_shown() -> None:
    np.testing.assert_array_equal(pool(2).reset([0, 0])[:, 36:39], 0.0)
    assert np.abs(pool(2, goal_hidden=False).reset([0, 0])[:, 36:39]).max() > 0.1


def test_action_repeat_equals_repeating() -> None:
    once, twice = pool(2, horizon=6), pool(2, horizon=3, action_repeat=2)
    np.testing.assert_array_equal(once.reset([0, 0]), twice.reset([0, 0]))
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 2, 4)):
        first, second, both = once.step(action), once.step(action), twice.step(action)
        np.testing.assert_array_equal(both.next_obs, second.next_obs)
        np.testing.assert_allclose(both.reward, first.reward + second.reward, rtol=1e-6)
    assert both.truncated.all()
    np.testing.assert_array_equal(both.obs, second.obs)


def test_threads_change_nothing_but_the_time() -> None:
    one, three = pool(5, horizon=7), pool(5, horizon=7, threads=3)
    np.testing.assert_array_equal(one.reset([0] * 5), three.reset([0] * 5))
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 5, 4)):
        for a, b in zip(vars(one.step(action)).values(), vars(three.step(action)).values(), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match=r"env\.threads.*env\.backend envpool"):
        check_env(EnvOptions(threads=2))


@pytest.mark.parametrize(
    ("method", "after", "named"),
    [("reset", 0, "episode 0, step 0"), ("step", 2, "episode 0, step 2"), ("reset", 2, "episode 1, step 0")],
)
@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_pool_that_raises_is_named(
    monkeypatch: pytest.MonkeyPatch, num_envs: int, method: str, after: int, named: str
) -> None:
    """The first start, a step, and a new episode's start."""
    env: Any = pool(num_envs, horizon=3)
    opened = env._open

    def failing(*_: Any) -> Any:
        raise RuntimeError("no more memory\nwhy is below")

    def open_and_break(seeds: list[int]) -> Any:
        made = opened(seeds)
        if not after:
            monkeypatch.setattr(made, method, failing)
        return made

    env._open = open_and_break
    whose = "it or another of its pool of 2 failed: " if num_envs > 1 else ""
    said = f"drawer-open: environment 0 broke in {named}: {whose}RuntimeError: no more memory$"
    with pytest.raises(EnvironmentBroken, match=said):
        env.reset([0] * num_envs)
        for step in range(4):
            if step == after:
                monkeypatch.setattr(env._pool, method, failing)
            env.step(np.zeros((num_envs, 4)))


@pytest.mark.parametrize("choice", [{"reward_version": "v1"}, {"random_start": False}])
def test_what_it_lacks_is_refused_naming_the_python_backend(choice: dict[str, Any]) -> None:
    options = EnvOptions(backend="envpool", **choice)
    for use in (check_env, lambda o: make_env(o, 1, seed=0)):
        with pytest.raises(UserError, match=r"env\.backend python"):
            use(options)
    with pytest.raises(UserError, match=r"rendering.*env\.backend python"):
        pool(1).render()


def test_a_missing_package_is_named_with_its_remedy() -> None:
    program = (
        "import sys; sys.modules['envpool'] = None\n"
        "from rayrlhf.config.schema import EnvOptions\n"
        "from rayrlhf.envs import check_env\n"
        "from rayrlhf.errors import UserError\n"
        "try: check_env(EnvOptions(backend='envpool'))\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install rayrlhf[fast]" in done.stdout


def expert_episodes(task: str, backend: str, num_envs: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Success in any step and return `[N]` of the scripted expert, goal shown."""
    options = EnvOptions(task=task, backend=backend, goal_hidden=False, horizon=horizon)
    env, policy = make_env(options, num_envs, seed=0), ENV_POLICY_MAP[f"{task}-v3"]()
    obs = env.reset([0] * num_envs)
    success, returns = np.zeros(num_envs, np.bool_), np.zeros(num_envs)
    for _ in range(horizon):
        step = env.step(np.stack([policy.get_action(row.astype(np.float64)) for row in obs]))
        success |= step.success
        returns += step.reward
        obs = step.obs
    env.close()
    return success, returns


def assert_parity(task: str, num_envs: int, horizon: int) -> float:
    """The joint success rate. The starts differ: rates and mean returns must agree within what the draws allow."""
    python_success, python_return = expert_episodes(task, "python", num_envs, horizon)
    pool_success, pool_return = expert_episodes(task, "envpool", num_envs, horizon)
    rates = python_success.mean(), pool_success.mean()
    rate = float(rates[0] + rates[1]) / 2
    assert abs(rates[0] - rates[1]) <= 3.5 * np.sqrt(2 * max(rate * (1 - rate), 0.5 / num_envs) / num_envs), rates
    if task not in OTHER_REWARD:
        error = np.sqrt((python_return.var(ddof=1) + pool_return.var(ddof=1)) / num_envs)
        slack = 0.01 * abs(python_return.mean())
        assert abs(python_return.mean() - pool_return.mean()) <= 4 * error + slack, (python_return, pool_return)
    return rate


@pytest.mark.filterwarnings("ignore:Constant")  # the experts' actions are clipped, as they say
@pytest.mark.parametrize("task", FAST)
def test_experts_fare_alike_on_both_backends(task: str) -> None:
    assert assert_parity(task, num_envs=4, horizon=120) == 1.0


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in task_names("metaworld", "python") if task not in OTHER_TASK])
def test_experts_fare_alike_on_all_tasks(task: str) -> None:
    assert_parity(task, num_envs=20, horizon=500)


@pytest.mark.parametrize("task", ["reach", "button-press"])
def test_the_hand_moves_alike_on_both_backends(task: str) -> None:
    """The hand's way under equal actions does not depend on the draw until it touches something."""
    python = make_env(EnvOptions(task=task), 1, seed=0)
    cpp = pool(1, task)
    python.reset([0])
    cpp.reset([0])
    for action in np.random.default_rng(0).uniform(-1, 1, (15, 1, 4)):
        ours, theirs = python.step(action).next_obs, cpp.step(action).next_obs
        np.testing.assert_allclose(ours[:, :4], theirs[:, :4], atol=2e-3)
