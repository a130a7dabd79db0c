"""Ray for the time of a block: the cluster that this process belongs to, or one of its own on this machine."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import ray_constants

from rayrlhf.errors import UserError, in_one_line

JOIN_SECONDS = 10.0
"""How long a Ray cluster has to answer."""
LOCAL = "local"
"""Ray's address of a cluster that a process starts for itself, whatever else runs on the machine."""


@contextmanager
def ray_session(cpus: int) -> Iterator[None]:
    """Joins the cluster this process belongs to, or starts Ray on this machine, of `cpus` CPUs, while the block lasts.

    Raises:
        UserError: there is none and none starts.
    """
    mine = not ray.is_initialized()
    if mine:
        require_cluster()
        address = os.environ.get("RAY_ADDRESS") or LOCAL
        try:
            if address == LOCAL:
                start_ray(cpus)
            else:
                set_ray_defaults()
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError and plain Exception
            raise _without_ray(address, error) from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def start_ray(cpus: int) -> None:
    """A Ray of this process's own, of `cpus` CPUs, that nobody beyond this machine reaches.

    Whoever reaches a Ray's ports can run code there, and by default they are open to the network.
    """
    set_ray_defaults()
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray is imported: too early for us
    try:
        ray.init(LOCAL, num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def require_cluster() -> None:
    """Refuses a RAY_ADDRESS where nobody listens: Ray itself would try again for minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if ray.is_initialized() or not port.isdigit():  # `auto` and `local` name no port
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_SECONDS).close()
    except OSError as error:
        raise _without_ray(address, error) from error


def _without_ray(address: str, error: Exception) -> UserError:
    where = "Ray does not start here" if address == LOCAL else f"the Ray cluster at {address} cannot be joined"
    return UserError(f"{where}: {in_one_line(error)}")


def set_ray_defaults() -> None:
    """What a Ray that is started by this process does differently; variables that are set already are kept."""
    # what Ray says it will do from its next version
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's default of 15 starves reward fits and rollouts beside anything else that runs on the machine
    os.environ.setdefault("RAY_worker_niceness", "0")
