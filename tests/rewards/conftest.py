"""Small labels and options, so that a fit takes milliseconds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments

OBS, ACTION, STEPS = 4, 2, 6

MakeSegments = Callable[..., Segments]
MakeLabels = Callable[..., Labels]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def options() -> RewardOptions:
    return RewardOptions(hidden=(16, 16), batch_size=8, epochs=5, target_accuracy=1.0)


@pytest.fixture
def make_segments() -> MakeSegments:
    def make(count: int, seed: int = 0) -> Segments:
        """Segments whose true reward is linear in observation and action."""
        rng = np.random.default_rng(seed)
        obs = rng.normal(size=(count, STEPS, OBS)).astype(np.float32)
        action = rng.uniform(-1, 1, size=(count, STEPS, ACTION)).astype(np.float32)
        reward = obs @ np.array([1.0, -0.5, 0.25, 0.0], np.float32) + action @ np.array([0.5, 0.0], np.float32)
        index = np.arange(count, dtype=np.int64)
        return Segments(obs, action, reward, np.zeros((count, STEPS), np.bool_), index, np.zeros_like(index))

    return make


@pytest.fixture
def make_labels(make_segments: MakeSegments) -> MakeLabels:
    def make(count: int, seed: int = 0) -> Labels:
        """What a teacher without error would say."""
        left, right = make_segments(count, seed), make_segments(count, seed + 1000)
        target = (right.reward.sum(1) > left.reward.sum(1)).astype(np.float32)
        return Labels(left, right, target)

    return make
