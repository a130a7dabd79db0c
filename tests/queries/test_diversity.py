"""Greedy k-center, against the rule restated pick by pick."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.queries import diversity
from rayrlhf.queries.diversity import k_center

AS_IT_IS = diversity._pays_at_once


@pytest.fixture(autouse=True, scope="module", params=[False, True], ids=["pick by pick", "all at once"])
def at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways to the products, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "_pays_at_once", lambda points, count: request.param)
        yield


def slow_k_center(candidates: torch.Tensor, centres: torch.Tensor, count: int) -> list[int]:
    """The greedy rule restated: at every pick all distances to all centres, in float64 from differences."""
    picks: list[int] = []
    for _ in range(count):
        farthest, best = -1, -1.0
        for i in range(len(candidates)):
            if i in picks:
                continue
            every = torch.cat([centres, candidates[picks]]).double()
            distance = (every - candidates[i].double()).square().sum(1).min().item() if len(every) else np.inf
            if distance > best:  # only a larger one: the first index wins ties
                farthest, best = i, distance
        picks.append(farthest)
    return picks


@given(
    sizes=st.tuples(st.integers(1, 12), st.integers(0, 6), st.integers(1, 4)),
    levels=st.integers(1, 5),
    seed=st.integers(0, 1000),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_picks_equal_the_definition_with_ties_and_duplicates(
    sizes, levels: int, seed: int, data: st.DataObject
) -> None:
    n, m, dim = sizes
    rng = np.random.default_rng(seed)
    candidates = torch.from_numpy(rng.integers(0, levels, (n, dim)).astype(np.float32))
    centres = torch.from_numpy(rng.integers(0, levels, (m, dim)).astype(np.float32))
    count = data.draw(st.integers(0, n))
    assert k_center(candidates, centres, count).tolist() == slow_k_center(candidates, centres, count)


def test_picks_equal_cdist_recomputed_per_pick_on_segments() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates, centres = torch.randn(120, 3900, generator=generator), torch.randn(130, 3900, generator=generator)
    expected: list[int] = []
    known = centres
    for _ in range(20):
        distance = torch.cdist(candidates, known).amin(dim=1)
        expected.append(int(distance.argmax()))
        known = torch.cat([known, candidates[expected[-1:]]])
    assert k_center(candidates, centres, 20).tolist() == expected


def test_small_differences_far_from_the_origin_are_told_apart() -> None:
    # squared distances near 1e-4 beside squared lengths near 1e6: float32 products would lose them
    offsets = torch.tensor([0.0, 0.001, 0.005, 0.003, 0.009])
    candidates = torch.full((5, 100), 100.0) + offsets[:, None]
    assert k_center(candidates, candidates[:1], 5).tolist() == [4, 2, 3, 1, 0]


def test_without_centres_the_first_candidate_is_picked_first() -> None:
    candidates = torch.tensor([[1.0], [5.0], [2.0], [-4.0]])
    assert k_center(candidates, candidates[:0], 3).tolist() == [0, 3, 1]


def test_duplicates_of_inexact_numbers_tie_to_the_first() -> None:
    far = torch.rand(1, 3900, generator=torch.Generator().manual_seed(0)) + 2.0
    candidates = torch.cat([torch.zeros(3, 3900), far.repeat(9, 1)])
    assert k_center(candidates, torch.zeros(1, 3900), 3).tolist() == [3, 0, 1]


def test_centres_in_blocks_give_the_same_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    candidates, centres = torch.randn(40, 9, generator=generator), torch.randn(31, 9, generator=generator)
    whole = k_center(candidates, centres, 15)
    monkeypatch.setattr(diversity, "CENTRES_PER_BLOCK", 7)
    assert torch.equal(k_center(candidates, centres, 15), whole)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot pick 3 of 2"):
        k_center(torch.zeros(2, 3), torch.zeros(0, 3), 3)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        k_center(torch.zeros(2, 3), torch.zeros(1, 4), 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("most", [100, 8192])
def test_a_gpu_picks_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "_pays_at_once", AS_IT_IS)
    monkeypatch.setattr(diversity, "MOST_AT_ONCE", most)
    generator = torch.Generator().manual_seed(2)
    candidates, centres = torch.randn(120, 3900, generator=generator), torch.randn(130, 3900, generator=generator)
    picks = k_center(candidates.cuda(), centres.cuda(), 40)
    assert picks.is_cuda
    assert picks.tolist() == k_center(candidates, centres, 40).tolist()
