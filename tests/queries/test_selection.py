"""The six ways to select, against slow restatements, and the drawing of pairs."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.preferences.segments import Segments
from rayrlhf.preferences.trajectories import TrajectoryStore
from rayrlhf.queries.selection import METHODS, draw_pairs, draw_pairs_by_task, select

N = 40


def segments(count: int, seed: int) -> Segments:
    rng = np.random.default_rng(seed)
    return Segments(
        obs=rng.normal(size=(count, 6, 3)).astype(np.float32),
        action=rng.normal(size=(count, 6, 2)).astype(np.float32),
        reward=rng.normal(size=(count, 6)).astype(np.float32),
        success=np.zeros((count, 6), bool),
        episode=np.arange(count),
        start=np.zeros(count, np.int64),
    )


def labels(count: int) -> Labels:
    return Labels(segments(count, 5), segments(count, 6), np.zeros(count, np.float32))


def probability(left: Segments, right: Segments) -> torch.Tensor:
    """Three members that prefer by different parts of the observation, `[3, N]`."""
    return torch.from_numpy((right.obs - left.obs).sum(1).T).sigmoid()


def never(left: Segments, right: Segments) -> torch.Tensor:
    raise AssertionError("this method must not consult the reward model")


def slow_scores(method: str, left: Segments, right: Segments) -> list[float]:
    columns = probability(left, right).double().T.tolist()
    if method.endswith("disagreement"):
        return [float(np.std(column)) for column in columns]
    return [sum(-q * math.log(q) for p in column for q in (p, 1 - p)) / len(column) for column in columns]


def slow_k_center(kept: list[int], left: Segments, right: Segments, labelled: Labels | None, count: int) -> list[int]:
    def row(a: Segments, b: Segments, i: int) -> np.ndarray:
        return np.concatenate([a.obs[i].ravel(), b.obs[i].ravel()]).astype(np.float64)

    centres = [row(labelled.left, labelled.right, i) for i in range(len(labelled))] if labelled else []
    picks: list[int] = []
    for _ in range(count):
        rest = [i for i in kept if i not in picks]
        gaps = [min((np.linalg.norm(row(left, right, i) - c) for c in centres), default=np.inf) for i in rest]
        picks.append(rest[int(np.argmax(gaps))])
        centres.append(row(left, right, picks[-1]))
    return picks


@pytest.mark.parametrize("labelled", [None, labels(0), labels(7)], ids=["none", "empty", "seven"])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "uniform"])
def test_methods_equal_their_descriptions(method: str, labelled: Labels | None) -> None:
    left, right = segments(N, 1), segments(N, 2)
    kept = list(range(N))
    if method != "k_center":
        scores = slow_scores(method, left, right)
        kept = sorted(kept, key=lambda i: -scores[i])
    if method.startswith("k_center_"):
        kept = kept[: N // 2]  # the better half
    expected = slow_k_center(kept, left, right, labelled, 8) if method.startswith("k_center") else kept[:8]
    model = never if method == "k_center" else probability
    chosen = select(method, 8, left, right, model, labelled, np.random.default_rng(0))
    assert chosen.tolist() == expected
    assert chosen.dtype == np.int64


def test_uniform_draws_every_candidate_alike_and_none_twice() -> None:
    left, right = segments(10, 1), segments(10, 2)
    rng = np.random.default_rng(0)
    drawn = [select("uniform", 4, left, right, never, None, rng).tolist() for _ in range(5000)]
    assert all(len(set(chosen)) == 4 for chosen in drawn)
    counts = Counter(i for chosen in drawn for i in chosen)
    # 2000 expected of each, standard deviation sqrt(5000 * 0.4 * 0.6) = 35
    assert all(abs(counts[i] - 2000) < 5 * 35 for i in range(10))


def test_only_uniform_uses_the_generator() -> None:
    left, right = segments(N, 1), segments(N, 2)
    for method in METHODS:
        rng = np.random.default_rng(0)
        select(method, 3, left, right, probability, None, rng)
        assert (rng.bit_generator.state == np.random.default_rng(0).bit_generator.state) == (method != "uniform")


@pytest.mark.parametrize("method", ["disagreement", "entropy"])
def test_ties_go_to_the_lowest_index(method: str) -> None:
    left, right = segments(6, 1), segments(6, 2)
    table = torch.tensor([[0.5, 0.1, 0.4, 0.1, 0.4, 0.1], [0.5, 0.9, 0.6, 0.9, 0.6, 0.9]])
    expected = [1, 3, 5, 2, 4, 0] if method == "disagreement" else [0, 2, 4, 1, 3, 5]
    chosen = select(method, 6, left, right, lambda a, b: table, None, np.random.default_rng(0))
    assert chosen.tolist() == expected


@pytest.mark.parametrize("method", METHODS)
def test_all_candidates_can_be_asked_for_and_no_more(method: str) -> None:
    left, right = segments(5, 1), segments(5, 2)
    chosen = select(method, 5, left, right, probability, labels(2), np.random.default_rng(0))
    assert sorted(chosen.tolist()) == list(range(5))
    with pytest.raises(UserError, match="cannot select 6 questions from 5"):
        select(method, 6, left, right, probability, None, np.random.default_rng(0))


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'disagreement'"):
        select("disagreemnt", 1, segments(2, 1), segments(2, 2), probability, None, np.random.default_rng(0))


def episode(steps: int) -> Fragment:
    """One episode whose observation is its step."""
    step = np.arange(steps, dtype=np.float32)[:, None]
    no = np.zeros((steps, 1), bool)
    end = no.copy()
    end[-1] = True
    obs, action = step[:, :, None], np.zeros((steps, 1, 1), np.float32)
    return Fragment(obs, action, obs, step, no, end, no, np.zeros((steps, 1), np.int64), step.astype(np.int64))


def test_pairs_are_uniform_over_different_segments() -> None:
    store = TrajectoryStore(10, obs_dim=1, action_dim=1)
    store.add(episode(8))
    left, right = draw_pairs(store, 6000, 6, np.random.default_rng(0))  # starts 0, 1, 2
    counts = Counter(zip(left.start.tolist(), right.start.tolist(), strict=True))
    assert set(counts) == {(a, b) for a in range(3) for b in range(3) if a != b}
    # 1000 expected of each of six, standard deviation sqrt(6000 / 6 * 5 / 6) = 29
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())
    assert (right.obs[:, 0, 0] == right.start).all()


def test_a_store_without_two_segments_gives_no_question() -> None:
    store = TrajectoryStore(10, obs_dim=1, action_dim=1)
    store.add(episode(8))
    with pytest.raises(UserError, match="fewer than two segments of 8 steps"):
        draw_pairs(store, 1, 8, np.random.default_rng(0))


def test_pairs_are_of_one_task_and_as_many_of_each() -> None:
    """Task 2 has one segment only, of which no pair can be made."""
    store = TrajectoryStore(20, obs_dim=1, action_dim=1)
    lengths = [6, 6, 3, 9, 7]
    for episode, length in enumerate(lengths):
        columns = np.full((length, 1, 1), episode, np.float32)
        flat, ended = np.zeros((length, 1), np.float32), np.zeros((length, 1), bool)
        number = np.full((length, 1), episode, np.int64)
        store.add(
            Fragment(columns, columns * 0, columns, flat, ended, ended, ended, number, np.arange(length)[:, None])
        )
    rng = np.random.default_rng(0)
    left, right = draw_pairs_by_task(store, 101, 3, rng, lambda episode: episode % 3, 3)
    tasks = left.episode % 3
    np.testing.assert_array_equal(tasks, right.episode % 3)
    assert sorted(np.bincount(tasks, minlength=3).tolist()) == [0, 50, 51]
    assert not ((left.episode == right.episode) & (left.start == right.start)).any()
    assert not (np.diff(tasks) >= 0).all(), "mixed"
    assert set(left.episode) == {0, 1, 3, 4}
    few = [draw_pairs_by_task(store, 1, 3, rng, lambda episode: episode % 3, 3)[0] for _ in range(40)]
    assert len({int(side.episode[0]) % 3 for side in few}) == 2, "one question a session is not always of the same task"
    with pytest.raises(UserError, match="fewer than two segments"):
        draw_pairs_by_task(store, 5, 3, rng, lambda episode: episode, 0)
