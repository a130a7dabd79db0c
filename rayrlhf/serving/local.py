"""The queue on this machine, for as long as a block lasts: what `rayrlhf label` and `train --teacher human` start."""

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application

from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.client import QueueAddress
from rayrlhf.preferences.store import Accounts, Database
from rayrlhf.preferences.store.records import Role
from rayrlhf.serving.deploy import queue_deployment
from rayrlhf.serving.links import link, tokens_of
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.tracking import RunDirectory

TRAINER, ADMIN = "training", "admin"
"""Accounts that every queue on this machine has."""
TOKEN_VARIABLE = "RAYRLHF_TOKEN"
END_SECONDS = 20.0


@contextmanager
def queue_of_run(config: RunConfig, folder: RunDirectory, tell: Callable[[str], None]) -> Iterator[QueueAddress]:
    """The queue in which the people of a run answer: the one that its options name, or one of its own.

    `tell` is told who answers where. Ray must run.
    """
    people = config.people
    if people.url is not None:
        yield QueueAddress(people.url, token_from_environment())
        return
    database = people.database or str(folder.queue_file)
    settings = QueueSettings(database=database, clips=str(folder.clips.absolute()))
    store = Database(database)
    wanted: dict[str, Role] = {TRAINER: "trainer", ADMIN: "admin", **dict.fromkeys(people.names, "annotator")}
    tokens = tokens_of(Accounts(store), wanted, folder.links_file)
    store.close()
    with serving(queue_deployment(settings), "queue", people.host, people.port) as url:
        for line in links_of(url, tokens, folder.name):
            tell(line)
        yield QueueAddress(url, tokens[TRAINER])


def links_of(url: str, tokens: Mapping[str, str], run: str | None = None) -> list[str]:
    """A line for everybody with a page to look at."""
    people = {name: token for name, token in tokens.items() if name != TRAINER}
    return [f"{name:<12}{link(url, token, run if name != ADMIN else None)}" for name, token in people.items()]


def token_from_environment() -> str:
    """The token for a queue elsewhere. UserError where there is none."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise UserError(f"the queue wants a token: set {TOKEN_VARIABLE} to that of a trainer's account")
    return token


@contextmanager
def serving(application: Application, name: str, host: str, port: int) -> Iterator[str]:
    """Serves `application` at `host` and `port` (0: a free one) while the block lasts; its address.

    Raises:
        UserError: the port is taken, Ray runs Serve for something else, or the application does not start.
    """
    port = _free_port(host, port)
    for logger in ("ray.serve", "ray._private"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if _serve_runs():
        raise UserError("this Ray cluster runs Serve already: start the queue there, and give its address (people.url)")
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        serve.run(application, name=name, route_prefix="/")
    except Exception as error:  # Serve raises RuntimeError for whatever a replica raised
        _end_serve()
        raise UserError(f"the {name} does not start: {_cause(error)}") from error
    try:
        yield f"http://{_shown(host)}:{port}"
    finally:
        _end_serve()


def _serve_runs() -> bool:
    try:
        return bool(serve.status().applications)
    except Exception:  # Serve has no name for it: there is none
        return False


def _end_serve() -> None:
    """`serve.shutdown`, without what Ray prints because the controller ends itself in this call."""
    with suppress(ValueError, RayError, TimeoutError):
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        ray.get(controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=END_SECONDS)
    serve.shutdown()  # type: ignore[no-untyped-call]


def _cause(error: Exception) -> str:
    """The last line of what a replica raised: its own error stands there."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return in_one_line(error) if not lines else lines[-1].strip()


def _free_port(host: str, port: int) -> int:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror}; choose another port") from error


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this machine can call."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
