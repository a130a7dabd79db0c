"""The scores that rank candidate pairs, against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rayrlhf.queries.acquisition import disagreement, entropy

probabilities = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(0, 1))


def slow_disagreement(column: list[float]) -> float:
    mean = sum(column) / len(column)
    return math.sqrt(sum((p - mean) ** 2 for p in column) / len(column))


def slow_entropy(column: list[float]) -> float:
    def own(p: float) -> float:
        return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)

    return sum(own(p) for p in column) / len(column)


@given(probabilities)
def test_scores_equal_their_definitions(probability: np.ndarray) -> None:
    columns = probability.T.tolist()
    tensor = torch.from_numpy(probability)
    assert disagreement(tensor).tolist() == pytest.approx([slow_disagreement(c) for c in columns], abs=1e-12)
    assert entropy(tensor).tolist() == pytest.approx([slow_entropy(c) for c in columns], abs=1e-12)


def test_known_values() -> None:
    # certain members of opposite minds; members all in doubt; one member in doubt
    probability = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.5, 1.0]])
    assert disagreement(probability).tolist() == [0.5, 0.0, 0.25]
    assert entropy(probability).tolist() == pytest.approx([0.0, math.log(2), math.log(2) / 2])


@pytest.mark.parametrize("score", [disagreement, entropy])
@pytest.mark.parametrize(
    "bad", [torch.tensor([[0.5, math.nan]]), torch.tensor([[1.1]]), torch.rand(3), torch.rand(0, 3)]
)
def test_bad_probabilities_are_refused(score, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="probabilit"):
        score(bad)
