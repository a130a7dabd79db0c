"""Labels from answers, and the checks of the data types."""

import numpy as np
import pytest

from rayrlhf.preferences.answers import Answer, Labels, labels_from
from rayrlhf.preferences.segments import Queries, Segments


def numbered(count: int, steps: int = 2) -> Segments:
    value = np.arange(count, dtype=np.float32)
    return Segments(
        obs=np.broadcast_to(value[:, None, None], (count, steps, 3)).copy(),
        action=np.zeros((count, steps, 1), np.float32),
        reward=np.zeros((count, steps), np.float32),
        success=np.zeros((count, steps), bool),
        episode=np.arange(count),
        start=np.zeros(count, np.int64),
    )


def test_labels_follow_the_queries_and_leave_out_skips() -> None:
    queries = Queries(tuple("abcde"), 0, numbered(5), numbered(5))
    said = [("e", "right", "x"), ("a", "equal", "x"), ("b", "skip", "x"), ("d", "left", "x"), ("e", "skip", "y")]
    labels = labels_from(queries, [Answer(*answer) for answer in said])  # type: ignore[arg-type]
    np.testing.assert_array_equal(labels.target, [0.5, 0.0, 1.0])
    np.testing.assert_array_equal(labels.left.episode, [0, 3, 4])
    np.testing.assert_array_equal(labels.right.obs[:, 0, 0], [0, 3, 4])


def test_several_annotators_give_the_mean() -> None:
    queries = Queries(("a",), 0, numbered(1), numbered(1))
    said = [Answer("a", "right", "x"), Answer("a", "right", "y"), Answer("a", "left", "z"), Answer("a", "equal", "w")]
    np.testing.assert_allclose(labels_from(queries, said).target, [2.5 / 4])


def test_no_answers_make_no_labels() -> None:
    queries = Queries(("a",), 0, numbered(1), numbered(1))
    labels = labels_from(queries, [])
    assert len(labels) == 0
    assert labels.left.length == 2


def test_types_refuse_what_their_docstrings_exclude() -> None:
    with pytest.raises(ValueError, match="'maybe' is none of"):
        Answer("a", "maybe", "x")  # type: ignore[arg-type]
    for wrong in ({"seconds": -1.0}, {"seconds": np.nan}, {"replays": -1}, {"replays": 1.5}):
        with pytest.raises(ValueError, match="negative"):
            Answer("a", "left", "x", **wrong)  # type: ignore[arg-type]
    for nobody in ("", None, 3):
        with pytest.raises(ValueError, match="annotator"):
            Answer("a", "left", nobody)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repeat"):
        Queries(("a", "a"), 0, numbered(2), numbered(2))
    with pytest.raises(ValueError, match="2 steps, right ones 3"):
        Queries(("a",), 0, numbered(1), numbered(1, steps=3))
    with pytest.raises(ValueError, match="outside"):
        Labels(numbered(1), numbered(1), np.array([1.5], np.float32))


def test_labels_keep_their_instructions() -> None:
    queries = Queries(tuple("abc"), 0, numbered(3), numbered(3), 0.0, ("open", "", "close"))
    labels = labels_from(queries, [Answer("c", "left", "x"), Answer("a", "right", "x"), Answer("b", "skip", "x")])
    assert labels.instructions == ("open", "close")
    assert labels.take(np.array([1])).instructions == ("close",)
    plain = labels_from(queries.take(np.array([], int)), [])
    assert Labels.concatenate([plain, labels, labels.take(np.array([1]))]).instructions == ("open", "close", "close")
    unsaid = Labels(labels.left, labels.right, labels.target)
    assert Labels.concatenate([unsaid, labels]).instructions == ("", "", "open", "close")
    assert Labels.concatenate([unsaid, unsaid]).instructions == ()
    with pytest.raises(ValueError, match="1 instructions for 2 labels"):
        Labels(labels.left, labels.right, labels.target, ("open",))
    with pytest.raises(ValueError, match="2 instructions for 3 queries"):
        Queries(tuple("abc"), 0, numbered(3), numbered(3), 0.0, ("open", "close"))


def test_a_pair_is_the_same_whichever_side_and_instruction() -> None:
    one, other = numbered(1), numbered(2).take(np.array([1]))
    (pair,) = Queries(("a",), 0, one, other).pairs()
    assert Queries(("b",), 3, other, one, 0.0, ("open",)).pairs() == [pair]
    assert Queries(("a",), 0, one, one).pairs() != [pair]


def test_another_instruction_makes_another_question() -> None:
    said = [
        Queries(("a",), 0, numbered(1), numbered(1), 0.0, sentence).contents() for sentence in ((), ("open",), ("",))
    ]
    assert said[0] == said[2] != said[1]
