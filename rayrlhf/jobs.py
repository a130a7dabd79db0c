"""Jobs on a Ray cluster that runs already: handing one in, and following it to its end."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import ray
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.dashboard.utils import get_address_for_submission_client
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from rayrlhf.errors import UserError, in_one_line

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""The variables that name a cluster where nobody else does, the first first."""
ANSWER_SECONDS = 10.0
"""How long a cluster has to answer."""
LOST_SECONDS = 60.0
"""How long the job server may be away while a job is followed."""
STOP_SECONDS = 60
"""How long a job that is told to stop has for its last checkpoint; Ray's own 3 are few."""
EXCLUDES = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    "node_modules",
    "wandb",
    "/runs",
    "/labels",
    "/dist",
    "/build",
)
"""What of a working folder stays here, as in a `.gitignore`."""

_PACKAGE = Path(__file__).parent
_CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Modules of Ray's whose loggers say what nobody asked for."""


@dataclass(frozen=True)
class Job:
    """What a cluster is asked to run."""

    command: str
    """For the shell of the node it comes to."""
    working_dir: str
    """A folder here, which is copied to the nodes, or the URI of a ZIP file."""
    ship: bool = True
    """Whether the nodes get this rayrlhf; it goes before one that is installed there."""
    pip: Sequence[str] = ()
    """What each node's pip installs for the job."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of all processes of the job."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the dashboard shows beside it."""
    id: str | None = None
    """Unique on the cluster; none: Ray makes one."""
    cpus: float | None = None
    """Kept for the driver, as are the next three; without any it runs on the head node."""
    gpus: float | None = None
    memory: int | None = None
    """Bytes."""
    resources: Mapping[str, float] = field(default_factory=dict)

    def runtime_env(self) -> dict[str, Any]:
        """The job's environment, as Ray takes it."""
        env: dict[str, Any] = {
            "working_dir": self.working_dir,
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.env},
            "excludes": list(EXCLUDES),
        }
        if self.ship:
            env["py_modules"] = [str(_PACKAGE)]
        if self.pip:
            env["pip"] = list(self.pip)
        return env


class LostClusterError(Exception):
    """The job server went away while a job was followed; the job may go on."""


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    why: str
    """One line, empty where it succeeded."""

    @property
    def succeeded(self) -> bool:
        """Whether it did all it was to do; a job that was stopped did not."""
        return self.status == str(JobStatus.SUCCEEDED)


class JobServer:
    """The job server of a Ray cluster."""

    def __init__(self, address: str | None = None) -> None:
        """address: as `ray job submit` takes it; none: the first of `ADDRESSES` that is set, or the Ray that runs here.

        Raises:
            UserError: nobody answers there, it is no Ray, wants another token, or is of another version.
        """
        for name in _CHATTY:
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
        self.url = _url(address)
        _require_this_ray(self.url)
        with _at(self.url), _one_line(f"the Ray cluster at {self.url} takes no jobs"):
            self._client = JobSubmissionClient(self.url)

    def require_node_for(self, job: Job) -> None:
        """Refuses a job whose driver asks for what no node has: Ray would wait for one without a word."""
        asked = {"CPU": job.cpus, "GPU": job.gpus, "memory": job.memory, **job.resources}
        wanted = {name: amount for name, amount in asked.items() if amount}
        if not wanted:
            return
        with _at(self.url), _one_line(f"the Ray cluster at {self.url} does not tell of its nodes"):
            nodes = list_nodes(
                address=self.url, filters=[("state", "=", "ALIVE")], timeout=int(ANSWER_SECONDS), detail=True
            )
        totals = [node.resources_total or {} for node in nodes]
        if any(all(total.get(name, 0.0) >= amount for name, amount in wanted.items()) for total in totals):
            return
        for name, amount in wanted.items():
            most = max((total.get(name, 0.0) for total in totals), default=0.0)
            if most < amount:
                raise UserError(f"no node of the cluster has {amount:g} {name} for the driver, {most:g} is the most")
        said = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        raise UserError(f"no node of the cluster has {said} at once for the driver")

    def submit(self, job: Job) -> str:
        """Hands in `job`; its id. Raises `UserError` where it is refused."""
        with _one_line("the job was not started"):
            return self._client.submit_job(
                entrypoint=job.command,
                runtime_env=job.runtime_env(),
                metadata=dict(job.metadata),
                submission_id=job.id,
                entrypoint_num_cpus=job.cpus,
                entrypoint_num_gpus=job.gpus,
                entrypoint_memory=job.memory,
                entrypoint_resources=dict(job.resources) or None,
            )

    def follow(self, job: str, write: Callable[[str], None]) -> Ending:
        """Gives `write` the log of the job with the id `job` as it grows, until the job has ended.

        Raises:
            LostClusterError: nobody answered for `LOST_SECONDS`.
        """
        log, lost_at = _Log(write), None
        while True:
            try:
                asyncio.run(self._tail(job, log))
                info = self._client.get_job_info(job)
                lost_at = None
                if info.status.is_terminal():
                    log.add(self._client.get_job_logs(job), 0)  # what was written after the tail was cut
                    return Ending(str(info.status), _why(info.message))
            except (RuntimeError, OSError, aiohttp.ClientError) as error:  # requests' errors are OSErrors
                lost_at = time.monotonic() if lost_at is None else lost_at
                if time.monotonic() - lost_at > LOST_SECONDS:
                    raise LostClusterError(in_one_line(error)) from error
            time.sleep(0.5)

    async def _tail(self, job: str, log: "_Log") -> None:
        at = 0
        async for text in self._client.tail_job_logs(job):
            log.add(text, at)
            at += len(text)


class _Log:
    """A log that is read again from its beginning after each interruption, and written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = 0

    def add(self, text: str, at: int) -> None:
        """`text` stands at `at` characters after the log's beginning."""
        new = text[max(0, self._written - at) :]
        if new:
            self._write(new)
            self._written = at + len(text)


def _why(message: str | None) -> str:
    """The first line of what Ray says of a job's end; the rest repeats the log."""
    lines = (message or "").strip().splitlines()
    return lines[0].removesuffix(", last available logs (truncated to 20,000 chars):") if lines else ""


def _url(address: str | None) -> str:
    """Where the job server of the cluster at `address` listens."""
    wanted = address or next(filter(None, map(os.environ.get, ADDRESSES)), "")
    if wanted.startswith(("http://", "https://")):
        return wanted.rstrip("/")
    if wanted in ("", "auto"):
        try:
            with _at(None):
                return get_address_for_submission_client(None)
        except Exception as error:  # ConnectionError, ValueError and gRPC's own
            raise UserError("no Ray runs on this machine: give --address http://HEAD:8265") from error
    _require_listener(wanted, wanted.removeprefix("ray://"))
    if "://" not in wanted and _asks_for_version(f"http://{wanted}"):
        return f"http://{wanted}"
    with _at(wanted), _one_line(f"the Ray cluster at {wanted} does not say where its job server is"):
        return get_address_for_submission_client(wanted)


def _require_this_ray(url: str) -> None:
    parts = urlsplit(url)
    _require_listener(url, f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}")
    answer = _asks_for_version(url)
    if answer is None:
        raise UserError(f"{url} does not answer like Ray's dashboard: give the head's address, http://HEAD:8265")
    if answer.status_code in (401, 403):
        sent = "another" if "authorization" in {name.lower() for name in answer.request.headers} else "a"
        raise UserError(
            f"the Ray cluster at {url} wants {sent} token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to its token"
        )
    try:
        theirs = str(answer.raise_for_status().json()["ray_version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{url} is not Ray's dashboard (it answers {answer.status_code} to /api/version)") from error
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise UserError(
            f"the Ray cluster at {url} is version {theirs}, and here is {ray.__version__}: install the same on both"
        )


def _asks_for_version(url: str) -> httpx.Response | None:
    """What `url` says when it is asked for Ray's version; none where it does not speak HTTP."""
    try:
        headers = get_auth_headers_if_auth_enabled({})
    except (AuthenticationError, RuntimeError) as error:
        raise UserError(
            "RAY_AUTH_MODE is token and there is none: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file"
        ) from error
    try:
        return httpx.get(f"{url}/api/version", headers=headers, timeout=ANSWER_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def _require_listener(address: str, place: str) -> None:
    """Refuses an address where nobody listens: Ray itself would try again for minutes."""
    host, _, port = place.rpartition(":")
    if not (host and port.isdigit()):
        raise UserError(f"{address!r} is no address of a Ray cluster: give one such as http://HEAD:8265")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"nobody answers at {address}: {in_one_line(error)}") from error


@contextmanager
def _at(address: str | None) -> Iterator[None]:
    """Has Ray's client go to `address`; else the variables would win over what it is given."""
    before = {name: os.environ.pop(name, None) for name in ADDRESSES}
    if address is not None:
        os.environ[ADDRESSES[0]] = address
    try:
        yield
    finally:
        os.environ.pop(ADDRESSES[0], None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turns all that Ray's client raises into a `UserError`; it raises plain RuntimeErrors for everything."""
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
        raise UserError(f"{what}: {_gist(lines) if lines else type(error).__name__}") from error


def _gist(lines: Sequence[str]) -> str:
    """The line of an error that says most: the last, where a server sent a traceback."""
    traceback = any("Traceback" in line for line in lines)
    return lines[-1] if traceback else lines[0]
