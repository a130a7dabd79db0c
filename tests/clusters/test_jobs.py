"""`rayrlhf submit` on a real cluster: `clusters/local.sh`'s, a head and two workers on the loopback network."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import Cluster, free_ports, started
from support import APART, SMALL, assert_identical, curve, networks, of_kind

import rayrlhf
from rayrlhf.tracking import RunDirectory

SCRIPT = Path(__file__).parents[2] / "clusters" / "local.sh"
PACKAGE = Path(rayrlhf.__file__).parent

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Its nodes have the package. Their programs are not resolved: a virtual environment's."""
    with started(Path(sys.executable).parent, {"PYTHONPATH": str(PACKAGE.parent)}) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working folder with a config of its own, and with things that stay here."""
    folder = tmp_path / "work"
    (folder / "runs" / "old").mkdir(parents=True)
    (folder / "runs" / "old" / "large").write_bytes(b"x" * 1000)
    (folder / "mine.yaml").write_text("base: toy\nevaluation:\n  final_episodes: 2\n")
    return folder


def test_a_run_that_succeeds(cluster: Cluster, here: Path) -> None:
    """Its config is a file of the working folder; it lands in the home folder of the node, not in Ray's copy."""
    done = cluster.submit(
        "--json", "--name=one", "--env=GREETING=hello", "--", "train", "mine.yaml", *SMALL, "--name=first", cwd=here
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["job"] == "one" and result["status"] == "SUCCEEDED" and result["address"] == cluster.url
    assert "12/12 labels" in done.stdout and "job one succeeded" in done.stdout
    run = Path(cluster.env["HOME"]) / "runs" / "first"
    assert json.loads((run / "summary.json").read_text())["labels"] == 12
    info = cluster.jobs().get_job_info("one")
    assert info.metadata is not None and info.runtime_env is not None
    told = {"rayrlhf": rayrlhf.__version__, "verb": "train", "config": "mine.yaml", "run": "first"}
    assert told.items() <= info.metadata.items()
    assert info.runtime_env["env_vars"]["GREETING"] == "hello"
    [copy] = Path(cluster.env["CLUSTER"]).glob("0/session_2*/runtime_resources/working_dir_files/*/mine.yaml")
    assert not (copy.parent / "runs").exists()

    again = cluster.submit("--name=one", "--", "train", "toy", cwd=here)
    assert again.returncode == 2 and again.stderr.startswith("rayrlhf: the job was not started: ")
    assert again.stderr.count("\n") == 1 and "one" in again.stderr


def test_a_run_that_fails(cluster: Cluster, here: Path) -> None:
    done = cluster.submit("--json", "--", "train", "toy", "--env.task=nowhere", cwd=here)
    assert done.returncode == 1
    assert "there is no toy task 'nowhere'" in done.stdout or "nowhere" in done.stdout
    assert done.stderr.startswith("rayrlhf: job raysubmit_") and "failed with exit code 2" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "FAILED" and "exit code 2" in result["error"]


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["toy", "metaworld"])
def test_a_job_over_several_nodes_gives_the_curve_of_one_node(cluster: Cluster, here: Path, environment: str) -> None:
    """Driver, learner and reward actors are on the head, a rollout actor on each worker; to the bit."""
    words = ["train", *of_kind(environment), *APART, f"--storage_path={here}", "--resources.rollout_cpus=1.5"]
    marks = ["--resources.rollout_on=rollout", "--resources.durable_on=durable"]
    done = cluster.submit("--", *words, *marks, "--name=several", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = {name: value for name, value in cluster.env.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "rayrlhf", *words, "--name=one"]
    one = subprocess.run(command, env=alone, cwd=here, capture_output=True, text=True, timeout=300, check=False)
    assert one.returncode == 0, one.stderr
    runs = [RunDirectory(here / name) for name in ("several", "one")]
    assert curve(runs[0]) == curve(runs[1])
    assert_identical(*(networks(run) for run in runs))
    lines = [line for line in done.stdout.splitlines() if "rollout" in line and "on rollout" in line]
    assert lines, "the plan is printed"


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_a_checkpoint(cluster: Cluster, here: Path) -> None:
    """Ray's own `ray job submit` exits with 0 here, and gives a run three seconds to save itself."""
    words = [*SMALL, "--total_steps=100000", "--name=long", "--storage_path", str(here / "elsewhere")]
    with cluster.begin(here, "--name=long", "--", "train", "toy", *words) as process:
        assert process.stdout is not None and process.stderr is not None
        assert any("learning" in line for line in process.stdout)
        assert cluster.jobs().stop_job("long")
        process.stdout.read()
        said = process.stderr.read()
        assert process.wait(120) == 1
    assert "rayrlhf: job long was stopped" in said
    assert list((here / "elsewhere" / "long" / "checkpoints").glob("step-*/manifest.json"))


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_alone(cluster: Cluster, here: Path) -> None:
    with cluster.begin(here, "--name=left", "--", "train", "toy", "--total_steps=100000") as process:
        assert process.stdout is not None and process.stderr is not None
        assert any("Running entrypoint" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert (
        said.startswith("rayrlhf: interrupted: the job goes on; to follow it: ray job logs") and said.count("\n") == 1
    )
    assert f"ray job stop --address {cluster.url} left" in said
    assert not cluster.jobs().get_job_status("left").is_terminal()
    cluster.jobs().stop_job("left")


def test_the_nodes_get_this_package(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    """Before the one that they have; with `none` they use theirs."""
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "other" / "rayrlhf", ignore=shutil.ignore_patterns("__pycache__")))
    with (copy / "cli" / "doctor.py").open("a") as file:
        file.write('\nprint("another doctor")\n')
    shipped = cluster.submit("--", "doctor", cwd=here, PYTHONPATH=str(copy.parent))
    assert "another doctor" in shipped.stdout
    theirs = cluster.submit("--package=none", "--", "doctor", cwd=here, PYTHONPATH=str(copy.parent))
    assert "python" in theirs.stdout and "another doctor" not in theirs.stdout


@pytest.mark.slow
def test_nodes_that_lack_the_package_get_it(here: Path, tmp_path: Path) -> None:
    """They have what it requires, and no more."""
    venv.create(tmp_path / "bare", with_pip=False)
    programs = tmp_path / "bare" / "bin"
    [site] = (tmp_path / "bare").glob("lib/*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # what links this package from there is not read
    (programs / "ray").write_text(f"#!{programs}/python\nfrom ray.scripts.scripts import main\n\nmain()\n")
    (programs / "ray").chmod(0o755)
    found = subprocess.run([programs / "python", "-c", "import ray, rayrlhf"], cwd=here, capture_output=True, text=True)
    assert "No module named 'rayrlhf'" in found.stderr
    with started(programs, {}) as bare:
        theirs = bare.submit("--package=none", "--", "doctor", cwd=here)
        assert theirs.returncode == 1 and "No module named rayrlhf" in theirs.stdout
        done = bare.submit("--", "train", "mine.yaml", *SMALL, "--name=shipped", cwd=here)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (Path(bare.env["HOME"]) / "runs" / "shipped" / "summary.json").exists()


@pytest.mark.slow
def test_rays_own_command_does_too(cluster: Cluster, here: Path) -> None:
    words = ["rayrlhf", "train", "mine.yaml", *SMALL, "--name=plain", f"--storage_path={here / 'out'}"]
    command = ["ray", "job", "submit", "--address", cluster.url, "--working-dir", ".", "--", *words]
    done = subprocess.run(command, env=cluster.env, cwd=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((here / "out" / "plain" / "summary.json").read_text())["labels"] == 12


def test_what_is_refused_before_anything_starts(cluster: Cluster, here: Path) -> None:
    before = {job.submission_id for job in cluster.jobs().list_jobs()}
    nobody = f"127.0.0.1:{free_ports(2)}"
    cases = {
        "wants a token": {"RAY_AUTH_MODE": "disabled"},
        "wants another token": {"RAY_AUTH_TOKEN": "wrong"},
        "RAY_AUTH_MODE is token and there is none": {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(here)},
        "nobody answers": {"RAY_API_SERVER_ADDRESS": f"http://{nobody}"},
    }
    for words, env in cases.items():
        done = cluster.submit("--", "train", "toy", cwd=here, **env)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, (words, done.stderr)
    for option, words in (
        ("--entrypoint-gpus=8", "no node of the cluster has 8 GPU for the driver, 0 is the most"),
        ("--entrypoint-resources=durabel=0.001", "has 0.001 durabel for the driver"),
    ):
        done = cluster.submit(option, "--", "train", "toy", cwd=here)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, (words, done.stderr)
    assert {job.submission_id for job in cluster.jobs().list_jobs()} == before


def test_the_address_may_be_rays_own(cluster: Cluster, here: Path) -> None:
    """RAY_ADDRESS may name what `ray.init` joins; --address wins over the variables."""
    gcs = f"127.0.0.2:{cluster.env['PORT']}"
    env = {"RAY_API_SERVER_ADDRESS": "", "RAY_ADDRESS": gcs}
    assert f" at {cluster.url}\n" in cluster.submit("--no-wait", "--", "doctor", cwd=here, **env).stdout
    done = cluster.submit("--no-wait", "--address", cluster.url, "--", "doctor", cwd=here, RAY_ADDRESS="192.0.2.1:1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_training_joins_from_beside_the_cluster(cluster: Cluster, here: Path) -> None:
    words = [*SMALL, "--name=beside", "--evaluation.final_episodes=2"]
    env = cluster.env | {"RAY_ADDRESS": f"127.0.0.2:{cluster.env['PORT']}"}
    command = [sys.executable, "-m", "rayrlhf", "train", "toy", *words]
    done = subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (here / "runs" / "beside" / "summary.json").exists()


@pytest.mark.slow
def test_a_worker_goes_and_comes(cluster: Cluster) -> None:
    def alive() -> int:
        command = ["ray", "list", "nodes", "--address", cluster.url, "--filter", "state=ALIVE", "--format", "json"]
        done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=60)
        return len(json.loads(done.stdout))

    cluster.script("kill", "1")
    for _ in range(60):
        if alive() == 2:
            break
    assert alive() == 2
    cluster.script("add", "1")
    assert any(alive() == 3 for _ in range(60))
