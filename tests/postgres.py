"""A PostgreSQL server of the tests' own."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest


def _program(name: str) -> str | None:
    """A program of PostgreSQL's server: Debian keeps them off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


class Postgres:
    """A PostgreSQL server that listens on a socket in a folder of its own, and on no port."""

    def __init__(self, folder: Path) -> None:
        self.data, self.sockets = folder / "data", folder
        self._as: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "postgres")
            self._as = ["runuser", "-u", "postgres", "--"]
        self._run("initdb", "--auth=trust", "--username=tester", "--encoding=UTF8", "-D", str(self.data))

    def _run(self, name: str, *args: str) -> None:
        program = _program(name)
        assert program is not None
        subprocess.run([*self._as, program, *args], check=True, capture_output=True, timeout=60, cwd=self.sockets)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.sockets}' -c max_connections=200"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.sockets / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def alive(self) -> bool:
        """Whether it runs."""
        with suppress(FileNotFoundError, ValueError):
            return psutil.pid_exists(int((self.data / "postmaster.pid").read_text().splitlines()[0]))
        return False

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes."""
        parent = psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))
        parent.suspend()  # it would end its processes in an orderly way, or start new ones
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(f"host={self.sockets} user=tester dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://tester@/{name}?host={self.sockets}"


def installed() -> bool:
    """Whether the server's programs are on this machine."""
    return _program("initdb") is not None and _program("pg_ctl") is not None


@contextmanager
def running(mib: int | None = None) -> Iterator[Postgres]:
    """A server for the time of the block, on a disk of so many MiB if one must be small; where none can be, a skip."""
    if not installed():
        pytest.skip("no PostgreSQL server here: sudo apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rayrlhf-postgres-"))
    if mib is not None and (
        os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size={mib}m tmpfs {folder} 2>/dev/null")
    ):
        folder.rmdir()
        pytest.skip("mounting a small disk needs root")
    try:
        server = Postgres(folder)
        server.start()
        yield server
        server.stop()
    finally:
        if mib is not None:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(folder)
