"""`rayrlhf serve` and `rayrlhf export` as a user meets them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from listening import addresses_of

from rayrlhf import cli
from rayrlhf.algorithms import checkpoint
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import load_newest


def mistake(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert cli.main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rayrlhf: ") and err.count("\n") == 1
    return err.removeprefix("rayrlhf: ").strip()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["serve", "no/where"], "there is no run 'no/where'"),
        (["serve", "a=no/where"], "there is no run 'no/where'"),
        (["serve", ".", "--port", "99999"], "the port is 99999"),
        (["serve", ".", "--host", "256.1.1.1", "--new-token"], "cannot listen"),
        (["serve", ".", "--replicas", "0"], "--replicas is 0"),
        (["serve", ".", "--host", "0.0.0.0"], "lets other machines call: give --new-token"),
        (["serve", ".", "--host", "::"], "lets other machines call"),
        (["serve", ".", "--token"], "at least 16 characters in the variable RAYRLHF_TOKEN"),
        (["serve", ".", "--token", "--new-token"], "choose"),
        (["export"], "RUN|CHECKPOINT"),
        (["export", "no/where"], "there is no run 'no/where'"),
        (["export", ".", "--format", "pickle"], "--format"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    monkeypatch.delenv("RAYRLHF_TOKEN", raising=False)
    assert words in mistake(capsys, *args)


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = mistake(capsys, "serve", ".", "--port", str(taken.getsockname()[1]))
    assert "cannot listen" in said and "choose another port" in said


def test_runs_that_cannot_be_served(capsys: pytest.CaptureFixture[str], toy_run: RunDirectory) -> None:
    newest = checkpoint.by_age(toy_run.checkpoints)[0]
    assert "--watch follows runs" in mistake(capsys, "serve", newest, "--watch", "--port", "0")
    assert "name them" in mistake(capsys, "serve", toy_run.path, newest, "--port", "0")
    assert "models" in mistake(capsys, "serve", f"../x={toy_run.path}", "--port", "0")
    assert "max_replicas" in mistake(capsys, "serve", toy_run.path, "--replicas=3", "--max-replicas=2", "--port=0")


def test_without_a_target_the_newest_run_is_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, toy_run: RunDirectory, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no run in 'runs' has a whole checkpoint: say which" in mistake(capsys, "serve", "--port", "0")
    for age, name in enumerate(("damaged", "newest", "older", "empty")):
        copied = RunDirectory(Path(shutil.copytree(toy_run.path, tmp_path / "runs" / name)))
        for place in checkpoint.by_age(copied.checkpoints):
            os.utime(place, (1e9 - age, 1e9 - age))
            if name == "damaged":
                (place / "learner.safetensors").write_bytes(b"")
            if name == "empty":
                shutil.rmtree(place)
    monkeypatch.setattr("rayrlhf.cluster.ray_session", lambda cpus: nullcontext())
    monkeypatch.setattr("rayrlhf.serving.running.serving", lambda *args: nullcontext("http://here"))
    monkeypatch.setattr("rayrlhf.cli.serve._until_interrupted", lambda: None)
    assert cli.main(["serve", "--port", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"serving {Path('runs/newest')}, the run that trained last"
    assert lines[1].startswith("point: version ")


def test_serve_until_ctrl_c(toy_run: RunDirectory) -> None:
    """With a token that is made, over two names; Ctrl-C ends it with code 0, and nothing is left of it."""
    newest, *_, oldest = checkpoint.by_age(toy_run.checkpoints)
    command = [sys.executable, "-m", "rayrlhf", "serve", f"new={newest}", f"old={oldest}"]
    with subprocess.Popen(
        [*command, "--port=0", "--max-replicas=2", "--new-token", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        try:
            lines = []
            for line in server.stdout:
                lines.append(line)
                if line.startswith("{"):
                    break
            up = json.loads(lines[-1])
            assert up["models"] == ["new", "old"] and up["url"].startswith("http://127.0.0.1:")
            assert sum(up["token"] in line for line in lines[:-1]) == 1, "the token is shown once"
            assert addresses_of(server.pid) == {"127.0.0.1"}
            [example] = [line for line in lines if line.startswith("curl ")]
            refused = httpx.post(f"{up['url']}/v1/act", json={})
            assert refused.status_code == 401
            shell = {**os.environ, "RAYRLHF_TOKEN": up["token"]}
            shown = subprocess.run(["bash", "-c", example], env=shell, capture_output=True, text=True)
            assert json.loads(shown.stdout)["version"] == load_newest(newest).version
        finally:
            server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    assert (rest, errors) == ("", ""), "the object was the last line"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up['url']}/v1/health")


def test_export(
    toy_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", str(toy_run.path), "--format", "torchscript", "--json"]) == 0
    trained = load_newest(toy_run.path)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["file"] == f"point-{trained.version}.pt"
    obs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    exported = torch.jit.load(told["file"])(torch.from_numpy(obs))
    with torch.inference_mode():
        torch.testing.assert_close(exported, trained.actor.act(torch.from_numpy(obs), None), atol=1e-6, rtol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [told["file"]], "nothing else is left"


def test_export_replaces_nothing_unasked(
    toy_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.pt"
    file.write_text("important")
    command = ["export", toy_run.path, "--format=torchscript", f"--to={file}"]
    assert "--overwrite" in mistake(capsys, *command)
    assert file.read_text() == "important"
    assert cli.main([*map(str, command), "--overwrite"]) == 0
    capsys.readouterr()
    assert torch.jit.load(file)(torch.zeros(1, 4)).shape == (1, 2)
    assert "is a folder" in mistake(capsys, "export", toy_run.path, f"--to={tmp_path}")
    assert "cannot write" in mistake(capsys, "export", toy_run.path, "--format=torchscript", f"--to={tmp_path}/no/a.pt")


def test_a_damaged_checkpoint_is_not_exported(
    toy_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(Path(shutil.copytree(toy_run.path, tmp_path / "copy")))
    newest, before, *_ = checkpoint.by_age(run.checkpoints)
    (newest / "learner.safetensors").write_bytes(b"")
    said = mistake(capsys, "export", run.path, f"--to={tmp_path / 'a.onnx'}")
    assert "is damaged" in said and str(before) in said
    assert not (tmp_path / "a.onnx").exists()
