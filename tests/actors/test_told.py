"""Questions of a run that is told in words: of one task, both sides with one sentence, and diverse in what happened."""

from dataclasses import replace

import numpy as np
import pytest
from support import changed

from rayrlhf.actors.roles import TrajectoryRole
from rayrlhf.algorithms.collector import Collector, environment_of, number_of
from rayrlhf.config.schema import RunConfig
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.make import draws_of
from rayrlhf.language.instructions import Vocabulary
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments
from rayrlhf.queries.selection import select

WIDTH = 5


@pytest.fixture
def said() -> Instructions:
    """Two tasks in four wordings, all vectors different and long: whoever looks at them sees nothing else."""
    sentences = tuple(tuple(f"task {task}, wording {wording}" for wording in range(4)) for task in range(2))
    return Instructions(sentences, 100 * np.random.default_rng(0).normal(size=(2, 4, WIDTH)).astype(np.float32))


@pytest.fixture
def run(small_run: RunConfig) -> RunConfig:
    env = {"task": "point,point-away", "encoder": "hashing", "instruction_width": WIDTH, "horizon": 20}
    queries = {"segment_length": 8, "selection": "k_center"}
    return changed(small_run, env=env, queries=queries, reward={"crop": 2}, rollout={"envs_per_actor": 2})


def role_of(run: RunConfig, said: Instructions, explorer: RunConfig | None = None) -> TrajectoryRole:
    """Of a run whose episodes were made by itself, or by another run that explored for it."""
    role = TrajectoryRole(run, "run", 4 + WIDTH, 2, said)
    fragment, _ = Collector(explorer or run, 0, said).collect(200, "random", fragment=0, version=0)
    role.add(fragment)
    return role


@pytest.mark.parametrize("seed", [0, 1])
def test_both_sides_are_told_what_the_question_says(run: RunConfig, said: Instructions, seed: int) -> None:
    """Also of episodes in which another run, with a seed of its own, was told the same in other words."""
    role = role_of(run, said, changed(run, seed=seed))
    left, right = role.candidates(0, 30, 1)
    queries = role.choose(0, 30, "uniform", (left, right))
    assert len(set(queries.instructions)) > 4
    for i, sentence in enumerate(queries.instructions):
        vector = Vocabulary(said, "hashing").own[sentence]
        for side in (queries.left, queries.right):
            np.testing.assert_array_equal(side.obs[i, :, 4:], np.broadcast_to(vector, (8, WIDTH)))
            assert side.context is not None
            there = ~np.isnan(side.context[i, :, 0])
            np.testing.assert_array_equal(
                side.context[i, there, 4 : 4 + WIDTH], np.broadcast_to(vector, (there.sum(), 5))
            )
            episode = int(side.episode[i])
            draws = draws_of(run.env, run.seed, (environment_of(episode),))
            assert sentence in said.sentences[draws.task_of(0, number_of(episode))]


def test_diversity_is_of_what_happened(run: RunConfig, said: Instructions) -> None:
    role = role_of(run, said)
    pairs = role.candidates(0, 40, 1)
    labelled = Labels(pairs[0].take(np.arange(3)), pairs[1].take(np.arange(3)), np.zeros(3, np.float32))
    role.add_labels(labelled)
    chosen = role.choose(0, 6, "k_center", pairs)
    left, right = (np.array([s.episode, s.start]).T for s in (chosen.left, chosen.right))
    bare = [_bare(side) for side in pairs]
    known = Labels(bare[0].take(np.arange(3)), bare[1].take(np.arange(3)), labelled.target)
    expected = select("k_center", 6, *bare, lambda *_: None, known, np.random.default_rng(0))
    for side, found in zip(bare, (left, right), strict=True):
        np.testing.assert_array_equal(np.array([side.episode, side.start]).T[expected], found)


def _bare(segments: Segments) -> Segments:
    return replace(segments, obs=segments.obs[..., :4].copy(), context=None)
