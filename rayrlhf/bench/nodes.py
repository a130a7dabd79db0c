"""A Ray cluster of several nodes on this machine, whose nodes can be lost one by one.

Each node is a Ray of its own with processes, object store and loopback address (127.0.77.2 and so on, each cluster in a
network that it draws); nobody beyond the machine reaches any.
"""

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from rayrlhf.errors import UserError
from rayrlhf.serving.address import free_port

START_SECONDS = 60.0
TOKEN = "RAY_AUTH_TOKEN"
STARTED = b"Ray runtime started"
STORE_BYTES = 200_000_000


@dataclass
class Node:
    """One node: its address and the process that all others of it descend from."""

    address: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    begins: int
    """Where its part of the log begins: an earlier node of the address may have written to it."""

    def processes(self) -> list[psutil.Process]:
        """All processes of the node, its parent last."""
        try:
            parent = psutil.Process(self.process.pid)
            return [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Ends the node as if its plug had been pulled."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        self.log.close()


@dataclass
class Nodes:
    """A cluster that lasts as long as the block. `folder` takes Ray's files; its name should be short."""

    folder: Path
    port: int = 0
    network: str = field(default_factory=lambda: f"127.0.{random.randrange(1, 255)}")
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    """Without it nobody joins."""
    nodes: list[Node] = field(default_factory=list)

    @property
    def head(self) -> str:
        """Address of the head node."""
        return f"{self.network}.2"

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return f"{self.head}:{self.port}"

    def start_head(self, cpus: float, marks: Mapping[str, float] | None = None) -> Node:
        """Starts the head node, or another one in its place."""
        self.port = self.port or free_port(self.head, 0)
        words = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        return self._start(self.head, words, cpus, marks)

    def add(self, cpus: float, marks: Mapping[str, float] | None = None, *, through: tuple[str, ...] = ()) -> Node:
        """Adds a node; its command runs `through` another one, if need be."""
        taken = {node.address for node in self.nodes}
        address = next(free for last in range(3, 255) if (free := f"{self.network}.{last}") not in taken)
        return self._start(address, [f"--address={self.address}"], cpus, marks, through)

    def kill(self, node: Node) -> None:
        """Loses `node`."""
        self.nodes.remove(node)
        node.kill()

    def environment(self) -> dict[str, str]:
        """For a driver that joins."""
        return self._environment() | {"RAY_ADDRESS": self.address}

    def _environment(self) -> dict[str, str]:
        own = {
            "RAY_AUTH_MODE": "token",
            TOKEN: self.token,
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }
        return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own

    def _start(
        self,
        address: str,
        words: list[str],
        cpus: float,
        marks: Mapping[str, float] | None,
        through: tuple[str, ...] = (),
    ) -> Node:
        words += [
            f"--node-ip-address={address}",
            f"--num-cpus={cpus:g}",
            f"--resources={json.dumps(dict(marks or {}))}",
        ]
        words += [f"--object-store-memory={STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"]
        words += ["--block", "--disable-usage-stats"]
        log = (self.folder / f"{address}.log").open("ab")
        begins = log.tell()
        command = [*through, sys.executable, "-m", "ray.scripts.scripts", "start", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment(), start_new_session=True)
        node = Node(address, process, log, begins)
        self.nodes.append(node)
        self._until_it_is_up(node)
        return node

    def _until_it_is_up(self, node: Node) -> None:
        end = time.monotonic() + START_SECONDS
        while STARTED not in Path(node.log.name).read_bytes()[node.begins :]:
            if node.process.poll() is not None or time.monotonic() > end:
                raise UserError(f"a node of the cluster does not start: see {node.log.name}")
            time.sleep(0.2)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes[::-1]:
            node.kill()
        self.nodes = []
