"""Two learners that average their gradients over gloo become what one becomes that has the batches of both."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from rayrlhf.algorithms.learner import PreferenceLearner
from rayrlhf.config import PpoOptions, SacOptions
from rayrlhf.policies import Batch, PpoNetworks, PpoUpdate, SacNetworks, SacUpdate
from rayrlhf.policies.ppo import Rows

LEARNERS, ROWS, STEPS = 2, 64, 100
SAC = SacOptions(hidden=(32, 32), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3)
PPO = PpoOptions(hidden=(32, 32), lr=1e-3, kl_coefficient=0.1, entropy_coefficient=0.01)
Average = Callable[[list[Tensor]], None]


def _share(columns: list[Tensor], rank: int | None) -> list[Tensor]:
    """All rows, or every other one."""
    return columns if rank is None else [column[rank::LEARNERS] for column in columns]


def _sac(rank: int | None, average: Average | None, learners: int) -> nn.Module:
    torch.manual_seed(0)
    networks = SacNetworks(6, 3, SAC)
    update = SacUpdate(networks, SAC, average=average)
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        obs, action, reward = torch.randn(ROWS, 6), torch.rand(ROWS, 3) * 2 - 1, torch.randn(ROWS)
        columns = [obs, action, reward, torch.randn(ROWS, 6), (torch.rand(ROWS) < 0.3).float()]
        noise = [torch.randn(ROWS, 3), torch.randn(ROWS, 3)]
        update(Batch(*_share(columns, rank)), *_share(noise, rank), move_target=step % 2 == 0)
    return networks


def _ppo(rank: int | None, average: Average | None, learners: int) -> nn.Module:
    torch.manual_seed(0)
    networks = PpoNetworks(6, 3, PPO)
    update, former = PpoUpdate(networks, PPO, average=average, learners=learners), copy.deepcopy(networks)
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        obs = torch.randn(ROWS, 6)
        with torch.no_grad():
            action, log_prob = former.actor.sample(obs, torch.randn(ROWS, 3))
        # advantages that differ from one learner's rows to the other's: each for itself would normalise them away
        advantage = torch.randn(ROWS) + 3 * (torch.arange(ROWS) % LEARNERS)
        columns = [obs, action, log_prob, advantage, torch.randn(ROWS)]
        update(Rows(*_share(columns, rank)), clip=torch.tensor(0.2))
    return networks


def _learner(rank: int, make: Callable[..., nn.Module], folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=LEARNERS)
    torch.save(make(rank, PreferenceLearner._average, LEARNERS).state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("make", [_sac, _ppo])
def test_two_learners_equal_one_with_the_same_batches(make: Callable[..., nn.Module], tmp_path: Path) -> None:
    """Targets, temperature and standard deviation too: a hundred updates, to what float32 sums may differ."""
    torch.multiprocessing.spawn(_learner, (make, str(tmp_path)), nprocs=LEARNERS)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(LEARNERS))
    whole, start = make(None, None, 1).state_dict(), {_sac: SacNetworks, _ppo: PpoNetworks}[make]
    torch.manual_seed(0)
    before = start(6, 3, SAC if make is _sac else PPO).state_dict()
    for name, value in whole.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=2e-4, msg=name)
    moved = [name for name, value in whole.items() if (value - before[name]).abs().max() > 0.01]
    assert len(moved) > len(whole) / 2
