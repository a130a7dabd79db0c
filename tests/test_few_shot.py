"""Runs that begin from few-shot weights, and the command that makes such weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SMALL, Make, advance, synchronous

from rayrlhf.bench.wishes import wishes
from rayrlhf.cli import main
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.rewards.stored import FEW_SHOT, FILE, RewardModel
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

WORDS = ["--support", "12", "--query", "12", "--inner_lr", "0.05", "--lr", "0.003", "--reward.hidden", "[16]"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preferences of eight people who want different things of the toy's point."""
    folder = tmp_path_factory.mktemp("wishes")
    dataset = PreferenceDataset(folder)
    for number, labels in enumerate(wishes(8, 60)):
        queries = Queries(tuple(f"wish/{number:05d}/{i}" for i in range(60)), number, labels.left, labels.right)
        said = zip(queries.ids, labels.target, strict=True)
        dataset.append(queries, [Answer(key, "right" if target else "left", "somebody") for key, target in said])
    return folder


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    folder = data.parent / "weights"
    assert main(["pretrain", str(data), "--out", str(folder), "--steps", "40", "--evaluate_every", "20", *WORDS]) == 0
    return folder


def test_the_command_leaves_weights_numbers_and_a_page(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = RewardModel.load(weights / FILE)
    assert model.options.hidden == (16,) and "rates/layers.0.weight" in model.weights
    report = json.loads((weights / "metrics.json").read_text())
    assert (report["tasks"], report["held_out_tasks"], report["labels"]) == (7, 1, 480)
    assert [look["step"] for look in report["looks"]] == [0, 20, 40]
    assert "rayrlhf train CONFIG --reward.few_shot" in (weights / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--support", "50"], "task 0 has 60 labels, and support and query together want 62"),
        (["--tasks", "0"], "--tasks: Input should be greater than 0, not 0"),
        (["--held_out", "1.5"], "--held_out: Input should be less than 1"),
        (["--devices", "tpu"], "--devices has 'tpu', wanted cpu, cuda"),
        (["--reward.from", "x"], "reward.from is for runs"),
        (["--reward.lr", "0.1"], "reward.lr is for fits"),
        (["--reward.hiden", "[3]"], "did you mean 'reward.hidden'"),
    ],
)
def test_what_cannot_be_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["pretrain", str(data), "--out", str(tmp_path / "out"), *WORDS, *words]) == 2
    told = capsys.readouterr().err.strip().split("\n")
    assert message in told[-1], told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("adaptation", ["inner", "adam"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    ray_session: None, small_run: RunConfig, make: Make, weights: Path, tmp_path: Path, adaptation: str
) -> None:
    run = synchronous(small_run, reward={"few_shot": str(weights), "hidden": [16], "adaptation": adaptation})
    (tmp_path / "run").mkdir()
    RewardModel.load(weights / FILE).save(tmp_path / "run" / FEW_SHOT)
    whole = make(run, "run")
    advance(whole, 520)
    whole.save_checkpoint(str(tmp_path / "cut"))
    advance(whole, 900)
    resumed = make(run, "run")
    resumed.load_checkpoint(str(tmp_path / "cut"))
    advance(resumed, 900)
    first, second = (dict(_arrays(algorithm)) for algorithm in (whole, resumed))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def _arrays(algorithm: Any) -> Any:
    import ray

    return ray.get(algorithm.feedback.weights()).items()


def test_a_run_keeps_its_own_copy(ray_session: None, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE).write_bytes((weights / FILE).read_bytes())
    options = [f"reward.few_shot={copy}", "reward.hidden=[16]", "evaluation.final_episodes=2", "name=few"]
    config = load_config("toy", [*SMALL, *options, f"storage_path={tmp_path}", "total_steps=600", "queries.budget=8"])
    summary = train(config, progress=False)
    assert summary["labels"] == 8
    (copy / FILE).unlink()
    other = load_config(str(tmp_path / "few"), ["reward.few_shot=elsewhere", "total_steps=800"])
    with pytest.raises(UserError, match=r"was made with reward\.few_shot=.*they must agree"):
        train(other, resume=tmp_path / "few", progress=False)
    more = config.model_copy(update={"total_steps": 800})
    assert train(more, resume=tmp_path / "few", progress=False)["env_steps"] == 800
    assert (RunDirectory.open(tmp_path / "few").path / FEW_SHOT).is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward.hidden=[9]"], "was fitted with reward.hidden=16, this run has reward.hidden=9"),
        (["env.suite=metaworld", "env.task=reach"], "is for observations of 4 numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path, words: list[str], message: str) -> None:
    options = [f"reward.few_shot={weights}", "reward.hidden=[16]", f"storage_path={tmp_path}/runs", *words]
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        train(load_config("toy", [*SMALL, *options]), progress=False)
    assert not (tmp_path / "runs").exists()


def test_weights_that_nothing_was_taught_are_no_fixed_reward_model(weights: Path, tmp_path: Path) -> None:
    options = [f"reward.from={weights}", "reward.hidden=[16]", f"storage_path={tmp_path}/runs"]
    with pytest.raises(UserError, match=r"holds few-shot weights.*use reward\.few_shot"):
        train(load_config("toy", [*SMALL, *options]), progress=False)


def test_a_reward_model_without_rates_is_refused(weights: Path, tmp_path: Path) -> None:
    model = RewardModel.load(weights / FILE)
    plain = {name: value for name, value in model.weights.items() if not name.startswith("rates/")}
    RewardModel(model.options, 4, 2, plain).save(tmp_path / FILE)
    options = [f"reward.few_shot={tmp_path}", "reward.hidden=[16]", f"storage_path={tmp_path}/runs"]
    with pytest.raises(UserError, match="has no learnt rates"):
        train(load_config("toy", [*SMALL, *options]), progress=False)


@pytest.mark.parametrize(
    "words",
    [["mode=oracle"], ["reward.meta_interval=50"], ["reward.pretrain_epochs=2"], ["reward.from=somewhere"]],
)
def test_what_does_not_go_with_it_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="few_shot"):
        load_config("toy", ["reward.few_shot=somewhere", *words])
