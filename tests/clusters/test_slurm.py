"""The batch scripts in `clusters/slurm/`, on programs that stand for SLURM's and start processes on this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import free_ports

FOLDER = Path(__file__).parents[2] / "clusters" / "slurm"
FILES = sorted(FOLDER.glob("*.sbatch"))
OPTIONS = {
    *("account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters"),
    *("comment", "constraint", "container", "container-id", "contiguous", "core-spec", "cores-per-socket", "cpu-freq"),
    *("cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude"),
    *("exclusive", "export", "export-file", "extra", "extra-node-info", "get-user-env", "gpu-bind", "gpu-freq", "gpus"),
    *("gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint", "hold", "ignore-pbs", "input"),
    *("job-name", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind"),
    *("mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "no-kill", "no-requeue", "nodefile", "nodelist"),
    *("nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "open-mode"),
    *("output", "overcommit", "oversubscribe", "parsable", "partition", "prefer", "priority", "profile", "propagate"),
    *("qos", "quiet", "reboot", "requeue", "reservation", "resv-ports", "segment", "signal", "sockets-per-node"),
    *("spread-job", "stepmgr", "switches", "thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind"),
    *("tres-per-task", "uid", "use-min-nodes", "verbose", "wait", "wait-all-nodes", "wckey", "wrap"),
}
"""What `sbatch` takes, by its manual."""

SCONTROL = """#!/usr/bin/env bash
case "$1" in
show) tr , '\\n' <<<"$3" ;;
requeue) echo "requeued $2" ;;
esac
"""
HOSTNAME = """#!/usr/bin/env bash
# A node whose own name is one of loopback, as Debian has it.
[ "$1" = --ip-address ] && echo 127.0.1.1 || echo "${NODE:-127.0.0.40} 192.0.2.9"
"""
SRUN = """#!/usr/bin/env bash
# One process for each task, on this machine.
tasks="${SLURM_NTASKS:-1}"
while [[ "$1" == --* ]]; do
    [[ "$1" == --ntasks=* ]] && tasks="${1#*=}"
    shift
done
trap 'kill $(jobs -p) 2>/dev/null' TERM
worst=0
for ((task = 0; task < tasks; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task NODE="127.0.0.$((41 + task))" "$@" &
done
for pid in $(jobs -p); do wait "$pid" || worst=$?; done
exit "$worst"
"""
TRAINING = """#!/usr/bin/env python
# Stands for `rayrlhf`: says what it was asked for and which cluster it is in, and leaves a checkpoint on SIGTERM.
import os, pathlib, signal, sys, time
words = sys.argv[1:]
print("asked", *words, "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if "RAY_ADDRESS" in os.environ:
    import ray
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    alive = [node for node in ray.nodes() if node["Alive"]]
    print("nodes", len(alive), "rollout", ray.cluster_resources().get("rollout"), flush=True)
place = pathlib.Path(words[words.index("--storage_path") + 1], words[words.index("--name") + 1])
if (place / "config.yaml").exists():
    sys.exit(3)
place.mkdir(parents=True)
(place / "config.yaml").touch()
if "--wait" in words:
    def stop(*_):
        (place / "checkpoint").touch()
        sys.exit(130)
    signal.signal(signal.SIGTERM, stop)
    print("training", flush=True)
    time.sleep(120)
if "quick" in words:
    (place / "summary.json").touch()
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a job, with SLURM's programs and a `rayrlhf` that only tells on its PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"scontrol": SCONTROL, "hostname": HOSTNAME, "srun": SRUN, "rayrlhf": TRAINING}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    number = str(12_000 + free_ports(2) - 20_000)  # the head listens there
    yield env | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{env['PATH']}",
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_CPUS_PER_TASK": "1",
        "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": "0.01",
        "NAME": "run",
    }
    for left in Path(tempfile.gettempdir()).glob(f"ray-{number}*"):
        shutil.rmtree(left, ignore_errors=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_sbatch_takes_the_options(file: Path) -> None:
    lines = file.read_text().splitlines()
    found = [line for line in lines if line.startswith("#SBATCH")]
    for line in found:
        words = re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", line)
        assert words and words[1] in OPTIONS, line
    first_command = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    assert len(found) > 5 and all(line not in lines[first_command:] for line in found), "sbatch stops reading there"


@pytest.mark.timeout(400)
def test_a_run_over_two_nodes_goes_on_when_the_job_starts_again(slurm: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        ["bash", FOLDER / "train.sbatch", "quickstart", "--wait"],
        env=slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line == "training\n":
                break
        process.send_signal(signal.SIGTERM)  # as --signal=B:TERM does
        said += process.stdout.read()
        assert process.wait(60) == 0, said
    assert f"asked train quickstart --wait --name run --storage_path {tmp_path}/runs" in said
    assert "nodes 2 rollout 1.0" in said
    assert f"requeued {slurm['SLURM_JOB_ID']}" in said and (tmp_path / "runs" / "run" / "checkpoint").exists()
    assert_no_ray(slurm)

    again = subprocess.run(
        ["bash", FOLDER / "train.sbatch", "quickstart", "--wait"],
        env=slurm | {"SLURM_JOB_NODELIST": "first"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (
        " --resume auto " in said
        and "asked train quickstart" in again.stdout
        and "nodes 1 rollout None" in again.stdout
    )
    assert again.returncode == 3, "the run's own"
    assert_no_ray(slurm)


def assert_no_ray(slurm: dict[str, str]) -> None:
    for _ in range(100):
        found = subprocess.run(["pgrep", "-f", f"ray-{slurm['SLURM_JOB_ID']}"], capture_output=True, text=True).stdout
        if not found:
            return
        time.sleep(0.2)
    raise AssertionError(found)


@pytest.mark.slow
def test_several_runs_share_gpus(slurm: dict[str, str], tmp_path: Path) -> None:
    """And the same line once more goes on with what was cut off."""
    env = slurm | {"SLURM_NTASKS": "4", "PER_GPU": "2", "CUDA_VISIBLE_DEVICES": "4,7", "FIRST": "5"}
    for _ in range(2):
        done = subprocess.run(["bash", FOLDER / "many.sbatch", "quick"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    logs = {seed: (tmp_path / "runs" / f"run-seed{seed}.log").read_text() for seed in range(5, 9)}
    for seed, gpu in zip(logs, ("4", "4", "7", "7"), strict=True):
        asked = (
            f"asked train quick --seed {seed} --name run-seed{seed} --storage_path {tmp_path}/runs "
            f"--resume auto --quiet gpus {gpu}"
        )
        assert logs[seed] == asked + "\n", "once: it has ended"
    (tmp_path / "runs" / "run-seed6" / "summary.json").unlink()
    done = subprocess.run(["bash", FOLDER / "many.sbatch", "quick"], env=env, capture_output=True, text=True)
    assert done.returncode == 3, "the one that goes on fails here, and the job with it"
    last = (tmp_path / "runs" / "run-seed6.log").read_text().splitlines()[-1]
    assert last.startswith("asked train quick --seed 6 ") and last.endswith(" --resume auto --quiet gpus 4")


def test_without_gpus(slurm: dict[str, str], tmp_path: Path) -> None:
    slurm.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(["bash", FOLDER / "many.sbatch", "quick"], env=slurm, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "run-seed0.log").read_text().endswith("gpus None\n")
