"""Training with a reward model that was fitted before: nobody is asked, and the run needs its own folder alone."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from preference_data import dataset
from support import PREFPPO, Make, advance, assert_identical, changed, everything, small, synchronous

from rayrlhf.actors.fixed_reward import FixedReward
from rayrlhf.algorithms.checkpoint import explored_steps
from rayrlhf.algorithms.files import read_arrays
from rayrlhf.cli.report import result_rows
from rayrlhf.config.protocol import protocol
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.fitting.fit import fit_labels
from rayrlhf.fitting.labelled import read_labels
from rayrlhf.rewards.stored import FILE, RewardModel
from rayrlhf.tracking import RunDirectory
from rayrlhf.tracking.status import status_of
from rayrlhf.trained import load_newest, reward_model_at
from rayrlhf.training import check, train

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(200)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model for the toy, in a folder."""
    options = small(tmp_path).reward
    fitted = fit_labels(read_labels(dataset(tmp_path / "data", 60)), None, options, seed=0, most=5, patience=5)
    (tmp_path / "model").mkdir()
    RewardModel(options, 4, 2, fitted.weights).save(tmp_path / "model" / FILE)
    return tmp_path / "model"


def with_model(model: Path, **groups: Any) -> RunConfig:
    """A small synchronous run with the model, its budget far beyond what it could ask."""
    run = synchronous(small(model.parent), **groups)
    return changed(run, reward={"from": str(model)}, queries={"budget": 100_000})


def placed(model: Path, folder: Path) -> Path:
    """A run's folder with its copy."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(model / FILE, folder / FILE))


@pytest.mark.parametrize("groups", [{}, PREFPPO], ids=["pebble", "prefppo"])
def test_a_resumed_synchronous_run_equals_an_uninterrupted_one(
    model: Path, make: Make, tmp_path: Path, groups: dict[str, Any]
) -> None:
    run = with_model(model, **groups)
    placed(model, tmp_path / "run")
    whole = make(run, "run", feedback=FixedReward)
    advance(whole, 500)
    whole.save_checkpoint(str(tmp_path / "cut"))
    advance(whole, 1000)
    resumed = make(run, "run", feedback=FixedReward)
    resumed.load_checkpoint(str(tmp_path / "cut"))
    row = advance(resumed, 1000)
    assert (row["labels"], row["sessions"], row["reward_version"]) == (0, 0, 1)
    assert row["updates"] > 0
    assert_identical(everything(whole), everything(resumed))


def test_the_replay_has_the_models_rewards_and_nothing_else(model: Path, make: Make, tmp_path: Path) -> None:
    placed(model, tmp_path / "run")
    algorithm = make(with_model(model), "run", feedback=FixedReward)
    advance(algorithm, 700)
    learner = algorithm.learner_group._learner
    columns, size = learner.replay.columns, learner.replay.size
    expected = reward_model_at(model).scorer().score(columns["obs"][:size], columns["action"][:size])
    np.testing.assert_allclose(learner.replay.reward[:size], expected, rtol=1e-5, atol=1e-6)
    assert np.std(expected.numpy()) > 1e-3
    held = ray.get(algorithm.feedback.weights())
    assert_identical(held, dict(RewardModel.load(model / FILE).weights))


def test_a_run_from_beginning_to_end_and_without_the_file_on(model: Path) -> None:
    run = changed(with_model(model), name="run", total_steps=600, checkpoint={"interval": 300})
    run = changed(run, evaluation={"final_episodes": 2, "videos": 0})
    summary = train(run, progress=False)
    assert (summary["labels"], summary["budget"], summary["teacher"]) == (0, 0, None)
    assert summary["reward_model"] == str(model) and summary["reward_model_accuracy"] is not None
    assert ("algorithm", f"pebble, fixed reward model {model}, seed 0") in result_rows(summary, protocol(run))
    assert f"fixed reward model {model}" in protocol(run)
    folder = RunDirectory.open(model.parent / "runs" / "run")
    assert status_of(folder).taught_by == f"fixed reward model {model}"
    assert not any(folder.preferences.iterdir())
    weights = RewardModel.load(model / FILE).weights
    shutil.rmtree(model)
    again = train(changed(run, total_steps=800), resume=folder.path, progress=False)
    assert again["env_steps"] >= 800
    newest = load_newest(folder.path)
    assert_identical(read_arrays(newest.place / "feedback" / "ensemble000.safetensors"), dict(weights))
    assert_identical(dict(reward_model_at(newest.place).weights), dict(weights))
    asking = changed(run, reward={"from": None}, queries={"budget": 4}, total_steps=1000)
    with pytest.raises(UserError, match=r"made with reward\.from=.*they must agree"):
        train(asking, resume=folder.path, progress=False)


def test_the_ensemble_of_a_run_serves_too(toy_run: RunDirectory, tmp_path: Path) -> None:
    found = reward_model_at(toy_run.path)
    assert found.facts["run"] == "toy" and (found.obs_dim, found.action_dim) == (4, 2)
    check(changed(small(tmp_path), reward={"from": str(toy_run.path)}))
    first = min(toy_run.checkpoints.glob("step-*"))
    with pytest.raises(UserError, match="has no reward model: nobody had answered"):
        reward_model_at(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": {"members": 2}}, "must agree; add --reward.members 3"),
        ({"reward": {"hidden": [17]}}, "add --reward.hidden 16"),
        ({"reward": {"from": "nowhere"}}, "there is no reward model 'nowhere'"),
        ({"env": {"suite": "gymnasium", "task": "Pendulum-v1"}}, "the environment has 3 and 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    model: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(changed(with_model(model), **change), progress=False)
    assert not (model.parent / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "oracle"}, "the mode oracle learns from the true reward"),
        ({"reward": {"meta_interval": 100}}, "reward.meta_interval would change it"),
        ({"reward": {"pretrain_epochs": 1}}, "reward.pretrain_epochs would change it"),
    ],
)
def test_contradictions_are_refused(model: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(with_model(model), **change)


def test_its_exploration_has_nothing_to_ask_about(model: Path, make: Make, tmp_path: Path) -> None:
    saved = tmp_path / "explored"
    run = with_model(model, explore={"save": str(saved)})
    placed(model, tmp_path / "run")
    advance(make(run, "run", feedback=FixedReward), 400)
    assert explored_steps(saved, run) >= 300
    with pytest.raises(
        UserError, match=r"saved in the mode 'oracle' or with reward\.from, which keeps no trajectories"
    ):
        explored_steps(saved, synchronous(small(tmp_path)))


@pytest.mark.slow
def test_a_run_at_a_url_has_its_model_there(model: Path, tmp_path: Path) -> None:
    """Another machine goes on with it, where neither the folder nor the file is, also before the first checkpoint."""
    storage, work = f"file://{tmp_path / 'away'}", tmp_path / "work"
    run = changed(with_model(model), name="run", storage_path=storage, work_path=str(work), total_steps=400)
    train(changed(run, evaluation={"final_episodes": 2, "videos": 0}), progress=False)
    shutil.rmtree(work)
    shutil.rmtree(model)
    for checkpoints in (True, False):
        if not checkpoints:
            shutil.rmtree(work)
            shutil.rmtree(tmp_path / "away" / "run" / "checkpoints")
        again = train(changed(run, total_steps=600), resume=f"{storage}/run", progress=False)
        assert again["env_steps"] >= 600 and (work / "run" / FILE).is_file()
