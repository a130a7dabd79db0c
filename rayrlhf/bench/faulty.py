"""A run as a process of its own that is harmed, and what is seen of it from outside: its files and its processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory

POLL_SECONDS = 0.05
STILL = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
PATIENCE_SECONDS = 600.0
"""How long a run has to move before that counts as a failure."""
ROW_BYTES = 65_536
"""More than a row of metrics has."""
ACTORS = """
import json, sys
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
state = GlobalState()
state._initialize_global_state(GcsClientOptions.create(sys.argv[1], None, True, False))
print(json.dumps([
    [actor["ActorClassName"], actor["Name"], actor["Pid"]]
    for actor in state.actor_table(None).values() if actor["State"] == "ALIVE"
]))
"""


@dataclass(frozen=True)
class Actor:
    """An actor that lives: its class, the name it was given (RUN/ROLE-NUMBER) and its process."""

    kind: str
    name: str
    pid: int


def actors_of(address: str, environment: Mapping[str, str]) -> list[Actor]:
    """The living actors of the cluster at `address`, asked by a process of its own: it may be lost with the cluster."""
    command = [sys.executable, "-c", ACTORS, address]
    asked = subprocess.run(command, env=dict(environment), capture_output=True, timeout=60, check=False)
    if asked.returncode:
        return []
    return [Actor(*row) for row in json.loads(asked.stdout.splitlines()[-1])]


def processes_titled(title: str, under: Sequence[psutil.Process]) -> list[int]:
    """Ids of those of the processes `under` that run, and whose title, which Ray sets, begins with `title`."""
    found = []
    for process in under:
        try:
            if " ".join(process.cmdline()).startswith(title) and process.status() not in STILL:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def until(
    condition: Callable[[], bool],
    what: str,
    require: Callable[[], None] = lambda: None,
    every: float = POLL_SECONDS,
) -> None:
    """Waits for `condition`; UserError where it never comes. `require` raises what ends the wait before.

    every: seconds between two looks
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        require()
        if time.monotonic() > end:
            raise UserError(f"waited {PATIENCE_SECONDS:g} s in vain: {what}")
        time.sleep(every)


class Harmed:
    """A run that is started, harmed and started again.

    words: what follows `rayrlhf train` at first   variables: of its environment, besides those of the cluster
    """

    def __init__(self, folder: RunDirectory, words: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        self.folder, self._words, self._variables = folder, words, dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.path.parent / f"{self.folder.path.name}.log"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The driver."""
        assert self._process is not None
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the driver lives."""
        return self.process.poll() is None

    def require_alive(self) -> None:
        """Raises `UserError`, with the last line of its log, where the driver has ended."""
        if not self.alive:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise UserError(f"the run ended with {self.process.returncode}: {said[-1] if said else 'it said nothing'}")

    def start(self, environment: Mapping[str, str]) -> None:
        """Starts the run, or goes on with it: one command for both."""
        begun = self.folder.config_file.is_file()
        words = ["--resume", str(self.folder.path)] if begun else self._words
        command = [sys.executable, "-m", "rayrlhf", "train", *words]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**environment, **self._variables}, start_new_session=True
            )

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(300)

    def steps(self) -> int:
        """Environment steps of the newest whole row of metrics; 0 where there is none."""
        try:
            with self.folder.metrics_file.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - ROW_BYTES))
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return 0
        return int(json.loads(whole.rpartition(b"\n")[2])["env_steps"] or 0) if whole else 0

    def resumes(self) -> list[int]:
        """The environment steps at which it was gone on with: by a command, or by itself."""
        try:
            noted = json.loads(self.folder.manifest_file.read_text()).get("resumes", [])
        except (OSError, ValueError):
            return []
        return [int(one["env_steps"]) for one in noted]

    def answered(self) -> set[str]:
        """Ids of the questions whose answers are in the run's log."""
        log = PreferenceDataset(self.folder.preferences)
        return {answer.query_id for _, said in log.read() for answer in said}

    def checkpoints(self) -> int:
        """Steps of the newest checkpoint; 0 before the first."""
        found = [int(path.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*")]
        return max(found, default=0)


class Watch(threading.Thread):
    """Looks at the steps that a run counts while a `with` block lasts.

    standstill: the longest time between two sights of new steps, the beginning counted as one
    moved_at:   when new steps were seen last   steps_lost: that it had counted and went back by
    """

    def __init__(self, run: Harmed) -> None:
        super().__init__(name="watch", daemon=True)
        self._run, self._enough = run, threading.Event()
        self._steps, self.moved_at = run.steps(), time.monotonic()
        self.standstill, self.steps_lost = 0.0, 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        """Looks."""
        while not self._enough.wait(POLL_SECONDS):
            steps, now = self._run.steps(), time.monotonic()
            if steps > self._steps:
                self.standstill, self.moved_at = max(self.standstill, now - self.moved_at), now
            elif steps < self._steps:
                self.steps_lost += max(0, self._steps - (self._run.resumes() or [steps])[-1])
            self._steps = steps


def kill(pid: int) -> None:
    """SIGKILL. UserError where it is not there any more."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError as error:
        raise UserError(f"there is no process {pid} any more") from error
