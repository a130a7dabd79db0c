"""A Ray Serve application on this machine, for as long as a block lasts."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.serving.address import free_port, in_url, reachable

START_SECONDS, END_SECONDS, POLL_SECONDS = 60.0, 20.0, 0.1


@contextmanager
def serving(application: Application, name: str, host: str, port: int) -> Iterator[str]:
    """Serves `application` at `host` and `port` (0: a free one) while the block lasts; its address. Ray must run.

    Raises:
        UserError: the port is taken, Ray runs Serve for something else, or the application does not start.
    """
    port = free_port(host, port)
    for logger in ("ray.serve", "ray._private"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if _serve_runs():
        raise UserError(
            f"this Ray cluster runs Serve already: deploy the {name} there, by a file in serve/; or end what a killed "
            "process left there: serve shutdown"
        )
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        serve.run(application, name=name, route_prefix="/")
    except BaseException as error:  # Serve raises RuntimeError for whatever a replica raised
        _end_serve()
        if not isinstance(error, Exception):
            raise
        raise UserError(f"the {name} does not start: {_cause(error)}") from error
    try:
        _wait_for_answers(host, port)
        yield f"http://{in_url(reachable(host))}:{port}"
        serve.delete(name)  # what is in work is answered
    finally:
        _end_serve()


def _wait_for_answers(host: str, port: int) -> None:
    """Serve's proxy says 404 until it has heard of the application."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{in_url(here)}:{port}/v1/health"
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=START_SECONDS, trust_env=False).status_code != 404:
                return
        time.sleep(POLL_SECONDS)
    raise UserError(f"nothing answers at {url}")


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
