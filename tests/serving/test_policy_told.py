"""A policy of two tasks: trained, evaluated, served and exported with instructions."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from app_server import AppServer
from support import SMALL

from rayrlhf.aligning import align
from rayrlhf.cli import main
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.evaluating import evaluate
from rayrlhf.language.instructions import vectors_of
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.rewards.stored import FILE, RewardModel
from rayrlhf.serving.policy import build_app
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.shelf import Shelf
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

OBS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
NEAR, AWAY, NEW = (
    "Bring the point to the goal.",
    "Keep the point far away from the goal.",
    "Far away from there, please",
)


@pytest.fixture(scope="module")
def run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    told = ["env.task=point,point-away", "env.encoder=hashing", "env.instruction_width=6"]
    storage = f"storage_path={tmp_path_factory.mktemp('told')}"
    config = load_config("toy", [*SMALL, *told, "name=told", "evaluation.final_episodes=4", storage])
    train(config, progress=False)
    return RunDirectory.open(Path(config.storage_path) / "told")


@pytest.fixture(scope="module")
def url(run: RunDirectory) -> Iterator[str]:
    settings = PolicySettings.model_validate({"models": {"toys": str(run.path)}})
    server = AppServer(build_app(settings, Shelf(settings.models)))
    yield server.url
    server.stop()


def action(url: str, obs: np.ndarray, **body: object) -> np.ndarray:
    answer = httpx.post(f"{url}/v1/act", json={"obs": obs.tolist(), **body})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["action"])


def test_the_summary_and_an_evaluation_tell_tasks_apart(run: RunDirectory) -> None:
    summary = run.summary()
    assert summary is not None and set(summary["tasks"]) == {"point", "point-away"}
    assert np.mean(list(summary["tasks"].values())) == summary["success_rate"]
    again = evaluate(run.path, episodes=4)
    assert again["tasks"] == summary["tasks"] and again["true_return_mean"] == summary["true_return_mean"]
    with pytest.raises(UserError, match="has no held-out wordings"):
        evaluate(run.path, episodes=2, held_out_wordings=True)
    with pytest.raises(UserError, match="--render human shows one task"):
        evaluate(run.path, episodes=2, render=True)


def test_each_question_is_of_one_task_and_names_it(run: RunDirectory) -> None:
    for queries, _ in PreferenceDataset(run.preferences).read():
        assert queries.left.obs.shape[2] == 4, "the log has no vectors"
        assert len(queries.instructions) == len(queries) and set(queries.instructions) <= {NEAR, AWAY}
        for i, sentence in enumerate(queries.instructions):
            for side in (queries.left, queries.right):
                distance = np.linalg.norm(side.obs[i, 1:, :2], axis=1) / 2  # after each step, but for the last
                expected = distance if sentence == AWAY else 1 - distance
                np.testing.assert_allclose(side.reward[i, :-1], expected, atol=1e-6)


def test_act_takes_an_instruction(url: str, run: RunDirectory) -> None:
    near, away = (action(url, OBS, instruction=sentence) for sentence in (NEAR, AWAY))
    assert not np.allclose(near, away, atol=1e-3)
    np.testing.assert_allclose(action(url, OBS[1], instruction=AWAY), away[1], atol=1e-6)
    assert not np.allclose(action(url, OBS, instruction=NEW), near, atol=1e-4), "one that it was not trained with"
    segment = {"obs": OBS.tolist(), "action": [[0.0, 0.0]] * 3}
    rewards = [
        httpx.post(f"{url}/v1/reward", json={**segment, "instruction": sentence}).json()["reward"]
        for sentence in (NEAR, AWAY)
    ]
    assert rewards[0] != rewards[1]
    card = httpx.get(f"{url}/v1/models/toys").json()
    assert card["observation"]["width"] == 4
    assert card["instructions"]["tasks"] == {"point": [NEAR], "point-away": [AWAY]}


@pytest.mark.parametrize("path", ["act", "reward"])
def test_without_an_instruction_nothing_is_guessed(url: str, path: str) -> None:
    body: dict[str, object] = {"obs": OBS.tolist()} | ({"action": [[0.0, 0.0]] * 3} if path == "reward" else {})
    missing = httpx.post(f"{url}/v1/{path}", json=body)
    assert missing.status_code == 422 and "say which in `instruction`" in missing.json()["detail"]
    wide = httpx.post(f"{url}/v1/{path}", json={**body, "obs": np.zeros((3, 10)).tolist(), "instruction": NEAR})
    assert wide.status_code == 422 and "[3][10], wanted" in wide.json()["detail"]
    assert httpx.post(f"{url}/v1/{path}", json={**body, "instruction": "x" * 400}).status_code == 422


def test_an_exported_policy_has_the_vectors_beside_it(
    url: str, run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.onnx"
    assert main(["export", str(run.path), "--to", str(file)]) == 0
    session = onnxruntime.InferenceSession(str(file))
    vectors = json.loads(session.get_modelmeta().custom_metadata_map["instruction_vectors"])
    np.testing.assert_allclose(vectors[AWAY], vectors_of([AWAY], "hashing", 6)[0], rtol=1e-6)
    told = np.concatenate([OBS, np.tile(np.float32(vectors[AWAY]), (3, 1))], axis=1)
    np.testing.assert_allclose(session.run(["action"], {"obs": told})[0], action(url, OBS, instruction=AWAY), atol=1e-5)


def test_other_answers_are_told_in_words(run: RunDirectory, tmp_path: Path) -> None:
    records = PreferenceDataset(run.preferences).read()
    others = PreferenceDataset(tmp_path / "others")
    for queries, answers in records:  # what the run was asked itself does not count
        left, right = (replace(side, action=-side.action) for side in (queries.left, queries.right))
        moved = replace(queries, left=left, right=right, instructions=(NEW,) * len(queries))
        others.append(moved, answers)
    found = align(run.path, answers=str(tmp_path / "others"))
    assert found["answers"]["labels"] == 12 and found["reward_model_agreement"]["decisive"] == 12
    assert found["true_reward"]["transitions"] >= 12_000
    untold = PreferenceDataset(tmp_path / "untold")
    untold.append(replace(moved, session=9, instructions=()), answers)
    with pytest.raises(UserError, match="questions without an instruction"):
        align(run.path, answers=str(tmp_path / "untold"))


def test_a_model_fitted_to_its_answers_in_words_teaches_another_run(run: RunDirectory, tmp_path: Path) -> None:
    model = tmp_path / "model"
    words = ["--encoder", "hashing", "--instruction_width", "6", "--reward.hidden", "[16]", "--epochs", "5", "--quiet"]
    assert main(["fit", str(run.path), "--out", str(model), *words]) == 0
    found = RewardModel.load(model / FILE)
    assert found.obs_dim == 10 and found.facts["encoder"] == "hashing"
    told = ["env.task=point,point-away", "env.encoder=hashing", f"reward.from={model}", "name=taught"]
    small = [*SMALL, *told, "evaluation.final_episodes=2", f"storage_path={tmp_path}", "total_steps=400"]
    assert train(load_config("toy", [*small, "env.instruction_width=6"]), progress=False)["labels"] == 0
    for other in (["env.instruction_width=7"], ["env.encoder=null", "env.task=point"]):
        with pytest.raises(UserError, match=r"was fitted with --env.encoder hashing --env.instruction_width 6"):
            train(load_config("toy", [*small, "env.instruction_width=6", *other]), progress=False)
