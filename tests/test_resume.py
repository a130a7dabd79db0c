"""What a run's folder holds after an interruption or a damage, and what going on with it does."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import SMALL, MuteTeacher, changed, hanging_feedback, interrupt_when, mute_feedback, small

from rayrlhf import evaluating, training
from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import read_arrays, read_json
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.cli import main
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(200)]


def short(folder: Path, **groups: Any) -> RunConfig:
    run = changed(
        small(folder),
        name="run",
        total_steps=600,
        queries={"budget": 8},
        rollout={"actors": 0, "synchronous": True},
        resources={"reward_actors": 2},
        checkpoint={"interval": 200, "keep": 3},
        evaluation={"final_episodes": 2, "videos": 0},
    )
    return changed(run, **groups)


@pytest.fixture(scope="module")
def finished(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three checkpoints, its ensemble over two processes."""
    folder = tmp_path_factory.mktemp("finished")
    train(short(folder), progress=False)
    return folder / "runs" / "run"


@pytest.fixture(scope="module")
def explored(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run saved at the end of an exploration of 600 steps."""
    folder = tmp_path_factory.mktemp("explored")
    explore = {"unsupervised_steps": 500, "save": str(folder / "exploration")}
    train(short(folder, explore=explore, total_steps=1000), progress=False)
    return folder / "exploration"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDirectory:
    shutil.copytree(finished, tmp_path / "runs" / "run")
    return RunDirectory.open(tmp_path / "runs" / "run")


def steps(run: RunDirectory) -> list[int]:
    return sorted(int(place.name.removeprefix("step-")) for place in checkpoint.by_age(run.checkpoints))


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def episode_ids(algorithm: Pebble, folder: Path) -> list[int]:
    """Of the episodes in the trajectory store, which is written to `folder` for it."""
    algorithm.feedback.save(folder)
    return read_arrays(folder / "trajectories.safetensors")["episode"].tolist()


def named_rows(run: RunDirectory) -> set[str]:
    manifests = [read_json(place / "manifest.json") for place in checkpoint.by_age(run.checkpoints)]
    return {chunk["name"] for saved in manifests for shard in saved["shards"] for chunk in shard["chunks"]}


def rows_there(run: RunDirectory) -> set[str]:
    return {file.name for file in (run.checkpoints / "rows").iterdir()}


@pytest.mark.parametrize(
    ("victim", "cut_short"),
    [
        ("learner.safetensors", False),
        pytest.param("manifest.json", True, marks=pytest.mark.slow),
        pytest.param("manifest.json", False, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_newest_checkpoint_sends_a_run_back_to_the_one_before(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], victim: str, cut_short: bool
) -> None:
    assert steps(run) == [200, 400, 600]
    newest = checkpoint.by_age(run.checkpoints)[0]
    if victim == "manifest.json":
        whole = json.dumps(read_json(newest / victim) | {"shards": []})
        (newest / victim).write_text(whole[:30] if cut_short else whole)
    else:
        damage(newest / victim)
    said: list[str] = []
    with training._algorithm(run.config(), run) as algorithm:
        assert training._restore(algorithm, run.config(), run, said.append) == 400
    assert len(said) == 1 and victim in said[0] and "going back" in said[0]
    assert steps(run) == [200, 400]
    assert rows_there(run) == named_rows(run)
    assert max(row["env_steps"] for row in run.metrics()) <= 400


def test_an_evaluation_of_a_damaged_checkpoint_names_the_one_before(run: RunDirectory) -> None:
    newest, before, *_ = checkpoint.by_age(run.checkpoints)
    damage(newest / "learner.safetensors")
    with pytest.raises(UserError, match=f"damaged.*the one before it is {before.resolve()}$"):
        evaluating.evaluate(run.path, episodes=1)
    assert evaluating.evaluate(before, episodes=1)["checkpoint"] == before.name


def test_where_no_checkpoint_is_whole_none_is_deleted(run: RunDirectory) -> None:
    for place in checkpoint.by_age(run.checkpoints):
        damage(place / "learner.safetensors")
    with pytest.raises(UserError, match="no earlier checkpoint is whole"):
        train(run.config(), resume=run.path, progress=False)
    assert steps(run) == [200, 400, 600]


def test_pruning_passes_over_a_damaged_manifest(run: RunDirectory) -> None:
    newest, middle, oldest = checkpoint.by_age(run.checkpoints)
    (oldest / "manifest.json").write_text("{")
    (middle / "manifest.json").write_bytes(b"\xff\xfe")
    checkpoint.prune(run.checkpoints, keep=2)
    assert steps(run) == [400, 600]
    checkpoint.verify(newest, run.config())


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"reward": {"hidden": [8, 8]}}, r"reward\.hidden"),
        ({"reward": {"members": 5}}, r"reward\.members"),
        ({"rollout": {"envs_per_actor": 2}}, r"rollout\.envs_per_actor"),
        ({"seed": 3}, "seed"),
        ({"sac": {"updates_per_step": 2.0}}, r"sac\.updates_per_step"),
        ({"sac": {"log_std_min": -6.0}}, r"sac\.log_std_min"),
        ({"explore": {"seed_steps": 50}}, r"explore\.seed_steps"),
        ({"queries": {"segment_length": 5}}, r"queries\.segment_length"),
        ({"rollout": {"synchronous": False}}, r"rollout\.synchronous"),
    ],
)
def test_a_resume_with_what_does_not_fit_names_the_key(finished: Path, groups: Any, named: str) -> None:
    run = RunDirectory.open(finished)
    with pytest.raises(UserError, match=named):
        checkpoint.verify(checkpoint.by_age(run.checkpoints)[0], changed(run.config(), **groups))


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"sac": {"hidden": [8, 8]}}, r"sac\.hidden"),
        ({"env": {"horizon": 40}}, r"env\.horizon"),
        ({"explore": {"neighbours": 3}}, r"explore\.neighbours"),
        ({"sac": {"replay_capacity": 500}, "explore": {"unsupervised_steps": 100}}, r"sac\.replay_capacity=500"),
    ],
)
def test_an_exploration_that_does_not_fit_names_the_key(
    explored: Path, tmp_path: Path, groups: dict[str, Any], named: str
) -> None:
    groups = {**groups, "explore": {**groups.get("explore", {}), "from": str(explored)}}
    with pytest.raises(UserError, match=named):
        train(short(tmp_path, **groups), progress=False)


def test_a_run_from_an_exploration_begins_new_episodes(explored: Path, tmp_path: Path) -> None:
    """Their ids go on: an id stands for one episode in all that the run has stored."""
    run = short(tmp_path, explore={"from": str(explored)}, total_steps=1200)
    with training._algorithm(run, RunDirectory.create(run)) as algorithm:
        training._start(algorithm, run)
        stored = episode_ids(algorithm, tmp_path / "before")
        while algorithm.progress.env_steps < 900:
            algorithm.train()
        seen = episode_ids(algorithm, tmp_path / "after")
    assert stored and len(set(seen)) == len(seen) > len(stored)


def test_what_a_resume_changes_is_kept_with_the_run(run: RunDirectory) -> None:
    longer = changed(run.config(), total_steps=700)
    with training._algorithm(longer, run) as algorithm:
        training._restore(algorithm, longer, run, lambda line: None)
    assert run.config() == longer
    assert load_config(str(run.path / "config-until-600.yaml")).total_steps == 600
    run.note_config(changed(longer, total_steps=800), 600)
    assert run.config().total_steps == 800
    assert load_config(str(run.path / "config-until-600.yaml")).total_steps == 600, "700 trained nothing"


def test_a_resume_that_cannot_be_is_refused_before_anything_starts(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "ray_session", None)  # would be called next
    with pytest.raises(UserError, match="seed=5"):
        train(changed(run.config(), seed=5), resume=run.path, progress=False)


def test_a_run_in_use_is_refused(run: RunDirectory) -> None:
    """Another process holds it until it is killed; nothing of the run is touched."""
    words = "import sys, time; from rayrlhf.tracking import RunDirectory\n"
    words += "with RunDirectory.open(sys.argv[1]).held(): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", words, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
        train(run.config(), resume=run.path, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    holder.kill()
    holder.wait()
    with run.held():
        pass


def test_a_run_is_no_checkpoint(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint"):
        train(short(tmp_path, explore={"from": str(finished)}), progress=False)


def test_a_video_that_cannot_be_drawn_is_refused_before_anything_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(UserError, match="switched off by MUJOCO_GL"):
        evaluating._require_drawing(load_config("quickstart"))
    with pytest.raises(UserError, match="envpool backend cannot draw"):
        evaluating._require_drawing(load_config("quickstart", ["env.backend=envpool"]))


def test_eval_reads_an_ensemble_of_two_processes(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (finished, checkpoint.by_age(finished / "checkpoints")[-1]):
        assert main(["eval", str(target), "--episodes=2", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["eval_episodes"] == 2 and row["env_steps"] == 200
    assert main(["eval", str(finished), "--episodes=2", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= row["reward_model_accuracy"] <= 1


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not lose me")
    with pytest.raises(UserError, match="no checkpoint"):
        train(short(tmp_path, explore={"save": str(tmp_path / "mine")}), progress=False)
    with pytest.raises(UserError, match="nowhere"):
        train(short(tmp_path, explore={"from": str(tmp_path / "nowhere")}), progress=False)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "do not lose me"
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_during_the_final_evaluation_leaves_a_checkpoint(tmp_path: Path) -> None:
    """The first checkpoint of this run is the last one, and shows that the final evaluation has begun."""
    run = short(
        tmp_path,
        mode="oracle",
        total_steps=350,
        rollout={"actors": 1},
        checkpoint={"interval": 10_000},
        evaluation={"final_episodes": 20_000},
    )
    folder = tmp_path / "runs" / "run"
    thread = interrupt_when(lambda: bool(list((folder / "checkpoints").glob("step-*"))))
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        train(run, progress=False)
    thread.join()
    saved = checkpoint.by_age(folder / "checkpoints")
    assert [checkpoint.verify(place, run)["progress"]["env_steps"] for place in saved] == [350]
    assert not (folder / "summary.json").exists()
    summary = train(changed(run, evaluation={"final_episodes": 2}), resume=folder, progress=False)
    assert summary["env_steps"] == 350


@pytest.mark.parametrize("feedback", [pytest.param(mute_feedback, marks=pytest.mark.slow), hanging_feedback])
def test_ctrl_c_ends_the_wait_for_a_teacher_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedback: Any
) -> None:
    """And the run goes on where it stood: its exploration ends again, with the critic's reset."""
    run = short(tmp_path, teacher={"wait": True})
    monkeypatch.setattr(training, "FeedbackLoop", feedback)
    MuteTeacher.asked.clear()
    thread = interrupt_when(MuteTeacher.asked.is_set)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        train(run, progress=False)
    thread.join()
    assert all(left.daemon for left in threading.enumerate() if left.name == "session")
    folder = tmp_path / "runs" / "run"
    (saved,) = checkpoint.by_age(folder / "checkpoints")[:1]
    progress = checkpoint.verify(saved, run)["progress"]
    assert progress["exploring"] and progress["sessions"] == 0
    monkeypatch.undo()
    summary = train(run, resume=folder, progress=False)
    assert summary["labels"] == 8
    last = read_json(checkpoint.by_age(folder / "checkpoints")[0] / "manifest.json")["progress"]
    assert last["reset_updates"] == run.explore.critic_reset_updates


def test_one_command_begins_a_run_and_goes_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a job does that its cluster starts again."""
    again = ["train", "toy", *SMALL, "--resume", "auto", f"--storage_path={tmp_path}", "--quiet"]
    assert main([*again, "--name=run", "--total_steps=800"]) == 0
    run = RunDirectory.open(tmp_path / "run")
    assert "resumes" not in json.loads(run.manifest_file.read_text())
    assert main([*again, "--name=run", "--total_steps=1000"]) == 0
    [resumed] = json.loads(run.manifest_file.read_text())["resumes"]
    assert (resumed["env_steps"], run.summary()["env_steps"], run.summary()["labels"]) == (800, 1000, 12)
    assert main(again) == 2
    assert "--resume auto goes on with the run of a name: give --name" in capsys.readouterr().err
