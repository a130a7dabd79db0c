"""Runs at a URL from the command line: what is refused before anything is made, found again, and read."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import settings
from moto.core.responses import ActionAuthenticatorMixin
from saved_runs import answer, config_at, cut, new_run

from rayrlhf.algorithms import checkpoint
from rayrlhf.bench.bucket import Storage
from rayrlhf.cli import main
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.remote import Objects, checkpoints, lease, local, mirror, open_run
from rayrlhf.tracking import RunDirectory


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "TELL_SECONDS", 1e6)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refusing() -> Iterator[None]:
    """The server knows nobody's keys."""
    ActionAuthenticatorMixin.request_count, before = 0, settings.INITIAL_NO_AUTH_ACTION_COUNT
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    yield
    settings.INITIAL_NO_AUTH_ACTION_COUNT = before or math.inf


Say = Callable[[str], None]


def at(storage: Storage, tmp_path: Path, name: str = "") -> str:
    return storage.url(f"{tmp_path.name}/{name}".rstrip("/"))


def trained(storage: Storage, tmp_path: Path, work: str = "work") -> tuple[RunConfig, RunDirectory]:
    """A run that was begun, stored and left."""
    config = config_at(at(storage, tmp_path), tmp_path / work)
    run = open_run(config, None)
    with run.mirrored(pytest.fail) as copying:
        copying.begin()
        answer(run.folder, 0)
        cut(run.folder, 100, "ab")
        cut(run.folder, 200, "abc")
        copying.publish()
    return config, run.folder


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_missing_bucket_is_refused(storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "toy", "--storage_path", storage.url("runs", bucket="nobodys"), "--name=run"]
    assert "there is no bucket 'nobodys'" in refused(args, capsys)
    assert list(tmp_path.iterdir()) == []


def test_wrong_keys_are_refused(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusing: None
) -> None:
    args = ["train", "toy", "--storage_path", at(storage, tmp_path), "--name=run"]
    assert "the credentials of this machine are refused, or may not do that" in refused(args, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [("s3://key:secret@bucket/runs", "holds a key"), ("nothing://bucket/runs", "cannot open nothing://bucket/runs")],
)
def test_a_url_that_cannot_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, said: str) -> None:
    assert said in refused(["train", "toy", f"--storage_path={url}"], capsys)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused(storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["train", "--resume"], ["eval"], ["plot"], ["export"], ["serve"]):
        assert "there is no run" in refused([*args, at(storage, tmp_path, "none")], capsys)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_cannot_start_leaves_nothing(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    args = ["train", "toy", "--storage_path", at(storage, tmp_path), "--name=run", "--resources.reward_gpus=1000"]
    assert "1000 GPUs" in refused(args, capsys)
    assert not storage.names(tmp_path.name) and not (tmp_path / "runs" / "run").exists()


def test_a_name_is_taken_at_the_url(storage: Storage, tmp_path: Path) -> None:
    config, folder = trained(storage, tmp_path)
    shutil.rmtree(folder.path)
    with pytest.raises(UserError, match=r"exists: go on with it by `rayrlhf train --resume 's3://.*/run\?"):
        open_run(config, None)
    unnamed = config.model_copy(update={"name": None})
    storage.write(f"{tmp_path.name}/point-pebble-seed0/config.yaml", b"")
    assert open_run(unnamed, None).folder.name == "point-pebble-seed0-2"


def test_another_machine_gets_everything(storage: Storage, tmp_path: Path) -> None:
    _, folder = trained(storage, tmp_path)
    shutil.move(folder.path, tmp_path / "lost")
    config = config_at("elsewhere", tmp_path / "other")
    run = open_run(config, at(storage, tmp_path, "run"))
    assert run.config.storage_path == at(storage, tmp_path)
    with run.mirrored(pytest.fail):
        place = checkpoint.by_age(run.folder.checkpoints)
        assert [found.name for found in place] == ["step-000000000200"]
        checkpoint.verify(place[0], config)
        lost = RunDirectory.open(tmp_path / "lost")
        for file in [*lost.preferences.iterdir(), lost.config_file, lost.manifest_file]:
            assert (run.folder.path / file.relative_to(lost.path)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("by_url", [False, True])
def test_the_folder_that_wrote_last_is_gone_on_with(storage: Storage, tmp_path: Path, by_url: bool) -> None:
    """Though its process was killed a moment ago, and the storage lacks what it did last."""
    config, folder = trained(storage, tmp_path)
    there = json.loads(storage.read(f"{tmp_path.name}/run/running.json"))
    storage.write(f"{tmp_path.name}/run/running.json", json.dumps(there | {"released": False}).encode())
    cut(folder, 300, "abcd")
    name = answer(folder, 1)
    run = open_run(config, at(storage, tmp_path, "run") if by_url else folder.path)
    with run.mirrored(pytest.fail) as copying:
        copying.begin()
        copying.publish()
        assert len(checkpoint.by_age(folder.checkpoints)) == 3
    assert storage.names(f"{tmp_path.name}/run") >= {name, "checkpoints/step-000000000300/manifest.json"}


@pytest.mark.parametrize("by_url", [False, True])
def test_a_folder_that_is_behind_the_url_is_set_aside(storage: Storage, tmp_path: Path, by_url: bool) -> None:
    config, folder = trained(storage, tmp_path)
    only_here = answer(folder, 7)
    elsewhere = open_run(config_at("elsewhere", tmp_path / "other"), at(storage, tmp_path, "run"))
    with elsewhere.mirrored(pytest.fail) as copying:
        copying.begin()
        cut(elsewhere.folder, 300, "abcd")
        copying.publish()
    said: list[str] = []
    run = open_run(config, at(storage, tmp_path, "run") if by_url else folder.path)
    with run.mirrored(said.append):
        assert [place.name for place in checkpoint.by_age(run.folder.checkpoints)] == ["step-000000000300"]
        assert not (run.folder.path / only_here).exists() and (run.folder.path / "before-1" / only_here).exists()
    assert len(said) == 1 and "not the newest state" in said[0] and "before-1" in said[0]


def test_a_folder_of_something_else_is_left_alone(storage: Storage, tmp_path: Path) -> None:
    trained(storage, tmp_path)
    new_run(tmp_path / "mine")
    with pytest.raises(UserError, match="choose another --work_path"):
        open_run(config_at("elsewhere", tmp_path / "mine"), at(storage, tmp_path, "run"))


def test_a_checkpoint_of_a_newer_version_is_refused_and_the_run_free(storage: Storage, tmp_path: Path) -> None:
    _, folder = trained(storage, tmp_path)
    newer = cut(folder, 300, "abc", format=checkpoint.FORMAT + 1)
    objects = Objects(at(storage, tmp_path, "run"))
    checkpoints.upload(objects, newer, lambda: None, lambda done, total: None)
    for _ in range(2):
        run = open_run(config_at("elsewhere", tmp_path / "other"), objects.url)
        with pytest.raises(UserError, match="use rayrlhf"), run.mirrored(pytest.fail):
            pass
        shutil.rmtree(run.folder.path)


def test_a_copy_for_readers_has_what_they_read_and_not_the_replay(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, folder = trained(storage, tmp_path)
    copy = local(at(storage, tmp_path, "run"))
    assert copy.is_relative_to(tmp_path / "caches") and copy.name == "run"
    (place,) = checkpoint.by_age(copy / "checkpoints")
    checkpoint.verify(place, config, with_replay=False)
    assert not (copy / "checkpoints" / "rows").exists()
    one = local(at(storage, tmp_path, "run/checkpoints/step-000000000200"))
    assert one == place
    storage.delete(f"{tmp_path.name}/run/checkpoints/step-000000000200/manifest.json")
    with pytest.raises(UserError, match="not uploaded to the end"):
        local(at(storage, tmp_path, "run/checkpoints/step-000000000200"))
    assert local(folder.path) == folder.path


def test_the_status_of_a_run_is_told_from_its_url(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_at(at(storage, tmp_path), tmp_path / "work")
    run = open_run(config, None)
    url = at(storage, tmp_path, "run")

    def told() -> dict[str, Any]:
        assert main(["status", url, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
        assert found["path"] == url and found["name"] == "run"
        return dict(found)

    with run.mirrored(pytest.fail) as copying:
        copying.begin()
        cut(run.folder, 200, "abc")
        copying.publish()
        copying.await_upload()
        running = told()
        assert running["state"] == "running" and f"process {os.getpid()} on " in running["holder"]
        assert running["checkpoint"] == "step-000000000200"
    assert told()["state"] != "running"
    storage.delete(f"{tmp_path.name}/run/checkpoints/step-000000000200/manifest.json")
    assert told()["checkpoint"] is None
    assert "nowhere" in refused(["status", at(storage, tmp_path, "nowhere")], capsys)
