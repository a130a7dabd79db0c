"""Instructions as numbers: which sentences, and segments that lose and get theirs."""

from pathlib import Path

import numpy as np
import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.instructions import METAWORLD
from rayrlhf.errors import UserError
from rayrlhf.language.encoder import embed, projected
from rayrlhf.language.instructions import Vocabulary, instructed, instructions_of, plain
from rayrlhf.language.log import InstructedLog
from rayrlhf.language.paraphrases import PARAPHRASES
from rayrlhf.preferences.answers import Answer, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, Segments

TWO = EnvOptions(task="window-open,drawer-close", encoder="hashing", instruction_width=7)


def segments(count: int = 3, margin: int = 2, seed: int = 0) -> Segments:
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(count, 2 * margin, 6)).astype(np.float32) if margin else None
    if context is not None:
        context[0, :margin] = np.nan  # where the episode begins
    return Segments(
        obs=rng.normal(size=(count, 5, 4)).astype(np.float32),
        action=rng.uniform(-1, 1, size=(count, 5, 2)).astype(np.float32),
        reward=rng.normal(size=(count, 5)).astype(np.float32),
        success=rng.random((count, 5)) < 0.5,
        episode=np.arange(count),
        start=np.arange(count),
        context=context,
    )


def same(one: Segments, other: Segments) -> bool:
    names = ("obs", "action", "reward", "success", "episode", "start")
    if (one.context is None) != (other.context is None):
        return False
    context = one.context is None or np.array_equal(one.context, other.context, equal_nan=True)
    return context and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_the_first_wording_is_the_tasks_sentence_and_held_out_ones_are_others() -> None:
    said = instructions_of(TWO)
    assert said is not None and said.vectors.shape == (2, 6, 7)
    assert [own[0] for own in said.sentences] == [METAWORLD["window-open"], METAWORLD["drawer-close"]]
    assert said.sentences[1][1:] == PARAPHRASES["drawer-close"][0]
    np.testing.assert_array_equal(said.vectors[1, 2], projected(embed([said.sentences[1][2]], "hashing"), 7)[0])
    held_out = instructions_of(TWO, held_out=True)
    assert held_out is not None
    assert not {s for own in held_out.sentences for s in own} & {s for own in said.sentences for s in own}
    with pytest.raises(UserError, match="toy/point has no held-out wordings"):
        instructions_of(EnvOptions(suite="toy", task="point", encoder="hashing"), held_out=True)
    one = instructions_of(TWO.model_copy(update={"wordings": 1}))
    assert one is not None and one.sentences == tuple((own[0],) for own in said.sentences)
    assert instructions_of(TWO.model_copy(update={"encoder": None})) is None


@pytest.mark.parametrize("margin", [0, 2])
def test_an_instruction_comes_and_goes_without_a_trace(margin: int) -> None:
    bare = segments(margin=margin)
    vectors = np.random.default_rng(1).random((3, 4), np.float32)
    told = instructed(bare, vectors)
    np.testing.assert_array_equal(told.obs[..., 4:], np.broadcast_to(vectors[:, None], (3, 5, 4)))
    if told.context is not None:
        np.testing.assert_array_equal(told.context[1, 0, 4:8], vectors[1])
        assert np.isnan(told.context[0, 0]).all(), "before an episode there is nothing, and nothing is said"
        np.testing.assert_array_equal(told.context[1:, :, 8:], bare.context[1:, :, 4:])
    assert same(plain(told, 4), bare)


def test_the_log_has_words_and_no_numbers(tmp_path: Path) -> None:
    said = instructions_of(TWO)
    assert said is not None
    vocabulary = Vocabulary(said, "hashing")
    words = (said.sentences[0][3], said.sentences[1][0], "Something that nobody said before.")
    sides = [instructed(segments(seed=seed), vocabulary.vectors(words)) for seed in range(2)]
    queries = Queries(tuple("abc"), 0, *sides, 1.5, words)
    bare = PreferenceDataset(tmp_path / "log")
    log = InstructedLog(bare, vocabulary)
    log.append(queries, [Answer("b", "left", "eva")])
    stored = bare.read()[0][0]
    assert stored.instructions == words and same(stored.left, segments()) and same(stored.right, segments(seed=1))
    again, answers = InstructedLog(bare, Vocabulary(said, "hashing")).read_session(0)
    assert same(again.left, queries.left) and same(again.right, queries.right)
    assert labels_from(again, answers).instructions == words[1:2]
    assert log.sessions() == [0] and len(log.read()) == 1
    untold = PreferenceDataset(tmp_path / "untold")
    untold.append(Queries(("a",), 0, segments(1), segments(1)), [])
    with pytest.raises(UserError, match="questions without an instruction"):
        InstructedLog(untold, vocabulary).read()
