"""Which of the candidate pairs become questions: B-Pref's six ways (section 3.3 and appendix)."""

import math
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from rayrlhf.errors import UserError, nearest
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Bools, Integers
from rayrlhf.preferences.segments import Segments
from rayrlhf.preferences.trajectories import Chosen, every_episode
from rayrlhf.queries.acquisition import disagreement, entropy
from rayrlhf.queries.diversity import k_center

Method = Literal["uniform", "disagreement", "entropy", "k_center", "k_center_disagreement", "k_center_entropy"]
Probability = Callable[[Segments, Segments], Tensor]
"""From `N` left and right segments to each member's P(right preferred), `[E, N]`."""

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "disagreement": disagreement,
    "entropy": entropy,
    "k_center_disagreement": disagreement,
    "k_center_entropy": entropy,
}
"""What the methods that consult the ensemble rank candidates by."""
METHODS: tuple[str, ...] = get_args(Method)


class SegmentSource(Protocol):
    """What `draw_pairs` needs of the trajectory store."""

    def legal_starts(self, length: int, chosen: Chosen = ...) -> int:
        """How many different segments of `length` steps the chosen episodes hold."""
        ...

    def sample_segments(
        self, count: int, length: int, rng: np.random.Generator, *, margin: int = 0, chosen: Chosen = ...
    ) -> Segments:
        """`count` of them, drawn uniformly with replacement, with `margin` transitions of context on either side."""
        ...


def draw_pairs(
    store: SegmentSource,
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    margin: int = 0,
    chosen: Chosen = every_episode,
) -> tuple[Segments, Segments]:
    """`count` pairs of segments of `length` steps, uniform over all pairs of two different segments.

    With `margin` they come with so many transitions of context on either side. `chosen` says of an episode's id
    whether its segments count.

    Raises:
        UserError: the store holds fewer than two different segments of this length.
    """
    if store.legal_starts(length, chosen) < 2:
        raise UserError(
            f"no question can be asked: the stored episodes hold fewer than two segments of {length} steps; "
            "lower queries.segment_length or collect more steps before the first session"
        )
    left = store.sample_segments(count, length, rng, margin=margin, chosen=chosen)
    right = store.sample_segments(count, length, rng, margin=margin, chosen=chosen)
    while (same := _same_segment(left, right)).any():
        redrawn = store.sample_segments(int(same.sum()), length, rng, margin=margin, chosen=chosen)
        order = np.arange(count)
        order[same] = count + np.arange(len(redrawn))
        right = Segments.concatenate([right, redrawn]).take(order)
    return left, right


def draw_pairs_by_task(
    store: SegmentSource,
    count: int,
    length: int,
    rng: np.random.Generator,
    task_of: Callable[[int], int],
    tasks: int,
    *,
    margin: int = 0,
) -> tuple[Segments, Segments]:
    """`draw_pairs`, both segments of a pair from episodes of one task, as many pairs of each of the `tasks` as can be.

    task_of: the task's number, by an episode's id

    Raises:
        UserError: no task has two different segments of this length.
    """
    of_task: list[Chosen] = [lambda episode, task=task: task_of(episode) == task for task in range(tasks)]  # type: ignore[misc]
    there = [chosen for chosen in of_task if store.legal_starts(length, chosen) > 1]
    if not there:
        return draw_pairs(store, count, length, rng, margin=margin, chosen=lambda _: False)
    there = [there[i] for i in rng.permutation(len(there))]  # what does not divide goes to others each time
    shares = [len(share) for share in np.array_split(np.arange(count), len(there))]
    drawn = [
        draw_pairs(store, share, length, rng, margin=margin, chosen=chosen)
        for share, chosen in zip(shares, there, strict=True)
    ]
    order = rng.permutation(count)  # else what is cut off first, or chosen on a tie, is always of the same task
    left, right = (Segments.concatenate(list(sides)).take(order) for sides in zip(*drawn, strict=True))
    return left, right


def select(
    method: Method | str,
    count: int,
    left: Segments,
    right: Segments,
    probability: Probability,
    labelled: Labels | None,
    rng: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
) -> Integers:
    """Chooses `count` of the `N` candidate pairs `(left[i], right[i])`.

    - `uniform`: `count` different candidates at random, the only method that uses `rng`.
    - `disagreement`, `entropy`: those with the highest scores, best first, lowest index first on ties.
    - `k_center`: farthest-first over the observations of both segments, starting from the labelled pairs.
    - `k_center_disagreement`, `k_center_entropy`: k-center over the better half of the candidates by score.

    Args:
        probability: called once with all candidates, and only by the methods that rank by it.
        labelled: the pairs answered so far; none is as good as an empty set.
        device: where distances are computed.

    Returns:
        `[count]` int64 indices, no index twice.

    Raises:
        UserError: unknown method, or fewer candidates than questions.
    """
    if method not in METHODS:
        raise UserError(
            f"unknown query selection {method!r}: use one of {', '.join(METHODS)}{nearest(method, METHODS)}"
        )
    if not 0 <= count <= len(left):
        raise UserError(f"cannot select {count} questions from {len(left)} candidate pairs; raise queries.candidates")
    if method == "uniform":
        return rng.choice(len(left), count, replace=False).astype(np.int64)
    kept = np.arange(len(left))
    if method in SCORES:
        kept = _best_first(SCORES[method](torch.as_tensor(probability(left, right))))
        kept = kept[: max(count, len(left) // 2) if method.startswith("k_center") else count]
    if not method.startswith("k_center"):
        return kept
    centres = pair_features(labelled.left, labelled.right).to(device) if labelled else None
    features = pair_features(left.take(kept), right.take(kept)).to(device)
    picks = k_center(features, features[:0] if centres is None else centres, count)
    chosen: Integers = kept[picks.cpu().numpy()]
    return chosen


def pair_features(left: Segments, right: Segments) -> Tensor:
    """The observations of both segments in one row, `[N, 2 * T * O]`; actions are left out."""
    return torch.cat(
        [torch.from_numpy(side.obs.reshape(len(side), math.prod(side.obs.shape[1:]))) for side in (left, right)], dim=1
    )


def _best_first(score: Tensor) -> Integers:
    """Indices by falling score `[N]`, stable: the lowest index first on ties."""
    order: Integers = score.sort(descending=True, stable=True).indices.cpu().numpy()
    return order


def _same_segment(left: Segments, right: Segments) -> Bools:
    """`[N]` true where both sides are the same piece of the same episode."""
    same: Bools = (left.episode == right.episode) & (left.start == right.start)
    return same
