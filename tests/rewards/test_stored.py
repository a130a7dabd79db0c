"""A reward model in a file: it scores as the ensemble did, and what is not one is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rayrlhf.config import RewardOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Labels
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.rewards.stored import RewardModel, scoring_part

OPTIONS = RewardOptions(hidden=(8, 8), members=2, normalize_inputs=True, normalize_rewards=True)


@pytest.fixture
def model(make_labels: Any) -> RewardModel:
    labels: Labels = make_labels(20)
    ensemble = RewardEnsemble(OPTIONS, 4, 2, seed=0)
    ensemble.fit(labels)
    return RewardModel(OPTIONS, 4, 2, scoring_part(ensemble.state()), {"dataset": "mine"})


def test_it_comes_back_bit_for_bit_and_scores_the_same(model: RewardModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = RewardModel.load(tmp_path / "m.safetensors")
    assert (again.options, again.obs_dim, again.action_dim, again.facts) == (OPTIONS, 4, 2, {"dataset": "mine"})
    assert again.weights.keys() == model.weights.keys()
    for name, array in model.weights.items():
        assert array.dtype == again.weights[name].dtype
        np.testing.assert_array_equal(array, again.weights[name])
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    scores = [held.scorer().score(obs, action).numpy() for held in (model, again)]
    np.testing.assert_array_equal(*scores)
    again.require_fit(OPTIONS.model_copy(update={"epochs": 3, "normalize_rewards": False}), 4, 2)


@pytest.mark.parametrize(
    ("change", "widths", "message"),
    [
        ({}, (5, 2), "for observations of 4 numbers and actions of 2, and the environment has 5 and 2"),
        ({"members": 3}, (4, 2), "reward.members=2, this run has reward.members=3: .*add --reward.members 2"),
        (
            {"hidden": (8,), "normalize_inputs": False},
            (4, 2),
            "reward.hidden=8,8, .* add --reward.hidden 8,8 --reward.normalize_inputs true",
        ),
        ({"output": "linear"}, (4, 2), "--reward.output tanh"),
    ],
)
def test_another_runs_options_are_refused(
    model: RewardModel, change: dict[str, Any], widths: tuple[int, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model.require_fit(OPTIONS.model_copy(update=change), *widths)


def test_what_is_no_model_is_refused(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match=r"cannot read the reward model .*FileNotFoundError"):
        RewardModel.load(file)
    model.save(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot read the reward model"):
        RewardModel.load(file)
    save_file(model.weights, file)
    with pytest.raises(UserError, match="is no reward model"):
        RewardModel.load(file)


def test_a_foreign_class_is_no_advice(model: RewardModel) -> None:
    foreign = replace(model, options=OPTIONS.model_copy(update={"network": "evil.module:Net"}))
    with pytest.raises(UserError, match=r"they must agree$"):
        foreign.require_fit(OPTIONS, 4, 2)


def test_facts_are_facts(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    replace(model, facts={"pairs": ["ab", 3, "cd"]}).save(file)
    assert RewardModel.load(file).pairs == {"ab", "cd"}
    rewritten(file, facts={"pairs": 7})
    assert RewardModel.load(file).pairs == frozenset()
    for facts in (None, [], "x"):
        rewritten(file, facts=facts)
        with pytest.raises(UserError, match="is damaged, or of another version: ValueError: its facts are"):
            RewardModel.load(file)


def rewritten(file: Path, **about: Any) -> None:
    """Changes what a file says of itself."""
    arrays = load_file(file)
    text = {"format": 1, "options": {}, "obs_dim": 4, "action_dim": 2, "facts": {}} | about
    save_file(arrays, file, metadata={"rayrlhf.reward_model": json.dumps(text)})


def test_foreign_and_newer_files_are_refused(model: RewardModel, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    for about, message in (
        ({"format": 2}, "has format 2, this rayrlhf reads 1: upgrade"),
        ({"options": {"colour": 1}}, "damaged, or of another version"),
        ({"obs_dim": "wide"}, "damaged, or of another version"),
    ):
        model.save(file)
        rewritten(file, **about)
        with pytest.raises(UserError, match=message):
            RewardModel.load(file)
    rewritten(file, options={"members": 2, "hidden": [9, 9]})
    with pytest.raises(UserError, match="is damaged: ValueError: the weights hold no"):
        RewardModel.load(file).require_fit(RewardOptions(members=2, hidden=(9, 9)), 4, 2)
    model.weights["reward_scale"] = np.array(np.nan)
    model.save(file)
    with pytest.raises(UserError, match="a weight is not finite"):
        RewardModel.load(file)
