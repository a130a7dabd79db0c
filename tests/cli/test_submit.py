"""`rayrlhf submit` up to the cluster: what it asks for, what it refuses, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayrlhf import cli, jobs
from rayrlhf.cli.submit import SubmitOptions, job
from rayrlhf.errors import UserError
from rayrlhf.jobs import Ending, _Log


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "what is the job?"),
        (["train", "toy"], "what is the job?"),
        (["--"], "Nothing follows --"),
        (["--", "serve"], "'serve' cannot be a job"),
        (["--", "trian"], "did you mean 'train'"),
        (["--nope", "--", "train", "toy"], "--nope"),
        (["--", "train", "toy", "--sed=1"], "unknown key 'sed'"),
        (["--", "train"], "which config?"),
        (["--", "train", "people"], "nobody would reach the page"),
        (["--", "train", "--resume", "runs/x"], "give the whole path"),
        (["--", "eval"], "RUN|CHECKPOINT"),
        (["--env=x", "--", "train", "toy"], "--env 'x' is not NAME=VALUE"),
        (["--entrypoint-resources=a=b", "--", "train", "toy"], "wanted a number"),
        (["--working-dir=/no/where", "--", "train", "toy"], "there is no folder '/no/where'"),
        (["--package=none", "--pip", "--", "train", "toy"], "--pip goes with --package ship"),
        (["--address=http://127.0.0.1:1", "--", "train", "toy"], "nobody answers at http://127.0.0.1:1"),
        (["--address=nonsense", "--", "train", "toy"], "no address of a Ray cluster"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert cli.main(["submit", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1


def test_a_run_goes_where_it_outlives_the_job() -> None:
    def command(*words: str) -> str:
        return job(SubmitOptions(), ["train", "toy", *words]).command

    assert command() == 'exec python -m rayrlhf train toy --storage_path="$HOME"/runs'
    assert command("--storage_path=a b").endswith("""--storage_path="$HOME"/'a b'""")
    assert command("--storage_path=/mnt/runs") == "exec python -m rayrlhf train toy --storage_path=/mnt/runs"
    assert command("--sac.hidden=[8,8]").startswith("exec python -m rayrlhf train toy '--sac.hidden=[8,8]' ")


def test_a_search_is_checked_and_outlives_the_job(tmp_path: Path) -> None:
    file = tmp_path / "lr.yaml"
    file.write_text("run: toy\nsearch: {sac.actor_lr: {choice: [1e-3, 1e-4]}}\n")
    wanted = job(SubmitOptions(), ["tune", str(file)])
    assert wanted.command == f'exec python -m rayrlhf tune {file} --storage="$HOME"/runs'
    assert wanted.metadata["run"] == "lr"
    elsewhere = job(SubmitOptions(), ["tune", str(file), "--storage=/mnt/runs"])
    assert elsewhere.command == f"exec python -m rayrlhf tune {file} --storage=/mnt/runs"
    again = job(SubmitOptions(), ["tune", "/mnt/runs/begun-there", "--resume"])
    assert again.command == "exec python -m rayrlhf tune /mnt/runs/begun-there --resume"
    file.write_text("run: toy\nsearch: {sac.actor_rl: {choice: [1e-3, 1e-4]}}\n")
    with pytest.raises(UserError, match=r"did you mean 'sac\.actor_lr'"):
        job(SubmitOptions(), ["tune", str(file)])


@pytest.mark.parametrize(
    "words",
    [
        "export /mnt/run",
        "export /mnt/run --to policy.onnx",
        "plot /mnt/run --out plots",
        "dataset export /mnt/run answers.jsonl",
        "dataset import preferences /mnt/answers.jsonl",
    ],
)
def test_what_would_be_written_to_the_jobs_own_folder_is_refused(words: str) -> None:
    with pytest.raises(UserError, match="give a whole path on the cluster"):
        job(SubmitOptions(), words.split())


@pytest.mark.parametrize(
    "words",
    [
        "export /mnt/run --to=/mnt/policy.onnx",
        "plot /mnt/run",
        "plot /mnt/run --out /mnt/plots",
        "dataset export /mnt/run s3://bucket/answers.jsonl",
        "dataset info preferences",
        "doctor",
    ],
)
def test_what_is_written_elsewhere_is_not(words: str) -> None:
    assert job(SubmitOptions(), words.split()).command == f"exec python -m rayrlhf {words}"


def test_what_the_nodes_get() -> None:
    shipped = job(SubmitOptions(env=("A=b=c",)), ["eval", "/mnt/runs/x"]).runtime_env()
    assert shipped["py_modules"] == [str(Path(jobs.__file__).parent)] and "pip" not in shipped
    assert shipped["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60", "A": "b=c"}
    with_pip = job(SubmitOptions(pip=True), ["doctor"]).runtime_env()
    assert any(line.startswith("torch") for line in with_pip["pip"]) and "py_modules" in with_pip
    assert not any("extra" in line for line in with_pip["pip"])
    named = job(SubmitOptions(package="rayrlhf[fast]==0.1.0"), ["doctor"]).runtime_env()
    assert named["pip"] == ["rayrlhf[fast]==0.1.0"] and "py_modules" not in named
    assert not {"pip", "py_modules"} & job(SubmitOptions(package="none"), ["doctor"]).runtime_env().keys()


class Server:
    """Stands for the job server; its jobs end as told."""

    ending: Any = Ending("SUCCEEDED", "")

    def __init__(self, address: str | None) -> None:
        self.url = "http://head:8265"

    def require_node_for(self, job: jobs.Job) -> None:
        assert job.cpus is None

    def submit(self, job: jobs.Job) -> str:
        return "job-1"

    def follow(self, job: str, write: Any) -> Ending:
        write("a line\n")
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        (Ending("SUCCEEDED", ""), 0, ""),
        (Ending("FAILED", "exit code 3"), 1, "job job-1 failed: exit code 3"),
        (Ending("STOPPED", ""), 1, "job job-1 was stopped"),
        (jobs.LostClusterError("gone"), 1, "lost the cluster at http://head:8265 (gone); the job may go on"),
        (KeyboardInterrupt(), 130, "the job goes on; to follow it: ray job logs --address http://head:8265"),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ending: Any, code: int, words: str
) -> None:
    monkeypatch.setattr(jobs, "JobServer", Server)
    monkeypatch.setattr(Server, "ending", ending)
    assert cli.main(["submit", "--json", "--", "train", "toy"]) == code
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == bool(words)
    assert ("error" in json.loads(out.splitlines()[-1])) == bool(code)


def test_another_version_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx.Response(200, json={"ray_version": "2.41.0"}, request=httpx.Request("GET", "http://head:8265"))
    monkeypatch.setattr(jobs, "_require_listener", lambda *args: None)
    monkeypatch.setattr(jobs, "_asks_for_version", lambda url: answer)
    with pytest.raises(UserError, match=r"is version 2\.41\.0, and here is 2\.60\.\d+: install the same on both"):
        jobs.JobServer("http://head:8265")


def test_a_log_that_is_read_again_is_written_once() -> None:
    written: list[str] = []
    log = _Log(written.append)
    log.add("one\n", 0)
    log.add("two\n", 4)
    log.add("one\n", 0)  # again from the beginning, after an interruption
    log.add("two\nthree\n", 4)
    log.add("one\ntwo\nthree\nend\n", 0)
    assert "".join(written) == "one\ntwo\nthree\nend\n"
