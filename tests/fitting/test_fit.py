"""A fit to a dataset: it learns, it stops where it learns nothing more, and its numbers are those of its weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from preference_data import OBS, answered, dataset, queries

from rayrlhf.config import RewardOptions
from rayrlhf.errors import UserError
from rayrlhf.fitting.fit import Epoch, fit_labels, measures
from rayrlhf.fitting.labelled import Labelled, read_labels
from rayrlhf.fitting.split import Split, split
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.rewards import RewardEnsemble

OPTIONS = RewardOptions(hidden=(32, 32), batch_size=16, lr=1e-3)


def parted(data: Labelled) -> Split:
    return split(data.episodes, data.same, 0.25, "auto", 0)


def loaded(weights: dict[str, np.ndarray]) -> RewardEnsemble:
    ensemble = RewardEnsemble(OPTIONS, OBS, 2, seed=99)
    ensemble.load_weights(weights)
    return ensemble


def test_it_learns_what_it_has_not_seen(tmp_path: Path) -> None:
    data = read_labels(dataset(tmp_path, 400))
    found = fit_labels(data, parted(data), OPTIONS, seed=0, most=60, patience=60)
    assert found.held_out is not None and found.held_out["labels"] == 100
    assert found.held_out["accuracy"] > 0.85
    assert found.held_out["negative_log_likelihood"] < 0.4
    assert found.training["accuracy"] >= found.held_out["accuracy"] - 0.05


def test_the_best_epochs_weights_are_kept(tmp_path: Path) -> None:
    """Answers by a coin: what is learnt of them is wrong of others, so the fit ends early and goes back."""
    asked, made = queries(80), PreferenceDataset(tmp_path)
    said = np.random.default_rng(0).random(80) < 0.5
    made.append(
        asked, [Answer(key, "left" if yes else "right", "coin") for key, yes in zip(asked.ids, said, strict=True)]
    )
    data = read_labels(made)
    told: list[Epoch] = []
    found = fit_labels(data, parted(data), OPTIONS, seed=0, most=200, patience=5, tell=told.append)
    losses = [epoch.held_out for epoch in found.epochs]
    assert found.epochs == told and len(losses) == found.best + 5 < 200
    assert min(losses) == losses[found.best - 1]
    assert found.held_out["negative_log_likelihood"] == losses[found.best - 1]
    held_out = data.labels.take(parted(data).held_out)
    assert measures(loaded(found.weights), held_out) == found.held_out


def test_a_fit_is_a_function_of_its_seed(tmp_path: Path) -> None:
    data = read_labels(dataset(tmp_path, 40))
    first, again, other = (fit_labels(data, parted(data), OPTIONS, seed=s, most=3, patience=3) for s in (0, 0, 1))
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])
    assert first.epochs == again.epochs != other.epochs


def test_without_held_out_labels_all_epochs_are_run(tmp_path: Path) -> None:
    data = read_labels(dataset(tmp_path, 30))
    found = fit_labels(data, None, OPTIONS, seed=0, most=7, patience=2)
    assert (len(found.epochs), found.best, found.held_out) == (7, 7, None)
    assert found.training["labels"] == 30


def test_ctrl_c_leaves_the_best_so_far(tmp_path: Path) -> None:
    def press(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    data = read_labels(dataset(tmp_path, 40))
    found = fit_labels(data, parted(data), OPTIONS, seed=0, most=50, patience=50, tell=press)
    whole = fit_labels(data, parted(data), OPTIONS, seed=0, most=3, patience=50)
    assert (found.interrupted, found.ended, len(found.epochs)) == (True, "Ctrl-C", 3)
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(array, found.weights[name])


def test_rewards_are_scaled_by_the_training_labels(tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"normalize_rewards": True})
    data = read_labels(dataset(tmp_path, 60))
    found = fit_labels(data, parted(data), options, seed=0, most=5, patience=5)
    training = data.labels.take(parted(data).training)
    ensemble = loaded(found.weights)
    rewards = [ensemble.reward(side.obs, side.action) for side in (training.left, training.right)]
    assert float(np.std(np.stack([side.numpy() for side in rewards]))) == pytest.approx(1.0, abs=1e-3)


def test_numbers_by_instruction(tmp_path: Path) -> None:
    sentences = ("open the drawer",) * 30 + ("close it",) * 10
    data = read_labels(dataset(tmp_path, 40, instructions=sentences))
    found = fit_labels(data, None, OPTIONS, seed=0, most=2, patience=2).training
    assert {name: part["labels"] for name, part in found["by_instruction"].items()} == {
        "close it": 10,
        "open the drawer": 30,
    }
    right = sum(part["accuracy"] * part["labels"] for part in found["by_instruction"].values())
    assert right == pytest.approx(found["accuracy"] * 40)


def test_equal_labels_have_no_accuracy(tmp_path: Path) -> None:
    asked, made = queries(8), PreferenceDataset(tmp_path)
    made.append(asked, [Answer(key, "equal", "eva") for key in asked.ids])
    found = fit_labels(read_labels(made), None, OPTIONS, seed=0, most=1, patience=1).training
    assert (found["accuracy"], found["decisive"], found["labels"]) == (None, 0, 8)


def test_episodes_of_two_runs_are_told_apart_and_swapped_sides_are_not(tmp_path: Path) -> None:
    made, asked = PreferenceDataset(tmp_path), queries(3, episodes=range(0, 1))
    made.append(asked, answered(asked))
    other = queries(3, session=1, episodes=range(0, 1))
    named = tuple(key.replace("demo", "other") for key in other.ids)
    made.append(renamed := replace(other, ids=named), answered(renamed))
    data = read_labels(made)
    assert np.unique(data.episodes[:3]).size == np.unique(data.episodes[3:]).size == 1
    assert data.episodes[0, 0] != data.episodes[3, 0]
    swapped = Queries(tuple(f"swapped/{i}" for i in range(3)), 2, asked.right, asked.left)
    made.append(swapped, answered(swapped))
    data = read_labels(made)
    assert data.same.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert data.episodes[6, 0] == data.episodes[0, 0], "an episode that shows the same is the same"


@pytest.mark.parametrize("name", ["{}", "imported/{}"])
def test_ids_without_a_run_are_of_one(tmp_path: Path, name: str) -> None:
    """Forty questions about five episodes: whatever is held out shares one with what is learnt from, and it is said."""
    made, asked = PreferenceDataset(tmp_path), queries(40, episodes=range(5))
    asked = replace(asked, ids=tuple(name.format(i) for i in range(40)))
    made.append(asked, answered(asked))
    data = read_labels(made)
    assert np.unique(data.episodes).size == 5
    found = parted(data)
    assert found.shared > 0 and "share an episode with training ones" in found.words


def test_one_segment_under_many_episodes_links_its_questions(tmp_path: Path) -> None:
    made, asked = PreferenceDataset(tmp_path), queries(20)
    left = asked.left.take(np.zeros(20, np.int64))
    asked = replace(asked, left=replace(left, episode=np.arange(1000, 1020)))
    made.append(asked, answered(asked))
    data = read_labels(made)
    assert np.unique(data.episodes[:, 0]).size == 1 and np.unique(data.episodes[:, 1]).size == 20
    assert parted(data).shared > 0


def test_what_cannot_be_fitted_is_one_line(tmp_path: Path) -> None:
    made, asked = PreferenceDataset(tmp_path), queries(3)
    made.append(asked, [Answer(key, "skip", "eva") for key in asked.ids])
    with pytest.raises(UserError, match="holds no labels: nobody has answered, or only with skips"):
        read_labels(made)
    longer = queries(3, session=1, steps=9)
    made.append(longer, answered(longer))
    with pytest.raises(UserError, match=r"several shapes \(6 steps, obs 4, action 2, 9 steps, obs 4, action 2\)"):
        read_labels(made)
