"""The incremental lists equal a brute-force search at every moment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.exploration import state_entropy
from rayrlhf.exploration.state_entropy import StateEntropy


def brute_force(obs: torch.Tensor, k: int) -> torch.Tensor:
    """The definition: sort all distances to the others and take the k-th, or the last where there are fewer."""
    out = []
    for i in range(len(obs)):
        others = torch.cat([obs[:i], obs[i + 1 :]])
        distance = (others.double() - obs[i].double()).square().sum(1).sqrt().sort().values
        out.append(distance[min(k, len(distance)) - 1].item() if len(distance) else 0.0)
    return torch.tensor(out)


def walk(rows: int, dim: int, seed: int, step: float = 0.01) -> torch.Tensor:
    """States as a robot visits them: far from the origin, each close to the last."""
    steps = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return 3.0 + step * steps.cumsum(0)


@given(
    parts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    k=st.integers(1, 6),
    dim=st.integers(1, 5),
    levels=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_equals_brute_force_after_every_addition(parts: list[int], k: int, dim: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    obs = torch.from_numpy(rng.integers(0, levels, (sum(parts), dim)).astype(np.float32))  # many duplicates and ties
    entropy, end = StateEntropy(dim, k, capacity=100), 0
    for part in parts:
        entropy.add(obs[end : end + part])
        end += part
        assert torch.equal(entropy.distance(torch.arange(end)), brute_force(obs[:end], k))


def test_successive_states_keep_their_small_distances() -> None:
    obs = walk(1500, 39, seed=0, step=1e-4)  # a float32 product would give multiples of 1e-3 here
    entropy = StateEntropy(39, 5, capacity=2000)
    for part in obs.split(50):
        entropy.add(part)
    torch.testing.assert_close(entropy.distance(torch.arange(1500)), brute_force(obs, 5), rtol=2e-6, atol=0)


def test_values_do_not_depend_on_how_states_came(monkeypatch: pytest.MonkeyPatch) -> None:
    obs = walk(3000, 7, seed=1)
    whole, pieces, tiny = (StateEntropy(7, 5, capacity=3000) for _ in range(3))
    whole.add(obs)
    for part in obs.split(37):
        pieces.add(part)
    monkeypatch.setattr(state_entropy, "DISTANCES_PER_BLOCK", 5000)
    tiny.add(obs)
    every = torch.arange(3000)
    direct = torch.cdist(obs, obs, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(6, dim=1).values
    for entropy in (whole, pieces, tiny):
        assert torch.equal(entropy.distance(every), direct)


def test_few_states() -> None:
    entropy = StateEntropy(1, 3, capacity=10)
    entropy.add(torch.tensor([[0.0]]))
    assert entropy.distance(torch.tensor([0])).tolist() == [0.0]
    assert entropy.reward(torch.tensor([0])).tolist() == [0.0]
    entropy.add(torch.tensor([[1.0], [4.0]]))
    assert entropy.distance(torch.arange(3)).tolist() == [4.0, 3.0, 4.0]  # the farther of two others
    entropy.add(torch.tensor([[5.0], [9.0]]))
    assert entropy.distance(torch.arange(5)).tolist() == [5.0, 4.0, 4.0, 4.0, 8.0]  # the third


def test_duplicates_are_neighbours_at_distance_zero() -> None:
    entropy = StateEntropy(2, 2, capacity=10)
    entropy.add(torch.tensor([[0.1, 7.3]]).repeat(3, 1))
    entropy.add(torch.tensor([[0.1, 8.3]]))
    assert entropy.distance(torch.arange(3)).tolist() == [0.0, 0.0, 0.0]
    assert entropy.distance(torch.tensor([3])).item() == pytest.approx(1.0)


def test_reward_divides_by_the_deviation_of_all_distances_so_far() -> None:
    obs = walk(300, 4, seed=2)
    entropy, seen = StateEntropy(4, 5, capacity=300), torch.zeros(0)
    for turn, part in enumerate(obs.split(60)):
        entropy.add(part)
        index = torch.randint(0, len(entropy), (3, 8), generator=torch.Generator().manual_seed(turn))
        distance = entropy.distance(index)
        seen = torch.cat([seen, distance.flatten()])
        torch.testing.assert_close(entropy.reward(index), distance / seen.std(correction=0), rtol=1e-5, atol=0)


def test_equal_distances_are_left_as_they_are() -> None:
    entropy = StateEntropy(1, 1, capacity=10)
    entropy.add(torch.arange(6.0)[:, None] * 0.1)
    torch.testing.assert_close(entropy.reward(torch.arange(6)), torch.full((6,), 0.1))


def test_a_restored_set_goes_on_bit_for_bit() -> None:
    obs = walk(400, 6, seed=3)
    index = torch.arange(0, 400, 3)
    original = StateEntropy(6, 5, capacity=500)
    original.add(obs[:200])
    original.reward(index[:50])
    restored = StateEntropy(6, 5, capacity=500)
    restored.add(obs[300:])  # what was there before goes
    restored.load_state({name: array.copy() for name, array in original.state().items()})
    for entropy in (original, restored):
        entropy.add(obs[200:])
    assert torch.equal(original.reward(index), restored.reward(index))
    assert all(np.array_equal(original.state()[name], array) for name, array in restored.state().items())


def test_states_and_saved_states_that_do_not_fit_are_refused() -> None:
    entropy = StateEntropy(3, 5, capacity=4)
    with pytest.raises(ValueError, match=r"must be \[m, 3\]"):
        entropy.add(torch.zeros(2, 4))
    entropy.add(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="capacity of 4"):
        entropy.add(torch.zeros(1, 3))
    for other in (StateEntropy(2, 5, capacity=4), StateEntropy(3, 4, capacity=4), StateEntropy(3, 5, capacity=3)):
        with pytest.raises(ValueError, match="do not fit"):
            other.load_state(entropy.state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu() -> None:
    obs = walk(2000, 39, seed=4)
    cpu, gpu = StateEntropy(39, 5, capacity=2000), StateEntropy(39, 5, capacity=2000, device="cuda")
    for part in obs.split(130):
        cpu.add(part)
        gpu.add(part.cuda())
    every = torch.arange(2000)
    torch.testing.assert_close(gpu.distance(every.cuda()).cpu(), cpu.distance(every), rtol=1e-5, atol=1e-7)
