"""Which questions a fit is tested on: apart from those it learns from, by episode where that is possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rayrlhf import seeding
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Bools, Integers

How = Literal["auto", "episodes", "questions"]
_LEAST_SHARE = 0.5
"""Of what was asked for: whole groups of episodes that hold less are too few to test on."""


@dataclass(frozen=True)
class Split:
    """Rows of the labels to learn from and to test on.

    dropped: labels of neither side: their two episodes are on different ones
    shared:  held-out labels that share an episode with training ones
    words:   what was done, for people
    """

    training: Integers
    held_out: Integers
    dropped: int
    shared: int
    words: str


def split(pairs: Integers, same: Integers, share: float, how: How, seed: int) -> Split:
    """Holds about `share` of the labels out.

    Questions that show the same two segments stay together always. Episodes link the questions that show them. `auto`
    holds whole groups of linked questions out, where the groups are small enough for it; else single questions, and it
    says how many of them share an episode with training ones. `episodes` holds episodes out, and drops the questions
    that show one of either side.

    Args:
        pairs: `[N, 2]` numbers of the episodes that a question shows.
        same: `[N]` a number of what it shows: equal ones are one question asked twice.
        share: of the labels, above 0 and below 1.

    Raises:
        UserError: one side would be empty.
    """
    rng = seeding.generator(seed, "held-out")
    dropped = np.zeros(len(pairs), np.bool_)
    held = _whole_groups(linked(pairs)[pairs[:, 0]], share, rng) if how == "auto" else np.zeros(len(pairs), np.bool_)
    words = "by episode: no episode is on both sides"
    if how == "episodes":
        held, dropped = _episodes(pairs, share, rng)
        words += f"; {dropped.sum():,} questions that show one of either side were left out"
    elif not held.any():
        held = _questions(same, share, rng)
        words = "by question"
    training, held_out = np.flatnonzero(~held & ~dropped), np.flatnonzero(held)
    if not (len(training) and len(held_out)):
        raise UserError(
            f"{len(pairs)} labels cannot be divided: nothing would be left to "
            f"{'test on' if len(training) else 'learn from'}; change --held-out or --split, or use --held-out 0"
        )
    shared = int(np.isin(pairs[held_out], pairs[training]).any(axis=1).sum())
    if words == "by question" and not shared:
        words += "; no episode is on both sides"
    if shared:
        words += f"; {shared:,} of {len(held_out):,} held-out ones share an episode with training ones"
    return Split(training, held_out, int(dropped.sum()), shared, words)


def linked(pairs: Integers) -> Integers:
    """Of each number in `pairs` `[N, 2]` its group `[K]`: two are in one if a chain of pairs leads between them."""
    count = int(pairs.max()) + 1
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    groups: Integers = connected_components(links, directed=False)[1]
    return groups


def _whole_groups(group: Integers, share: float, rng: np.random.Generator) -> Bools:
    """Groups at random, of about `share` of the rows; none where they are too large for it."""
    sizes, wanted, taken = np.bincount(group), share * len(group), 0
    held: list[int] = []
    for number in rng.permutation(np.unique(group)):
        if taken + sizes[number] <= wanted + 0.5:
            held.append(int(number))
            taken += int(sizes[number])
    return np.isin(group, held if taken >= _LEAST_SHARE * wanted else [])


def _questions(same: Integers, share: float, rng: np.random.Generator) -> Bools:
    """Questions at random, until their labels are `share` of all."""
    order = rng.permutation(np.unique(same))
    taken = np.cumsum(np.bincount(same)[order])
    return np.isin(same, order[: 1 + int(np.searchsorted(taken, round(share * len(same))))])


def _episodes(pairs: Integers, share: float, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """Held out and dropped `[N]`. A pair of random episodes is held out with the square of an episode's chance."""
    among = np.sqrt(share) / (np.sqrt(share) + np.sqrt(1.0 - share))
    names = rng.permutation(np.unique(pairs))
    inside = np.isin(pairs, names[: round(among * len(names))])
    return inside[:, 0] & inside[:, 1], inside[:, 0] ^ inside[:, 1]


def numbered(names: Sequence[object]) -> Integers:
    """A number for each distinct name, in the order of appearance, `[N]`."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
