"""How far a reward model is from the true reward, on the toy, whose reward is known in closed form."""

import numpy as np
import torch

from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.evaluation import coverage
from rayrlhf.evaluation.coverage import collect, distance_to_truth, regress
from rayrlhf.policies import Actor, make_actor
from rayrlhf.preferences.fragments import Floats

RUN: RunConfig = load_config("toy", ["seed=3"])


def policy() -> Actor:
    torch.manual_seed(0)
    return make_actor(RUN, 4, 2).eval().requires_grad_(False)


class Known:
    """A reward model that is a function."""

    def __init__(self, scale: float, potential: float, noise: float) -> None:
        self._scale, self._potential, self._noise = scale, potential, noise

    def score(self, obs: Floats, action: Floats) -> torch.Tensor:
        """Some multiple of the true reward, shaped by the speed after a step, and something else."""
        speed = np.clip(0.8 * obs[:, 2:] + 0.03 * action, -9, 9)  # the toy's own dynamics, away from its walls
        away = obs[:, :2] - speed
        true = 1 - np.linalg.norm(away, axis=1) / 2
        shaping = 0.99 * np.square(speed).sum(1) - np.square(obs[:, 2:]).sum(1)
        other = np.sin(40 * obs[:, 0]) * np.cos(30 * obs[:, 1])
        return torch.from_numpy(self._scale * true + self._potential * shaping + self._noise * other)


def test_a_third_each_by_policy_and_at_random() -> None:
    episodes = collect(policy(), RUN)
    assert sum(map(len, episodes)) >= coverage.STEPS
    by_policy = [
        np.allclose(e.action, policy().act(torch.from_numpy(e.obs), None).numpy(), atol=1e-5) for e in episodes
    ]
    assert np.mean(by_policy) == 1 / 3
    follows = np.concatenate([e.next_obs[:-1] == e.obs[1:] for e in episodes])
    assert follows.all()
    again = collect(policy(), RUN)
    np.testing.assert_array_equal(again[-1].action, episodes[-1].action)


def test_the_regression_finds_the_true_reward() -> None:
    predict, explained = regress(collect(policy(), RUN), 3)
    assert explained > 0.98
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-0.5, 0.5, (200, 4)).astype(np.float32), rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    obs[:, 2:] *= 0.1
    true = Known(1, 0, 0).score(obs, action).numpy()
    assert np.abs(predict(obs, action) - true).mean() < 0.02


def test_scaled_and_shaped_is_near_and_unrelated_is_far() -> None:
    near, shaped, turned, unrelated = (
        distance_to_truth(policy(), Known(*of), RUN, gamma=0.99)  # type: ignore[arg-type]
        for of in ((1, 0, 0), (3, 20, 0), (-1, 0, 0), (0, 0, 1))
    )
    assert near.epic is not None and near.epic < 0.1
    assert shaped.epic is not None and shaped.epic < 0.25
    assert turned.epic is not None and turned.epic > 0.95
    assert unrelated.epic is not None and 0.6 < unrelated.epic < 0.8
    assert near.per_step.pearson is not None and near.per_step.pearson > 0.99
    assert shaped.per_step.pearson is not None and near.explained == shaped.explained > 0.98
