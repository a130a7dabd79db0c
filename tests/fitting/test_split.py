"""What is tested on has not been learnt from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.errors import UserError
from rayrlhf.fitting.split import numbered, split
from rayrlhf.preferences.fragments import Integers

PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=60)


def alone(count: int) -> Integers:
    """Each question shows something of its own."""
    return np.arange(count)


@given(pairs=PAIRS, share=st.sampled_from([0.1, 0.2, 0.5, 0.8]), seed=st.integers(0, 5))
def test_each_label_is_on_one_side_or_dropped(pairs: list[tuple[int, int]], share: float, seed: int) -> None:
    for how in ("auto", "episodes", "questions"):
        try:
            found = split(np.array(pairs), alone(len(pairs)), share, how, seed)
        except UserError as error:
            assert "cannot be divided" in str(error)
            continue
        both = np.concatenate([found.training, found.held_out])
        assert len(np.unique(both)) == len(both) == len(pairs) - found.dropped
        episodes = [set(np.array(pairs)[rows].ravel().tolist()) for rows in (found.training, found.held_out)]
        assert bool(episodes[0] & episodes[1]) == (found.shared > 0)
        if how == "episodes" or found.words.startswith("by episode"):
            assert found.shared == 0
        if how != "episodes":
            assert found.dropped == 0


def test_groups_of_episodes_stay_together() -> None:
    """Twenty groups of five questions each, linked through common episodes in a chain."""
    pairs = np.array([(6 * group + i, 6 * group + i + 1) for group in range(20) for i in range(5)])
    found = split(pairs, alone(100), 0.2, "auto", 0)
    assert (len(found.training), len(found.held_out), found.shared) == (80, 20, 0)
    assert found.words == "by episode: no episode is on both sides"
    assert set(np.unique(found.held_out // 5, return_counts=True)[1].tolist()) == {5}


def test_linked_questions_are_held_out_one_by_one_and_that_is_said() -> None:
    pairs = np.random.default_rng(0).integers(0, 10, (100, 2))
    found = split(pairs, alone(100), 0.2, "auto", 0)
    assert (len(found.training), len(found.held_out)) == (80, 20)
    assert found.words == "by question; 20 of 20 held-out ones share an episode with training ones"


def test_a_question_asked_twice_is_on_one_side() -> None:
    same = np.repeat(np.arange(20), 5)
    found = split(np.zeros((100, 2), np.int64), same, 0.25, "questions", 3)
    assert not set(same[found.training]) & set(same[found.held_out])
    assert len(found.held_out) == 25


def test_seeds_draw_other_splits_and_the_same_one_the_same() -> None:
    pairs = np.stack([np.arange(50), np.arange(50) + 50], axis=1)
    first, again, other = (split(pairs, alone(50), 0.2, "auto", seed).held_out.tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_labels_are_refused(count: int) -> None:
    pairs = np.zeros((count, 2), np.int64)
    with pytest.raises(UserError, match="cannot be divided"):
        split(pairs, np.zeros(count, np.int64), 0.2, "auto", 0)


def test_numbered() -> None:
    assert numbered(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]
