"""Labels from several people's answers."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.answers import TARGETS, Choice
from rayrlhf.preferences.store import Verdict, decide

CHOICES = st.lists(st.sampled_from(["left", "right", "equal", "skip"]), max_size=7)


@st.composite
def options(draw: st.DrawFn) -> QueueOptions:
    least, overlap, most = sorted(draw(st.lists(st.integers(1, 7), min_size=3, max_size=3)))
    share, labels = draw(st.sampled_from([0.0, 0.5, 0.6, 0.75, 1.0])), draw(st.sampled_from(["majority", "soft"]))
    return QueueOptions(min_answers=least, overlap=overlap, max_answers=most, agreement=share, labels=labels)


@given(CHOICES, options())
def test_the_rule_restated(votes: list[Choice], options: QueueOptions) -> None:
    verdict = decide(votes, options)
    count, said = len(votes), Counter(votes)
    ranked = said.most_common()
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    agreed = count >= options.min_answers and ranked[0][1] >= options.agreement * count
    if agreed and (options.labels == "soft" or not tied):
        if said["skip"] == ranked[0][1] and not tied:
            assert (verdict.status, verdict.target) == ("skip", None)
        else:
            told = [TARGETS[vote] for vote in votes if vote != "skip"]
            wanted = sum(told) / len(told) if options.labels == "soft" else TARGETS[ranked[0][0]]
            assert (verdict.status, verdict.target) == ("label", wanted)
    elif count < options.max_answers:
        assert verdict.status == "open"
        assert verdict.wanted > count
        assert options.overlap <= verdict.wanted <= options.max_answers
    else:
        assert (verdict.status, verdict.target) == ("disputed", None)


@given(CHOICES.flatmap(lambda votes: st.tuples(st.just(votes), st.permutations(votes))), options())
def test_the_order_of_votes_does_not_matter(orders: tuple[list[Choice], list[Choice]], options: QueueOptions) -> None:
    assert decide(orders[0], options) == decide(orders[1], options)


def test_one_answer_makes_a_label_by_default() -> None:
    assert decide(["right"], QueueOptions()) == Verdict("label", 1, "right", 1.0)
    assert decide([], QueueOptions()) == Verdict("open", 1)


def test_where_people_disagree_more_are_asked_and_then_none() -> None:
    options = QueueOptions(overlap=2, min_answers=2, max_answers=4, agreement=0.7)
    assert decide(["left", "right"], options) == Verdict("open", 3)
    assert decide(["left", "right", "left"], options) == Verdict("open", 4)
    assert decide(["left", "right", "left", "left"], options) == Verdict("label", 4, "left", 0.0)
    assert decide(["left", "right", "left", "right"], options) == Verdict("disputed", 4)


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"queue\.min_answers \(2\) must not be above queue\.overlap \(1\)"):
        QueueOptions(min_answers=2)
