"""Moments that were recorded look the same when they are shown again, in another environment."""

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from rayrlhf.config import EnvOptions
from rayrlhf.envs import make_env, task_names
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.loop import LoopEnv
from rayrlhf.errors import UserError

needs_gl = pytest.mark.skipif(rendering_problem() is not None, reason="nothing can be drawn here")
SIZE = {"width": 120, "height": 90}
SOME = ["drawer-open", "window-close", "handle-press-side", "box-close", "basketball", "stick-pull", "door-lock"]
METAWORLD = [
    pytest.param("metaworld", task, marks=[] if task in SOME else [pytest.mark.slow])
    for task in task_names("metaworld")
]


def seen(env: VectorEnv, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Where everything in environment `index` is, and a frame of it.

    Gymnasium's cameras go after the robot and depend on what they saw before: their frames are left out.
    """
    simulation = env.envs[index].mujoco() if isinstance(env, LoopEnv) else None
    if simulation is None:
        return np.empty(0), env.render(index, **SIZE)
    mujoco.mj_forward(*simulation)  # a step leaves the places as they were before its last substep
    places = np.concatenate([simulation[1].geom_xpos.ravel(), simulation[1].geom_xmat.ravel()])
    return places, np.empty(0) if env.spec.name.startswith("gymnasium") else env.render(index, **SIZE)


def on_a_random_way(
    env: VectorEnv, episode: int, steps: int
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """What environment 1 looked like, and what was recorded of it, now and then."""
    rng = np.random.default_rng(episode)
    env.reset([episode] * env.num_envs)
    for step in range(steps):
        if step % 15 == 0:
            yield seen(env, 1), env.moments()[1]
        env.step(rng.uniform(-1, 1, (env.num_envs, env.spec.action_dim)).astype(np.float32))


@needs_gl
@pytest.mark.parametrize(
    ("suite", "task"),
    [
        *METAWORLD,
        ("toy", "point"),
        ("gymnasium", "HalfCheetah-v5"),
        ("gymnasium", "Pusher-v5"),
        ("dmc", "cartpole-balance"),
        ("dmc", "finger-turn_hard"),
        ("dmc", "point_mass-hard"),
        ("dmc", "humanoid-run"),
    ],
)
def test_a_moment_looks_the_same_again(suite: str, task: str) -> None:
    """Of any episode, in any order, in an environment that never stepped there."""
    if suite == "dmc":
        pytest.importorskip("dm_control")
    options = EnvOptions(suite=suite, task=task)
    env, again, draws = make_env(options, 2, seed=5), make_env(options, 1, seed=5), Draws(5, "environment", (0, 1))
    moments = [
        (draws.seed_of(1, episode), *moment) for episode in (0, 3) for moment in on_a_random_way(env, episode, 40)
    ]
    assert len({moment.tobytes() for _, _, moment in moments}) >= len(moments) - 1, "both may begin alike"
    for index in np.random.default_rng(0).permutation(2 * len(moments)) % len(moments):
        start, (places, frame), moment = moments[index]
        again.recall(0, start, moment)
        found_places, found = seen(again, 0)
        np.testing.assert_allclose(found_places, places, atol=1e-5)  # moments are kept in single precision
        apart = np.abs(found.astype(float) - frame)
        assert apart.size == 0 or apart.mean() < 0.05, "a pixel on an edge may fall to the other side"


def test_a_reset_ends_what_was_recalled() -> None:
    options = EnvOptions(suite="metaworld", task="drawer-open")
    env, fresh = (make_env(options, 1, seed=1) for _ in range(2))
    first = fresh.reset([4])
    env.reset([4])
    env.recall(0, 77, env.moments()[0])
    np.testing.assert_array_equal(env.reset([4]), first)
    action = np.full((1, 4), 0.5, np.float32)
    np.testing.assert_array_equal(env.step(action).obs, fresh.step(action).obs)


@pytest.mark.parametrize(
    ("suite", "task", "backend"), [("gymnasium", "Pendulum-v1", "python"), ("metaworld", "drawer-open", "envpool")]
)
def test_what_cannot_be_recalled_says_so(suite: str, task: str, backend: str) -> None:
    if backend == "envpool":
        pytest.importorskip("envpool")
    env = make_env(EnvOptions(suite=suite, task=task, backend=backend), 1, seed=0)
    assert not env.spec.recalls
    env.reset([0])
    for call in (env.moments, lambda: env.recall(0, 0, np.zeros(1, np.float32))):
        with pytest.raises(UserError, match="clips"):
            call()
