"""The labels of a dataset, with what is known of where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rayrlhf.errors import UserError
from rayrlhf.fitting.split import linked, numbered
from rayrlhf.language.instructions import told, vectors_of
from rayrlhf.preferences.answers import Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset, shape_of
from rayrlhf.preferences.fragments import Integers
from rayrlhf.preferences.segments import Queries


@dataclass(frozen=True)
class Labelled:
    """All labels of a dataset.

    episodes:  `[N, 2]` a number of the episode on either side; those of different runs are different ones, unless
               they show the same
    pairs:     `[N]` `Queries.pairs`
    questions: with those that nobody answered, or only by a skip
    """

    labels: Labels
    episodes: Integers
    pairs: tuple[str, ...]
    questions: int

    @property
    def same(self) -> Integers:
        """A number of each pair, `[N]`: equal ones are one question asked twice."""
        return numbered(self.pairs)


def read_labels(dataset: PreferenceDataset) -> Labelled:
    """Raises `UserError` where there are no labels, or segments of several shapes."""
    records = dataset.read()
    shapes = {shape_of(queries) for queries, _ in records}
    if len(shapes) > 1:
        listed = ", ".join(f"{t} steps, obs {o}, action {a}" for t, o, a in sorted(shapes))
        raise UserError(f"{dataset.where} holds segments of several shapes ({listed}): fit a dataset of one")
    parts, names, shown, pairs = [], list[tuple[str, int]](), list[bytes](), list[str]()
    for queries, answers in records:
        judged = queries.among({answer.query_id for answer in answers if answer.choice != "skip"})
        parts.append(labels_from(judged, answers))
        names += _names(judged)
        shown += [side for both in zip(judged.left.shown(), judged.right.shown(), strict=True) for side in both]
        pairs += judged.pairs()
    if not pairs:
        raise UserError(f"{dataset.where} holds no labels: nobody has answered, or only with skips")
    return Labelled(
        Labels.concatenate(parts), _episodes(names, shown), tuple(pairs), sum(len(queries) for queries, _ in records)
    )


def with_words(data: Labelled, encoder: str, width: int, where: str) -> Labelled:
    """The labels with `width` numbers for their instructions in the observations.

    Raises:
        UserError: the encoder is not on this machine, or a label names no instruction.
    """
    numbers = partial(vectors_of, encoder=encoder, width=width)
    return replace(data, labels=told(data.labels, numbers, where))


def _names(queries: Queries) -> list[tuple[str, int]]:
    """Of each query the names of both episodes: the run that an id begins with, and the episode's number there.

    An id without a run's name is of one run with all others without.
    """
    sides = zip(queries.ids, queries.left.episode.tolist(), queries.right.episode.tolist(), strict=True)
    return [(key.partition("/")[0] if "/" in key else "", episode) for key, *both in sides for episode in both]


def _episodes(names: Sequence[tuple[str, int]], shown: Sequence[bytes]) -> Integers:
    """A number of each side's episode, `[N, 2]`. Those that show one segment are one, whatever they are called."""
    number, segment = numbered(names), numbered(shown)
    first_of_segment = np.unique(segment, return_index=True)[1]
    one_and_same = np.stack([number, number[first_of_segment[segment]]], axis=1)
    return linked(one_and_same)[number].reshape(-1, 2)
