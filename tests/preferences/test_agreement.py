"""Krippendorff's alpha against his own example and against its definition."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.preferences.agreement import agreement, krippendorff_alpha

EXAMPLE = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
"""Four observers of twelve units (Krippendorff 2011, section C)."""


def test_krippendorffs_example() -> None:
    rows = [line.split() for line in EXAMPLE.split("\n") if line]
    units = [
        {str(who): float(row[unit]) for who, row in enumerate(rows) if row[unit] != "."} for unit in range(len(rows[0]))
    ]
    assert krippendorff_alpha(units, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units, "interval") == pytest.approx(0.849, abs=5e-4)


UNITS = st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0]), max_size=4), max_size=8)


@given(UNITS)
def test_the_definition_restated(units: list[dict[str, float]]) -> None:
    """Observed disagreement within units over that between any two values, all pairs counted."""
    paired = [list(unit.values()) for unit in units if len(unit) > 1]
    everything = [value for unit in paired for value in unit]
    count = len(everything)
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in paired for a, b in permutations(unit, 2))
    expected = sum((a - b) ** 2 for a, b in permutations(everything, 2))
    found = krippendorff_alpha(units)
    if expected == 0:
        assert found is None
    else:
        assert found == pytest.approx(1 - (observed / count) / (expected / (count * (count - 1))))


def test_skips_say_nothing_and_agreement_is_one() -> None:
    assert agreement([{"a": "left", "b": "left", "c": "skip"}, {"a": "right", "b": "right"}]) == 1.0
    assert agreement([{"a": "left", "b": "skip"}]) is None


def test_answers_drawn_at_random_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.choice(["left", "right", "equal"], (2000, 3))
    assert agreement([dict(zip("abc", row, strict=True)) for row in drawn]) == pytest.approx(0.0, abs=0.05)
