"""RUNE's bonus against its equation."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.config import ExploreOptions
from rayrlhf.exploration.reward_spread import mean_and_spread, spread_weight


@given(st.floats(0.01, 1.0), st.floats(0.0, 0.01), st.integers(0, 300))
def test_the_weight_falls_by_a_share_with_each_step(weight: float, decay: float, steps: int) -> None:
    slow = weight
    for _ in range(steps):
        slow *= 1 - decay
    found = spread_weight(ExploreOptions(spread_weight=weight, spread_decay=decay), steps)
    np.testing.assert_allclose(found, slow, rtol=1e-9)


def test_the_spread_is_the_members_standard_deviation() -> None:
    rewards = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    found = mean_and_spread(torch.from_numpy(rewards)).numpy()
    np.testing.assert_allclose(found[:, 0], rewards.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], rewards.std(0), rtol=1e-5, atol=1e-6)
