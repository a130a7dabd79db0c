"""A head node of Ray as a cluster has one, dashboard and exporter of metrics included, on loopback."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import httpx
from local_cluster import free_ports

SECONDS = 120.0


class Head:
    """Runs until `stop`. `env` is the environment in which a process joins it."""

    def __init__(self, cpus: int = 4) -> None:
        first = free_ports(5)
        port, dashboard, agent, client, self._metrics = range(first, first + 5)
        self._started: list[subprocess.Popen[str]] = []
        self._place = Path(tempfile.mkdtemp(prefix="ray-"))  # paths of sockets have to be short
        here = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or it listens beyond loopback
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_metrics_report_interval_ms": "2000",
            "OMP_NUM_THREADS": "1",
        }
        self.env = {**os.environ, **here, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        options = {
            "node-ip-address": "127.0.0.1",
            "port": port,
            "include-dashboard": "true",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "metrics-export-port": self._metrics,
            "num-cpus": cpus,
            "temp-dir": self._place,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        self._said = self._place / "said"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [*command, *words], stdout=said, stderr=said, env={**os.environ, **here}, start_new_session=True
            )
        self.wait_for(lambda: "Ray runtime started" in self._said.read_text())

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Returns once `condition` holds; fails where the head has died or it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self._process.poll() is None, self._said.read_text()
            assert time.monotonic() < deadline, condition
            time.sleep(0.2)

    def metrics_with(self, names: Collection[str]) -> dict[str, list[str]]:
        """What Prometheus has read newest of each series, once it has read all `names`; some are not always there."""
        deadline = time.monotonic() + SECONDS
        found = self.metrics()
        while missing := set(names) - found.keys():
            assert time.monotonic() < deadline, f"missing: {sorted(missing)}"
            time.sleep(0.5)
            found |= self.metrics()
        return found

    def metrics(self) -> dict[str, list[str]]:
        """What Prometheus would read: by name of a series its lines."""
        found: dict[str, list[str]] = {}
        for line in httpx.get(f"http://127.0.0.1:{self._metrics}/metrics", trust_env=False).text.splitlines():
            if line and not line.startswith("#"):
                found.setdefault(line.partition("{")[0].partition(" ")[0], []).append(line)
        return found

    def run(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Starts a process in this cluster."""
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.env, **more},
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Ends all of it."""
        for process in self._started:
            process.kill()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        shutil.rmtree(self._place, ignore_errors=True)


def value(line: str) -> float:
    """The number of a series."""
    return float(line.rpartition(" ")[2])


def labels(line: str) -> Mapping[str, str]:
    """The labels of a series; none of ours has a comma or a quote in it."""
    inside = line.partition("{")[2].rpartition("}")[0]
    return dict(part.replace('"', "").split("=", 1) for part in inside.split(","))
