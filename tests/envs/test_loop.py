"""Automatic resets, limits and broken environments, on an environment whose every number is known."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import EnvironmentBroken, VectorEnv, make_env

ID = "rayrlhf/Counter-v0"


class Counter(gymnasium.Env[Any, Any]):
    """Observes (draw, steps so far), rewards the step's number, and fails as `fault` says in its third episode."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(np.array([0.0]), np.array([4.0]), dtype=np.float64)

    def __init__(self, render_mode: str | None = None, fault: str = "none", terminate_at: int = 0) -> None:
        self.render_mode, self.fault, self.terminate_at = render_mode, fault, terminate_at
        self.episodes, self.actions = 0, []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.draw, self.steps = float(seed % 1000), 0
        self.episodes += 1
        return np.array([self.draw, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.steps += 1
        obs, reward = np.array([self.draw, self.steps]), float(self.steps)
        if self.episodes == 3 and self.steps == 5:
            obs[1] = np.nan if self.fault == "obs" else obs[1]
            reward = np.inf if self.fault == "reward" else reward
            if self.fault == "exception":
                raise RuntimeError("the simulator fell over\nin two lines")
        return obs, reward, self.steps == self.terminate_at, False, {"success": self.steps == 2}


gymnasium.register(ID, lambda **kwargs: Counter(**kwargs))
gymnasium.register("rayrlhf/CounterEnding-v0", lambda **kwargs: Counter(terminate_at=4, **kwargs))
for kind in ("obs", "reward", "exception"):
    gymnasium.register(f"rayrlhf/Counter-{kind}-v0", lambda fault=kind, **kwargs: Counter(fault=fault, **kwargs))


def make(task: str = ID, num_envs: int = 1, **options: Any) -> VectorEnv:
    options = {"horizon": 6, **options}
    return make_env(EnvOptions(suite="gymnasium", task=task, **options), num_envs, seed=0)


def test_a_step_has_the_last_observation_and_the_next_episodes_first() -> None:
    env = make(num_envs=2)
    first = env.reset([0, 0])
    for t in range(1, 6):
        step = env.step(np.zeros((2, 1)))
        np.testing.assert_array_equal(step.next_obs[:, 1], t)
        np.testing.assert_array_equal(step.obs, step.next_obs)
        assert not step.truncated.any()
    last = env.step(np.zeros((2, 1)))
    assert last.truncated.all() and not last.terminated.any()
    np.testing.assert_array_equal(last.next_obs, np.stack([first[:, 0], [6, 6]], axis=1))
    np.testing.assert_array_equal(last.obs[:, 1], 0)
    np.testing.assert_array_equal(last.obs, env.reset([1, 1]))


def test_early_termination_is_no_truncation_and_wins_over_it() -> None:
    for horizon in (6, 4):
        env = make("rayrlhf/CounterEnding-v0", horizon=horizon)
        env.reset([0])
        steps = [env.step(np.zeros((1, 1))) for _ in range(8)]
        assert [bool(step.terminated[0]) for step in steps] == [False, False, False, True] * 2
        assert not any(step.truncated[0] for step in steps)


def test_action_repeat_stops_at_the_end_of_an_episode() -> None:
    env = make("rayrlhf/CounterEnding-v0", action_repeat=3)
    env.reset([0])
    first, second = env.step(np.zeros((1, 1))), env.step(np.zeros((1, 1)))
    assert (first.reward[0], second.reward[0]) == (1 + 2 + 3, 4)
    assert (bool(first.success[0]), bool(second.success[0])) == (True, False)
    assert second.terminated[0]
    assert second.next_obs[0, 1] == 4


def test_actions_are_clipped_and_scaled_to_the_bounds() -> None:
    env = make(num_envs=1)
    env.reset([0])
    for action in (-1.0, 0.0, 1.0, 5.0):
        env.step(np.array([[action]]))
    seen = [float(action[0]) for action in env.envs[0]._env.unwrapped.actions]
    assert seen == [0.0, 2.0, 4.0, 4.0]


def test_held_arrays_stay_as_they_were() -> None:
    env = make()
    obs = env.reset([0])
    step = env.step(np.zeros((1, 1)))
    held, copies = (
        [obs, step.obs, step.next_obs, step.reward],
        [a.copy() for a in (obs, step.obs, step.next_obs, step.reward)],
    )
    for _ in range(8):
        env.step(np.zeros((1, 1)))
    for array, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("obs", "observation is not finite"), ("reward", "reward is not finite"), ("exception", "fell over")],
)
def test_a_broken_environment_names_task_episode_and_step(fault: str, words: str) -> None:
    env = make(f"rayrlhf/Counter-{fault}-v0")
    env.reset([0])
    for _ in range(2 * 6 + 4):
        env.step(np.zeros((1, 1)))
    with pytest.raises(EnvironmentBroken, match=words) as caught:
        env.step(np.zeros((1, 1)))
    error = caught.value
    assert (error.task, error.index, error.episode, error.step) == (f"gymnasium/rayrlhf/Counter-{fault}-v0", 0, 2, 4)
    assert "episode 2, step 4" in str(error) and "\n" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "options",
    [
        EnvOptions(suite="gymnasium", task="rayrlhf/Counter-v0", horizon=4),
        EnvOptions(suite="toy", task="point", horizon=4),
        EnvOptions(task="button-press", horizon=4),
        EnvOptions(task="button-press", horizon=4, backend="envpool"),
    ],
    ids=["loop", "toy", "metaworld", "envpool"],
)
def test_an_action_that_is_not_a_number_reaches_no_simulator(options: EnvOptions) -> None:
    """MuJoCo would go on from another state. What is too large is clipped, however large."""
    if options.backend == "envpool":
        pytest.importorskip("envpool")
    env = make_env(options, 2, seed=0, indices=[4, 9])
    env.reset([0, 3])
    actions = np.zeros((2, env.spec.action_dim), np.float32)
    env.step(actions)
    actions[1, -1] = np.nan
    with pytest.raises(EnvironmentBroken, match=r"environment 9 broke in episode 3, step 1: .* action is not a number"):
        env.step(actions)
    actions[1, -1] = np.inf
    assert np.isfinite(env.step(actions).next_obs).all()
    if "Counter" in options.task:
        executed = [[float(a[0]) for a in one._env.unwrapped.actions] for one in env.envs]  # type: ignore[attr-defined]
        assert executed == [[2.0, 2.0], [2.0, 4.0]], "the one beside it was not stepped either; its bounds are [0, 4]"


def test_wrong_shapes_are_programming_errors() -> None:
    env = make(num_envs=2)
    with pytest.raises(ValueError, match="episodes"):
        env.reset([0])
    env.reset([0, 0])
    with pytest.raises(ValueError, match="actions"):
        env.step(np.zeros((2, 3)))
