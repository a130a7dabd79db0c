"""People who want random things of the toy's point: tasks for few-shot pre-training."""

import numpy as np

from rayrlhf.config import EnvOptions
from rayrlhf.envs import make_env
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Segments
from rayrlhf.seeding import generator

STEPS = 10
"""Of a segment, as in the preset `toy`."""
EPISODE = 50
POINTS = 40


def wishes(count: int, pairs: int) -> list[Labels]:
    """The labels of `count` people about `pairs` pairs each.

    Each wants some mixture of being near the goal, going towards it, being fast and pushing little, or the contrary of
    these, and looks at what points did that were pushed at random, towards the goal or away from it.
    """
    found = []
    for number in range(count):
        rng = generator(0, "wishes", number)
        obs, action = _walked(rng, number)
        left, right = (_segments(obs, action, pairs, rng) for _ in range(2))
        weights = rng.normal(size=4)
        wanted = [(_features(side) @ weights).sum(1) for side in (left, right)]
        found.append(Labels(left, right, (wanted[1] > wanted[0]).astype(np.float32)))
    return found


def _walked(rng: np.random.Generator, number: int) -> tuple[Floats, Floats]:
    """Observations `[T, N, 4]` and actions `[T, N, 2]` of one episode of each point."""
    env = make_env(EnvOptions(suite="toy", task="point", horizon=EPISODE), POINTS, seed=number, stream="evaluation")
    obs = env.reset([0] * POINTS)
    drive = rng.choice([-1.0, 0.0, 1.0], POINTS)[:, None]
    columns = []
    for _ in range(EPISODE):
        steered = drive * np.clip(10 * obs[:, :2] - 20 * obs[:, 2:], -1, 1)
        action = np.clip(steered + rng.normal(0, 0.5, (POINTS, 2)), -1, 1).astype(np.float32)
        columns.append((obs, action))
        obs = env.step(action).obs
    seen, done = zip(*columns, strict=True)
    return np.stack(seen), np.stack(done)


def _segments(obs: Floats, action: Floats, count: int, rng: np.random.Generator) -> Segments:
    point, start = rng.integers(POINTS, size=count), rng.integers(EPISODE - STEPS + 1, size=count)
    steps = start[:, None] + np.arange(STEPS)
    nothing = np.zeros((count, STEPS), np.float32)
    return Segments(obs[steps, point[:, None]], action[steps, point[:, None]], nothing, nothing > 0, point, start)


def _features(segments: Segments) -> Floats:
    """`[N, T, 4]` of about unit size: distance, speed towards the goal, speed, effort."""
    way, velocity = segments.obs[..., :2], segments.obs[..., 2:]
    distance = np.linalg.norm(way, axis=-1)
    towards = (way * velocity).sum(-1) / np.maximum(distance, 1e-3)
    speed, effort = np.linalg.norm(velocity, axis=-1), np.linalg.norm(segments.action, axis=-1)
    features: Floats = np.stack([distance - 1, 10 * towards, 10 * speed - 0.7, effort - 0.8], axis=-1)
    return features
