"""Preferences with a reward that a network can learn, for tests."""

from pathlib import Path

import numpy as np

from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, Segments, query_id

OBS, ACTION, STEPS = 4, 2, 6


def segments(count: int, seed: int, episodes: range | None = None, steps: int = STEPS) -> Segments:
    """Segments whose true reward is linear; each of an episode of its own, or of one of `episodes`."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, steps, OBS)).astype(np.float32)
    action = rng.uniform(-1, 1, size=(count, steps, ACTION)).astype(np.float32)
    reward = obs @ np.array([1.0, -0.5, 0.25, 0.0], np.float32) + action @ np.array([0.5, 0.0], np.float32)
    number = rng.integers(episodes.start, episodes.stop, count) if episodes else seed * 10_000 + np.arange(count)
    nothing = np.zeros(count, np.int64)
    return Segments(obs, action, reward, np.zeros((count, steps), np.bool_), number.astype(np.int64), nothing)


def queries(
    count: int, session: int = 0, episodes: range | None = None, instructions: tuple[str, ...] = (), steps: int = STEPS
) -> Queries:
    """Queries of random segments."""
    left, right = (segments(count, 2 * session + side, episodes, steps) for side in (0, 1))
    return Queries(tuple(query_id("demo", session, i) for i in range(count)), session, left, right, 1.0, instructions)


def answered(asked: Queries, annotator: str = "oracle") -> list[Answer]:
    """What a teacher without error says."""
    better = asked.right.reward.sum(1) > asked.left.reward.sum(1)
    said: list[Choice] = ["right" if right else "left" for right in better]
    return [Answer(key, choice, annotator) for key, choice in zip(asked.ids, said, strict=True)]


def dataset(where: Path, count: int, **options: object) -> PreferenceDataset:
    """`count` answered queries at `where`."""
    made, asked = PreferenceDataset(where), queries(count, **options)  # type: ignore[arg-type]
    made.append(asked, answered(asked))
    return made
