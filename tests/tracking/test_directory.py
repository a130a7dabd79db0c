"""A run's folder: claimed once, written whole, resumed from where its checkpoint was."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rayrlhf.config.load import load_config
from rayrlhf.config.schema import EnvOptions, RunConfig
from rayrlhf.envs.instructions import METAWORLD
from rayrlhf.errors import UserError
from rayrlhf.tracking import RunDirectory, Tracker
from rayrlhf.tracking import directory as directory_module
from rayrlhf.tracking import manifest as manifest_module
from rayrlhf.tracking.manifest import git_state


def make(tmp_path: Path, *overrides: str) -> RunDirectory:
    return RunDirectory.create(
        load_config("toy", [f"storage_path={tmp_path}", *overrides]), command=["x/rayrlhf", "train"]
    )


def test_config_and_manifest_are_enough_to_repeat_a_run(tmp_path: Path) -> None:
    run = make(tmp_path, "seed=7")
    assert run.name == "point-pebble-seed7"
    assert run.config() == load_config("toy", [f"storage_path={tmp_path}", "seed=7"])
    manifest = json.loads(run.manifest_file.read_text())
    assert manifest["command"] == ["rayrlhf", "train"]
    assert {"python", "torch", "ray", "numpy", "metaworld", "mujoco"} <= manifest["versions"].keys()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_source_state_says_what_differs_from_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    ours, installed = tmp_path / "ours.py", tmp_path / ".venv" / "installed.py"
    assert git_state(ours) is None, "no work tree"
    git("init")
    installed.parent.mkdir()
    for file, content in ((ours, "a = 1\n"), (installed, ""), (tmp_path / ".gitignore", ".venv\n")):
        file.write_text(content)
    git("add", ".")
    git("commit", "-m", "first")
    clean = git_state(ours)
    assert clean is not None and len(clean["commit"]) == 40 and not clean["dirty"] and clean["diff"] == ""
    ours.write_text("a = 2\n")
    changed = git_state(ours)
    assert changed is not None and changed["dirty"]
    (tmp_path / ".venv" / "source.diff").write_text(changed["diff"])
    git("stash")
    git("apply", ".venv/source.diff")
    assert ours.read_text() == "a = 2\n"
    assert git_state(installed) is None, "somebody else's work tree"
    monkeypatch.setattr(manifest_module, "MAX_DIFF", 10)
    assert git_state(ours) == {**changed, "diff": None}


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    make(tmp_path, "name=mine")
    with pytest.raises(UserError, match="exists: go on with it by `rayrlhf train --resume"):
        make(tmp_path, "name=mine")


def test_an_empty_folder_has_no_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert make(tmp_path, "name=mine").config().name == "mine"


def test_a_folder_is_there_with_all_that_makes_it_a_runs_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that is killed while it begins could neither be resumed nor begun again."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(directory_module, "save_config", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, "name=mine")
    assert list(tmp_path.iterdir()) == []
    make(tmp_path, "name=mine")


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [run.name for run in pool.map(lambda _: make(tmp_path, "mode=oracle"), range(16))]
    assert len(set(names)) == 16 == len(list(tmp_path.iterdir()))


def test_a_name_of_many_tasks_is_no_longer_than_a_file_systems(tmp_path: Path) -> None:
    config = RunConfig(storage_path=str(tmp_path), env=EnvOptions(task=", ".join(METAWORLD)))
    path = RunDirectory.create(config).path
    assert path.name.startswith("assembly-basketball-bin-picking-") and len(path.name) < 90


def test_a_made_up_name_is_numbered(tmp_path: Path) -> None:
    names = [make(tmp_path, "mode=oracle").name for _ in range(3)]
    assert names == ["point-oracle-seed0", "point-oracle-seed0-2", "point-oracle-seed0-3"]


@pytest.mark.parametrize("name", ["a/b", "..", "/tmp/x", "."])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="plain name"):
        make(tmp_path / "runs", f"name={name}")
    assert not (tmp_path / "runs").exists()


def test_a_storage_path_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make"):
        make(tmp_path / "file")


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"not a run's folder: it has no config\.yaml"):
        RunDirectory.open(tmp_path)


def test_summary_is_strict_json(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run.summary() is None
    run.write_summary({"success_rate": np.float32(0.5), "labels": np.int64(3), "correlation": float("nan")})
    assert run.summary() == {"success_rate": 0.5, "labels": 3, "correlation": None}
    for damaged in ("{", "[]"):
        run.summary_file.write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            run.summary()


def test_resuming_drops_the_rows_after_the_checkpoint_and_is_noted(tmp_path: Path) -> None:
    run = make(tmp_path)
    with Tracker(run, run.config().tracking) as tracker:
        for step in (100, 200, 300):
            tracker.log(step, {"x": step / 7})
    run.note_resume(200, command=["rayrlhf", "train", "--resume", "r"])
    assert [row["env_steps"] for row in run.metrics()] == [100, 200]
    assert run.metrics()[1]["x"] == 200 / 7
    resumes = json.loads(run.manifest_file.read_text())["resumes"]
    assert [resume["env_steps"] for resume in resumes] == [200]
    run.manifest_file.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        run.note_resume(200)
