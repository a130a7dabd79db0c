"""A run's policy and reward model against answers it was not trained on, and against the true reward."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayrlhf.aligning import align, read_answers
from rayrlhf.cli import main
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.evaluation import coverage
from rayrlhf.preferences import Answer, Choice, PreferenceDataset, Queries, Segments
from rayrlhf.preferences.exchange import export_file
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import reward_model_at
from rayrlhf.training import train

SAID: tuple[Choice, ...] = ("left", "right", "equal", "skip", "left", "right")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "STEPS", 1200)


def segments(count: int, seed: int, obs_dim: int = 4) -> Segments:
    rng = np.random.default_rng(seed)
    obs, action = (rng.uniform(-1, 1, (count, 10, width)).astype(np.float32) for width in (obs_dim, 2))
    reward = obs.sum(2)
    return Segments(obs, action, reward, reward > 9, np.arange(count), np.zeros(count, np.int64))


def answered(folder: Path, said: tuple[Choice, ...] = SAID, **shape: int) -> PreferenceDataset:
    """A question for each of `said`."""
    dataset = PreferenceDataset(folder)
    ids = tuple(f"q{i}" for i in range(len(said)))
    queries = Queries(ids, 0, segments(len(said), 0, **shape), segments(len(said), 1, **shape))
    dataset.append(queries, [Answer(key, choice, "ann") for key, choice in zip(ids, said, strict=True)])
    return dataset


def test_agreement_calibration_and_distance(toy_run: RunDirectory, tmp_path: Path) -> None:
    answered(tmp_path / "held-out")
    found = align(toy_run.path, answers=str(tmp_path / "held-out"))
    assert found["answers"] == {
        "from": str(tmp_path / "held-out"),
        "questions": 6,
        "unanswered": 1,
        "asked_itself": 0,
        "labels": 5,
    }
    for judge in ("policy_agreement", "reward_model_agreement"):
        assert (found[judge]["decisive"], found[judge]["equal"]) == (4, 1)
        assert 0 <= found[judge]["low"] <= found[judge]["agreed"] <= found[judge]["high"] <= 1
    assert found["calibration"]["pairs"] == 5
    assert sum(found["calibration"]["bins"]["count"]) == 2 * 5, "each pair in both orders"
    assert 0 <= found["true_reward"]["epic"] <= 1
    assert "random actions" in found["true_reward"]["distribution"]
    assert toy_run.alignment() == json.loads(json.dumps(found))


def test_a_file_and_a_run_hold_answers_too(toy_run: RunDirectory, tmp_path: Path) -> None:
    dataset = answered(tmp_path / "held-out")
    from_folder = align(toy_run.path, answers=str(tmp_path / "held-out"))
    for name in ("answers.parquet", "answers.jsonl"):
        export_file(dataset, tmp_path / name)
        found = align(toy_run.path, answers=str(tmp_path / name))
        assert {**found, "answers": {**found["answers"], "from": None}} == {
            **from_folder,
            "answers": {**from_folder["answers"], "from": None},
        }
    assert len(read_answers(str(toy_run.path))) == len(PreferenceDataset(toy_run.preferences).sessions())


def test_what_the_run_was_asked_itself_is_not_held_out(toy_run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asked itself, or its reward model was fitted to: name other answers"):
        align(toy_run.path, answers=str(toy_run.path))
    both = answered(tmp_path / "both")
    own = PreferenceDataset(toy_run.preferences)
    both.merge_from(own)
    found = align(toy_run.path, answers=str(tmp_path / "both"))
    assert found["answers"]["labels"] == 5
    assert found["answers"]["asked_itself"] == sum(len(queries) for queries, _ in own.read())


def test_nor_is_it_with_the_sides_exchanged(toy_run: RunDirectory, tmp_path: Path) -> None:
    swapped = PreferenceDataset(tmp_path / "swapped")
    turned: dict[Choice, Choice] = {"left": "right", "right": "left", "equal": "equal", "skip": "skip"}
    for queries, answers in PreferenceDataset(toy_run.preferences).read():
        asked = replace(queries, left=queries.right, right=queries.left)
        swapped.append(asked, [replace(answer, choice=turned[answer.choice]) for answer in answers])
    with pytest.raises(UserError, match="name other answers"):
        align(toy_run.path, answers=str(tmp_path / "swapped"))


def test_what_a_fixed_model_was_fitted_to_is_not_held_out(
    ray_session: None, toy_run: RunDirectory, tmp_path: Path
) -> None:
    """Neither in a run by a model of `fit`, nor in one by another run's model."""
    answered(tmp_path / "data", (*SAID, "left", "right"))
    assert main(["fit", str(tmp_path / "data"), "--out", str(tmp_path / "model"), "--epochs=1", "--quiet"]) == 0
    for name, source in (("by-model", tmp_path / "model"), ("by-run", toy_run.path)):
        model = reward_model_at(source).options
        agree = [f"reward.hidden={','.join(map(str, model.hidden))}", f"reward.members={model.members}"]
        changes = [f"name={name}", f"storage_path={tmp_path}", f"reward.from={source}", *agree]
        train(load_config(str(toy_run.config_file), changes), progress=False)
    with pytest.raises(UserError, match="or its reward model was fitted to"):
        align(tmp_path / "by-model", answers=str(tmp_path / "data"))
    with pytest.raises(UserError, match="or its reward model was fitted to"):
        align(tmp_path / "by-run", answers=str(toy_run.path))


def test_of_the_true_reward_there_is_a_policy_alone(ray_session: None, toy_run: RunDirectory, tmp_path: Path) -> None:
    config = load_config(str(toy_run.config_file), ["mode=oracle", "name=oracle", f"storage_path={tmp_path}"])
    train(config, progress=False)
    answered(tmp_path / "held-out")
    found = align(tmp_path / "oracle", answers=str(tmp_path / "held-out"))
    assert found["policy_agreement"]["decisive"] == 4
    assert not {"reward_model_agreement", "calibration", "true_reward"} & found.keys()
    assert "trains on the true reward" in found["reward_model"]
    with pytest.raises(UserError, match="no reward model: it trains on the true reward"):
        align(tmp_path / "oracle")


def test_what_does_not_fit_is_one_line(toy_run: RunDirectory, tmp_path: Path) -> None:
    answered(tmp_path / "wide", obs_dim=5)
    with pytest.raises(UserError, match=r"observations of 5 numbers .* has 4 and 2: .* another environment"):
        align(toy_run.path, answers=str(tmp_path / "wide"))
    answered(tmp_path / "skips", ("skip", "skip"))
    with pytest.raises(UserError, match="prefers a side or says equal"):
        align(toy_run.path, answers=str(tmp_path / "skips"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no answers"):
        align(toy_run.path, answers=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="there are no answers at"):
        align(toy_run.path, answers=str(tmp_path / "nowhere"))


def test_before_the_first_answer_there_is_no_reward_model(toy_run: RunDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "young"
    shutil.copytree(toy_run.path, copy)
    for place in sorted((copy / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(place)
    with pytest.raises(UserError, match="no reward model yet: nobody has answered"):
        align(copy)


def test_the_verb_says_it(toy_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered(tmp_path / "held-out")
    words = ["eval", str(toy_run.path), "--episodes=2", "--answers", str(tmp_path / "held-out"), "--json"]
    assert main(words) == 0
    *table, last = capsys.readouterr().out.strip().splitlines()
    result = json.loads(last)
    assert result["eval_episodes"] == 2
    assert result["alignment"]["answers"]["labels"] == 5
    said = "\n".join(table)
    for name in ("held-out answers", "reward model agrees with", "policy agrees with", "calibration", "EPIC distance"):
        assert name in said
