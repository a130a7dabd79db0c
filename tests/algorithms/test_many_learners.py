"""Learners that average their gradients over gloo become what one becomes that has the batches of all."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from rayrlhf.algorithms.learner import PreferenceLearner
from rayrlhf.algorithms.ppo_learner import PrefPpoLearner
from rayrlhf.config import PpoOptions, SacOptions
from rayrlhf.policies import Batch, PpoNetworks, PpoUpdate, SacNetworks, SacUpdate
from rayrlhf.policies.ppo import Rows

ROWS = 64
STEPS = 1000
SAC = SacOptions(hidden=(32, 32), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3)
PPO = PpoOptions(hidden=(32, 32), lr=1e-3, kl_coefficient=0.1, entropy_coefficient=0.01)
Average = Callable[[list[Tensor]], None]
State = dict[str, Tensor]


def _share(columns: list[Tensor], rank: int | None, learners: int) -> list[Tensor]:
    """All rows, or those of one learner."""
    return columns if rank is None else [column[rank::learners] for column in columns]


def _sac(rank: int | None, average: Average | None, learners: int) -> Iterator[nn.Module]:
    torch.manual_seed(0)
    networks = SacNetworks(6, 3, SAC)
    update = SacUpdate(networks, SAC, average=average)
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        obs, action, reward = torch.randn(ROWS, 6), torch.rand(ROWS, 3) * 2 - 1, torch.randn(ROWS)
        columns = [obs, action, reward, torch.randn(ROWS, 6), (torch.rand(ROWS) < 0.3).float()]
        noise = [torch.randn(ROWS, 3), torch.randn(ROWS, 3)]
        update(Batch(*_share(columns, rank, learners)), *_share(noise, rank, learners), move_target=step % 2 == 0)
        yield networks


def _ppo(rank: int | None, average: Average | None, learners: int) -> Iterator[nn.Module]:
    torch.manual_seed(0)
    networks = PpoNetworks(6, 3, PPO)
    update, former = PpoUpdate(networks, PPO, average=average, learners=learners), copy.deepcopy(networks)
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        obs = torch.randn(ROWS, 6)
        with torch.no_grad():
            action, log_prob = former.actor.sample(obs, torch.randn(ROWS, 3))
        # advantages that differ from one learner's rows to the other's: each for itself would normalise them away
        advantage = torch.randn(ROWS) + 3 * (torch.arange(ROWS) % 4)
        columns = [obs, action, log_prob, advantage, torch.randn(ROWS)]
        update(Rows(*_share(columns, rank, learners)), clip=torch.tensor(0.2))
        yield networks


def _statistics(rank: int | None, average: Average | None, learners: int) -> Iterator[nn.Module]:
    """Of observations that are far from 0, and not the same at the end as at the beginning."""
    networks = PpoNetworks(6, 3, PPO)
    learner = SimpleNamespace(networks=networks, learners=learners)
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        obs = torch.randn(ROWS, 6) * (1 + step / STEPS) + 100 * torch.arange(6) + step / 100
        PrefPpoLearner._observe(learner, *_share([obs], rank, learners))  # type: ignore[arg-type]
        assert networks.actor.moments is not None
        yield networks.actor.moments


Make = Callable[[int | None, Average | None, int], Iterator[nn.Module]]


def _state(updates: Iterator[nn.Module], count: int) -> State:
    """After `count` updates."""
    return next(islice(updates, count - 1, None)).state_dict()


def _learner(rank: int, make: Make, learners: int, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=learners)
    torch.save(_state(make(rank, PreferenceLearner._average, learners), count), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _together(make: Make, learners: int, count: int, folder: Path) -> State:
    """The state of all learners, who must not have moved apart."""
    torch.multiprocessing.spawn(_learner, (make, learners, count, str(folder)), nprocs=learners)
    first, *others = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(learners))
    for other in others:
        assert first.keys() == other.keys() and all(torch.equal(first[name], other[name]) for name in first)
    return first  # type: ignore[no-any-return]


@pytest.mark.parametrize("learners", [2, 4])
@pytest.mark.parametrize("make", [_sac, _ppo])
def test_learners_equal_one_with_the_same_batches(make: Make, learners: int, tmp_path: Path) -> None:
    """Targets, temperature and standard deviation too: a hundred updates, to what float32 sums may differ."""
    both, whole = _together(make, learners, 100, tmp_path), _state(make(None, None, 1), 100)
    torch.manual_seed(0)
    before = (SacNetworks(6, 3, SAC) if make is _sac else PpoNetworks(6, 3, PPO)).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=2e-4, msg=name)
    moved = [name for name, value in whole.items() if (value - before[name]).abs().max() > 0.01]
    assert len(moved) > len(whole) / 2


def test_two_learners_count_observations_as_one_does(tmp_path: Path) -> None:
    both, whole = _together(_statistics, 2, STEPS, tmp_path), _state(_statistics(None, None, 1), STEPS)
    for name, value in whole.items():
        torch.testing.assert_close(both[name], value, rtol=1e-10, atol=0.0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "name"), [(_sac, "log_alpha"), (_ppo, "actor.log_std")])
def test_nothing_drifts_in_a_thousand_updates(make: Make, name: str, tmp_path: Path) -> None:
    """The learners stay equal to the last digit, and what has no gradient of its own scale near what one has."""
    both, whole = _together(make, 2, STEPS, tmp_path)[name], _state(make(None, None, 1), STEPS)[name]
    assert (whole - _state(make(None, None, 1), 1)[name]).abs().max() > 0.01
    torch.testing.assert_close(both, whole, rtol=0.05, atol=0.02)
