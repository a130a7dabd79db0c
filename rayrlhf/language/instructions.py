"""Instructions of a run's tasks as numbers, and of segments: put on, exchanged and taken off again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from rayrlhf.config import EnvOptions
from rayrlhf.envs.instructions import Instructions, sentence_of
from rayrlhf.errors import UserError
from rayrlhf.files import read_object, write_atomically
from rayrlhf.language.encoder import embed, projected
from rayrlhf.language.paraphrases import PARAPHRASES
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.segments import Segments

MOST_OTHERS = 1000
"""Sentences that are not a run's own whose vectors are kept."""


def instructions_of(options: EnvOptions, *, held_out: bool = False) -> Instructions | None:
    """What a run's tasks are called in words; none where `env.encoder` is none.

    The first wording is the task's sentence, the others are paraphrases, as far as there are some. `held_out`: instead
    those that no run trains with.

    Raises:
        UserError: the encoder is not on this machine.
    """
    if options.encoder is None:
        return None
    if held_out:
        sentences = tuple(held_out_wordings_of(options.suite, task) for task in options.tasks)
    else:
        sentences = tuple(wordings_of(options.suite, task, options.wordings) for task in options.tasks)
    vectors = vectors_of(list(chain.from_iterable(sentences)), options.encoder, options.instruction_width)
    return Instructions(sentences, vectors.reshape(len(sentences), -1, options.instruction_width))


def write_instructions(file: Path, instructions: Instructions) -> None:
    """Writes them down: whatever becomes of the encoder, a run goes on with the same numbers."""
    noted = {"sentences": instructions.sentences, "vectors": instructions.vectors.tolist()}
    write_atomically(file, json.dumps(noted))


def read_instructions(file: Path) -> Instructions | None:
    """What `write_instructions` wrote, to the last bit; none where there is no file. Raises `UserError` if damaged."""
    noted = read_object(file, "not a JSON object; move it away to go on")
    if noted is None:
        return None
    return Instructions(tuple(map(tuple, noted["sentences"])), np.array(noted["vectors"], np.float32))


def vectors_of(sentences: Sequence[str], encoder: str, width: int, *, remember: bool = True) -> Floats:
    """The numbers `[N, D]` that observations end with. `remember`: whether new embeddings are kept on the disk."""
    different = sorted(set(sentences))
    rows = {sentence: row for row, sentence in enumerate(different)}
    return projected(embed(different, encoder, remember=remember), width)[[rows[sentence] for sentence in sentences]]


def wordings_of(suite: str, task: str, count: int) -> tuple[str, ...]:
    """`count` ways to say what a task's robot is to do; where there are fewer, they come again."""
    found = (sentence_of(suite, task), *_paraphrases(suite, task)[0])
    return tuple(islice(chain.from_iterable([found] * count), count))


def held_out_wordings_of(suite: str, task: str) -> tuple[str, ...]:
    """Three that nothing is trained with. Raises `UserError` where there are none."""
    held_out = _paraphrases(suite, task)[1]
    if not held_out:
        raise UserError(f"{suite}/{task} has no held-out wordings: there are some of MetaWorld's tasks")
    return held_out


def _paraphrases(suite: str, task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return PARAPHRASES.get(task.removesuffix("-v3"), ((), ())) if suite == "metaworld" else ((), ())


def plain(segments: Segments, width: int) -> Segments:
    """The segments without the `width` last numbers of each observation."""
    end = segments.obs.shape[2] - width
    context = segments.context
    if context is not None:
        context = np.concatenate([context[..., :end], context[..., end + width :]], axis=-1)
    return replace(segments, obs=segments.obs[..., :end].copy(), context=context)


def instructed(segments: Segments, vectors: Floats) -> Segments:
    """The segments `N` with the instruction `vectors` `[N, D]` after each observation."""
    obs, end = segments.obs, segments.obs.shape[2]
    said = np.broadcast_to(vectors[:, None], (*obs.shape[:2], vectors.shape[1]))
    context = segments.context
    if context is not None:
        around = np.broadcast_to(vectors[:, None], (*context.shape[:2], vectors.shape[1]))
        absent = np.isnan(context[..., :1])
        around = np.where(absent, np.float32(np.nan), around)
        context = np.concatenate([context[..., :end], around, context[..., end:]], axis=-1)
    return replace(segments, obs=np.concatenate([obs, said], axis=-1), context=context)


class Vocabulary:
    """The vectors of sentences: those of a run's instructions, and of others where the model is on this machine.

    own: the run's own, `[D]` by sentence
    """

    def __init__(self, instructions: Instructions, encoder: str) -> None:
        self.width = instructions.width
        self.own: Mapping[str, Floats] = {
            sentence: vector
            for own, vectors in zip(instructions.sentences, instructions.vectors, strict=True)
            for sentence, vector in zip(own, vectors, strict=True)
        }
        self._encoder = encoder
        self._others: dict[str, Floats] = {}

    def vectors(self, sentences: Sequence[str]) -> Floats:
        """`[N, D]`. Raises `UserError` where a sentence is new and the model not here."""
        if missing := sorted(set(sentences) - self.own.keys() - self._others.keys()):
            if len(self._others) + len(missing) > MOST_OTHERS:  # whoever asks an endpoint may say anything
                self._others, missing = {}, sorted(set(sentences) - self.own.keys())
            found = vectors_of(missing, self._encoder, self.width, remember=False)
            self._others |= dict(zip(missing, found, strict=True))
        others = self._others  # other threads may begin another one
        return np.stack([self.own[said] if said in self.own else others[said] for said in sentences])


def told(labels: Labels, vectors_of: Callable[[tuple[str, ...]], Floats], where: str) -> Labels:
    """The labels of a dataset with their instructions in the observations, by the numbers `[N, D]` of sentences.

    Raises:
        UserError: one of the labels in `where` names no instruction.
    """
    vectors = vectors_of(require_instructions(labels.instructions, where))
    return replace(labels, left=instructed(labels.left, vectors), right=instructed(labels.right, vectors))


def require_instructions(sentences: tuple[str, ...], where: str) -> tuple[str, ...]:
    """All of them. Raises `UserError` where some are missing in `where`."""
    if not sentences or not all(sentences):
        raise UserError(f"{where} has questions without an instruction, and the reward model is told one")
    return sentences
