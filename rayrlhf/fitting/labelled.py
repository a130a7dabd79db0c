"""The labels of a dataset, with what is known of where they come from."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial

from rayrlhf.errors import UserError
from rayrlhf.fitting.split import numbered
from rayrlhf.language.instructions import told, vectors_of
from rayrlhf.preferences.answers import Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset, shape_of
from rayrlhf.preferences.fragments import Integers
from rayrlhf.preferences.segments import Queries, Segments


@dataclass(frozen=True)
class Labelled:
    """All labels of a dataset.

    episodes:  `[N, 2]` a number of the episode on either side; those of different runs are different ones
    shown:     `[N]` a number of what was shown, whichever side it was on
    questions: with those that nobody answered, or only by a skip
    """

    labels: Labels
    episodes: Integers
    shown: Integers
    questions: int


def read_labels(dataset: PreferenceDataset) -> Labelled:
    """Raises `UserError` where there are no labels, or segments of several shapes."""
    records = dataset.read()
    shapes = {shape_of(queries) for queries, _ in records}
    if len(shapes) > 1:
        listed = ", ".join(f"{t} steps, obs {o}, action {a}" for t, o, a in sorted(shapes))
        raise UserError(f"{dataset.where} holds segments of several shapes ({listed}): fit a dataset of one")
    parts, names, contents = [], list[tuple[str, int]](), list[frozenset[bytes]]()
    for queries, answers in records:
        judged = queries.among({answer.query_id for answer in answers if answer.choice != "skip"})
        parts.append(labels_from(judged, answers))
        names += _names(judged)
        contents += [frozenset(both) for both in zip(_hashes(judged.left), _hashes(judged.right), strict=True)]
    if not contents:
        raise UserError(f"{dataset.where} holds no labels: nobody has answered, or only with skips")
    episodes = numbered(names).reshape(-1, 2)
    return Labelled(Labels.concatenate(parts), episodes, numbered(contents), sum(len(q) for q, _ in records))


def with_words(data: Labelled, encoder: str, width: int, where: str) -> Labelled:
    """The labels with `width` numbers for their instructions in the observations.

    Raises:
        UserError: the encoder is not on this machine, or a label names no instruction.
    """
    numbers = partial(vectors_of, encoder=encoder, width=width)
    return replace(data, labels=told(data.labels, numbers, where))


def _names(queries: Queries) -> list[tuple[str, int]]:
    """Of each query the names of both episodes: the run that an id begins with, and the episode's number there."""
    sides = zip(queries.ids, queries.left.episode.tolist(), queries.right.episode.tolist(), strict=True)
    return [(key.partition("/")[0], episode) for key, *both in sides for episode in both]


def _hashes(segments: Segments) -> list[bytes]:
    rows = zip(segments.obs, segments.action, strict=True)
    return [hashlib.blake2b(obs.tobytes() + action.tobytes(), digest_size=16).digest() for obs, action in rows]
