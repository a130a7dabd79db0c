"""Filming a policy without Ray."""

import itertools

import numpy as np
import pytest
import torch

from rayrlhf import evaluating
from rayrlhf.config.load import load_config
from rayrlhf.envs import make_env
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.policies import SquashedActor

PROBLEM = rendering_problem()


@pytest.mark.parametrize(
    ("preset", "task"),
    [
        ("toy", "point"),
        pytest.param(
            "quickstart",
            "handle-press-side",
            marks=pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM)),
        ),
    ],
)
def test_a_film_shows_what_evaluation_saw_and_what_lies_between_two_decisions(preset: str, task: str) -> None:
    """Every third frame is what an environment that repeats actions itself shows where the policy decides."""
    config = load_config(
        preset, [f"env.task={task}", "env.action_repeat=3", "env.horizon=5", "queries.segment_length=5"]
    )
    env = make_env(config.env, 1, seed=config.seed, indices=[0], stream="final")
    torch.manual_seed(0)
    policy = SquashedActor(env.spec.obs_dim, env.spec.action_dim, config.sac).eval()
    frames = list(evaluating._frames(policy, config, range(2)))
    length = 3 * 5 + evaluating.PAUSE_FRAMES
    assert len(frames) == 2 * length
    try:
        for episode in range(2):
            obs = env.reset([episode])
            shown = []
            for _ in range(5):
                shown.append(env.render())
                with torch.inference_mode():
                    obs = env.step(policy.act(torch.from_numpy(obs), None).numpy()).obs
            film = frames[episode * length : (episode + 1) * length]
            np.testing.assert_array_equal(film[:15:3], shown)
            assert all(not np.array_equal(*pair) for pair in itertools.pairwise(film[:15]))
    finally:
        env.close()
