"""A Ray cluster of several nodes: `clusters/local.sh`'s, on the loopback network."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobSubmissionClient

SCRIPT = Path(__file__).parents[1] / "clusters" / "local.sh"


@dataclass(frozen=True)
class Cluster:
    """What a shell knows that has evaluated what `local.sh up` prints."""

    env: dict[str, str]
    url: str

    def script(self, *words: str) -> str:
        done = subprocess.run([SCRIPT, *words], env=self.env, capture_output=True, text=True, timeout=420)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rayrlhf", "submit", *words]

    def submit(self, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.env | env, cwd=cwd, capture_output=True, text=True, timeout=300
        )

    def begin(self, cwd: Path, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words), env=self.env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def jobs(self) -> JobSubmissionClient:
        token = Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        return JobSubmissionClient(self.url, headers={"Authorization": f"Bearer {token}"})


def free_ports(count: int) -> int:
    """The first of `count` ports on end that nobody has, and that nobody gets by chance."""
    for first in random.sample(range(20_000, 30_000, count), 100):  # not the ones that another test looks at now
        held = [socket.socket() for _ in range(count)]
        try:
            for offset, one in enumerate(held):
                one.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise AssertionError("no ports are free")


@contextmanager
def started(programs: Path, variables: Mapping[str, str], workers: int = 2) -> Iterator[Cluster]:
    """A cluster whose nodes have these `programs`."""
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # short: sockets lie there
    port = free_ports(24)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "CLUSTER": str(folder),
        "PORT": str(port),
        "DASHBOARD": str(port + 23),
        "OBJECT_STORE": "100000000",
        "PATH": f"{programs}:{env['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),
        **variables,
    }
    made = Cluster(env, "")
    try:
        exported = made.script("up", str(workers)).removeprefix("export ").split()
        told = dict(word.split("=", 1) for word in exported)
        yield Cluster(env | told, told["RAY_API_SERVER_ADDRESS"])
    finally:
        made.script("down")
        shutil.rmtree(folder, ignore_errors=True)
