"""Going on from another trial's checkpoint, as population based training has it."""

from pathlib import Path

import numpy as np
import pytest
from support import changed, everything, small

from rayrlhf import training
from rayrlhf.algorithms import checkpoint
from rayrlhf.config import RunConfig
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train
from rayrlhf.tuning.trial import Origin, fork

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(200)]


def trial(folder: Path, name: str, **sac: float) -> RunConfig:
    run = changed(
        small(folder),
        name=name,
        total_steps=700,
        queries={"budget": 8},
        rollout={"actors": 0, "synchronous": True},
        checkpoint={"interval": 200, "keep": 9},
        evaluation={"final_episodes": 2, "interval": 300, "episodes": 2},
    )
    return changed(run, sac=sac)


@pytest.fixture(scope="module")
def storage(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials that have ended."""
    folder = tmp_path_factory.mktemp("forks")
    train(trial(folder, "donor", actor_lr=1e-3), progress=False)
    train(trial(folder, "bad", actor_lr=1e-5, critic_lr=1e-5), progress=False)
    return folder


def test_a_fork_carries_the_donors_state_and_learns_at_its_own_rate(storage: Path) -> None:
    donor = RunDirectory.open(storage / "runs" / "donor")
    before = RunDirectory.open(storage / "runs" / "bad")
    own = [key for queries, _ in PreferenceDataset(before.preferences).read() for key in queries.ids]
    slow = trial(storage, "bad", actor_lr=1e-30, critic_lr=2e-3)
    place = checkpoint.by_age(donor.checkpoints)[1]
    origin = Origin("donor", place.name)
    run = fork(donor, origin, slow)
    told = checkpoint.verify(checkpoint.by_age(run.checkpoints)[0], slow)["progress"]
    assert run.summary() is None and run.config() == slow
    assert [fork["trial"] for fork in run.forks()] == ["donor"]
    assert max(row["env_steps"] for row in run.metrics()) <= told["env_steps"]

    def labelled(log: Path) -> list[str]:
        return [key for queries, _ in PreferenceDataset(log).read() for key in queries.ids]

    assert labelled(run.preferences) == [
        key
        for queries, _ in PreferenceDataset(donor.preferences).read()
        if queries.session < told["sessions"]
        for key in queries.ids
    ]
    assert labelled(run.path / "former" / "000" / "preferences") == own, "what was asked is never lost"

    same = fork(donor, origin, slow)
    assert len(same.forks()) == 1, "made once"
    with training._algorithm(donor.config(), donor) as first:
        first.load_checkpoint(str(place))
        known = everything(first)
    with training._algorithm(slow, run) as algorithm:
        training._restore(algorithm, slow, run, lambda line: None)
        taken = everything(algorithm)
        assert known.keys() == taken.keys()
        for name, array in known.items():
            np.testing.assert_array_equal(array, taken[name], err_msg=name)
        assert algorithm.progress.labels == told["labels"] > 0
        learner = algorithm.learner_group._learner
        rates = {name: opt.param_groups[0]["lr"] for name, opt in learner.update_step.optimizers.items()}
        assert rates == {"actor": 1e-30, "critic": 2e-3, "alpha": slow.sac.alpha_lr}
        while algorithm.progress.env_steps < slow.total_steps:
            algorithm.train()
        later = everything(algorithm)
    actor = [name for name in known if name.startswith("networks/actor")]
    critic = [name for name in known if name.startswith("networks/critic")]
    assert actor and critic
    assert all(np.array_equal(known[name], later[name]) for name in actor), "the new rate acts, not the donor's"
    assert not any(np.array_equal(known[name], later[name]) for name in critic)


def test_a_fork_outlives_its_donors_checkpoint(storage: Path) -> None:
    """Rows are shared by links, and a checkpoint that training has deleted meanwhile is replaced by the newest."""
    donor = RunDirectory.open(storage / "runs" / "donor")
    config = trial(storage, "third", actor_lr=2e-3)
    run = fork(donor, Origin("donor", "step-000000000001"), config)
    newest = checkpoint.by_age(donor.checkpoints)[0]
    assert [place.name for place in checkpoint.by_age(run.checkpoints)] == [newest.name]
    checkpoint.prune(donor.checkpoints, 0)
    assert not list((donor.checkpoints / "rows").iterdir())
    checkpoint.verify(checkpoint.by_age(run.checkpoints)[0], config)
