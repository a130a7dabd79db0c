"""Ray for the time of a block: the cluster that this process belongs to, or one of its own on this machine."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import auto_init_hook, ray_constants, state
from ray.autoscaler.sdk import request_resources
from ray.exceptions import ObjectLostError, RayActorError
from ray.experimental import internal_kv
from ray.util import get_current_placement_group
from ray.util.state import list_actors, list_nodes

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.logs import event
from rayrlhf.placement import Placement

_log = logging.getLogger(__name__)

JOIN_SECONDS = 10.0
"""How long a Ray cluster has to answer."""
STATE_SECONDS = 10
"""How long a cluster has to tell of its actors."""
MOST = 10_000
"""Actors and nodes that Ray lists at most; without asking for more it is a hundred."""
POLL_SECONDS = 1.0
WISH_SECONDS = 60.0
"""For so long after it was renewed last a run's wish for room holds: clocks of nodes may differ a little."""
_WISHES = b"rayrlhf-wishes"
LEARNER_CLASS = "_WrappedExecutable"
"""The class of RLlib's remote learners, as Ray knows it."""
HEAD_SECONDS = 5.0
START_SECONDS = 60.0
"""After so long, starting a run's processes takes too long to say nothing."""
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
        knock(f"{host}:{port}", JOIN_SECONDS)
    except OSError as error:
        raise _without_ray(address, error) from error


def knock(place: str, seconds: float) -> None:
    """Connects to `place`, HOST:PORT, and leaves again. Raises OSError where nobody answers, or OverflowError."""
    host, _, port = place.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def require_head(run: str, say: Callable[[str], None]) -> None:
    """Refuses to go on where the cluster's head node is gone. `run` is what `--resume` takes.

    What it says it says at once: Ray ends this process, a minute later at most, whatever it does.
    """
    address = ray.get_runtime_context().gcs_address
    try:
        knock(address, HEAD_SECONDS)
    except OSError as error:
        line = (
            f"the head node of the cluster, {address}, is gone: when there is one again, go on with "
            f"rayrlhf train --resume {run}"
        )
        say(line)
        raise UserError(line) from error


def require_room(placement: Placement, wait_seconds: float, say: Callable[[str], None]) -> None:
    """Refuses a run that the cluster has no room for; waits for some before, and asks a cluster that grows to do so.

    A run that Tune started has its room already.
    """
    if get_current_placement_group() is not None:
        return
    problem = awaited(lambda: placement.misfit(_free()), placement.bundles()[1:], wait_seconds, say)
    if problem is None:
        return
    hint = "lower `resources` and rollout.actors, or wait for room with resources.wait_minutes"
    if placement.misfit(nodes()) is None:
        raise UserError(f"the cluster is in use, {problem}: {hint}")
    raise UserError(f"the cluster cannot hold the run, {problem}: {hint}")


@contextmanager
def told_while_waiting(say: Callable[[str], None]) -> Iterator[None]:
    """Says so where the block, which starts processes, waits for long: another run may have taken the room before."""

    def tell() -> None:
        there = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU")) for node in _free())
        say(
            f"the run's processes have not all started after {START_SECONDS:g} s; free on each node of the cluster: "
            f"{there or 'nothing'}. Another run may have taken the room: this one goes on when there is some again"
        )

    timer = threading.Timer(START_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def awaited(
    misfit: Callable[[], str | None], bundles: list[dict[str, float]], seconds: float, say: Callable[[str], None]
) -> str | None:
    """What `misfit` says is wanting, once it says nothing or `seconds` are over; the autoscaler is asked, too."""
    problem = misfit()
    if problem is None or not seconds:
        return problem
    say(f"{problem}: waiting up to {seconds / 60:g} minutes for it")
    end = time.monotonic() + seconds
    with _wish(bundles) as renew:
        while problem is not None and time.monotonic() < end:
            renew()
            time.sleep(POLL_SECONDS)
            problem = misfit()
    return problem


@contextmanager
def _wish(bundles: list[dict[str, float]]) -> Iterator[Callable[[], None]]:
    """Asks the autoscaler for `bundles` while the block lasts, which is to renew that every second or so.

    Ray keeps one request for the whole cluster, until another one: each asks for what all wait for that have renewed
    their wish of late, and what one leaves that was killed goes with the next one's.
    """
    own = f"{ray.get_runtime_context().get_job_id()}/{uuid.uuid4().hex}".encode()

    def ask() -> None:
        wanted = []
        for name in internal_kv._internal_kv_list(b"", namespace=_WISHES):
            wish = json.loads(internal_kv._internal_kv_get(name, namespace=_WISHES) or "{}")
            if time.time() - wish.get("at", 0.0) < WISH_SECONDS:
                wanted += wish["bundles"]
            else:
                internal_kv._internal_kv_del(name, namespace=_WISHES)
        # what is asked for is what there is to be, used or not
        request_resources(bundles=wanted + _used() if wanted else [])

    def renew() -> None:
        wish = json.dumps({"at": time.time(), "bundles": bundles})
        internal_kv._internal_kv_put(own, wish.encode(), overwrite=True, namespace=_WISHES)
        ask()

    try:
        yield renew
    finally:
        internal_kv._internal_kv_del(own, namespace=_WISHES)
        ask()


def nodes() -> list[dict[str, float]]:
    """What each node that lives has, in use or not."""
    return list(_per_node("total_resources_per_node").values())


def _free() -> list[dict[str, float]]:
    """What is free on each node that lives."""
    total = _per_node("total_resources_per_node")
    free = _per_node("available_resources_per_node")
    return [free.get(node, {}) for node in total]


def _used() -> list[dict[str, float]]:
    """What is in use on each node that lives: CPUs and GPUs."""
    free = _per_node("available_resources_per_node")
    found = []
    for node, total in _per_node("total_resources_per_node").items():
        used = {name: total.get(name, 0.0) - free.get(node, {}).get(name, 0.0) for name in ("CPU", "GPU")}
        found.append({name: amount for name, amount in used.items() if amount > 0})
    return [used for used in found if used]


def _per_node(kind: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = getattr(state, kind)()
    return found


def _without_ray(address: str, error: Exception) -> UserError:
    where = "Ray does not start here" if address == LOCAL else f"the Ray cluster at {address} cannot be joined"
    return UserError(f"{where}: {in_one_line(error)}")


def set_ray_defaults() -> None:
    """What a Ray that is started by this process does differently; variables that are set already are kept."""
    # a thread that outlives a session and calls Ray would start another one
    auto_init_hook.enable_auto_connect = False
    # what Ray says it will do from its next version
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's default of 15 starves reward fits and rollouts beside anything else that runs on the machine
    os.environ.setdefault("RAY_worker_niceness", "0")


def note_cluster() -> None:
    """Logs which Ray the run is in, and as which of its jobs."""
    here = ray.get_runtime_context()
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    job = here.get_job_id()
    facts = {"job": job, "address": here.gcs_address, "cpus": cpus, "gpus": gpus}
    _log.info(
        "job %s of the Ray at %s: %g CPUs, %g GPUs", job, here.gcs_address, cpus, gpus, extra=event("ray", **facts)
    )


def name_of_lost(error: RayActorError | ObjectLostError) -> str:
    """What the process was that died, as far as Ray says it."""
    said = dict(line.strip().partition(": ")[::2] for line in str(error).splitlines())
    if name := said.get("name"):
        return name.rpartition("/")[2]
    kind = said.get("class_name", "unknown").rpartition(".")[2]
    return "learner" if kind == LEARNER_CLASS else kind


@dataclass(frozen=True)
class Actor:
    """A process of a run in its cluster."""

    name: str
    role: str
    node: str
    state: str
    restarts: int


def actors_of(run: str, job: str) -> list[Actor]:
    """The actors of `run`, which is `job` of the cluster at RAY_ADDRESS, that live or are to.

    Raises:
        UserError: the cluster does not tell.
    """
    require_cluster()
    try:
        all_of_it: dict[str, Any] = {"limit": MOST, "timeout": STATE_SECONDS, "raise_on_missing_output": False}
        nodes = {node.node_id: node.node_ip for node in list_nodes(**all_of_it)}
        found = list_actors(detail=True, filters=[("job_id", "=", job), ("state", "!=", "DEAD")], **all_of_it)
    except Exception as error:  # Ray raises its own and those of requests
        raise UserError(f"the cluster does not tell of its actors: {in_one_line(error)}") from error
    actors = []
    for one in found:
        name = one.repr_name or one.name or ""
        if name.startswith(f"{run}/"):
            node = nodes.get(one.node_id or "", "")
            actors.append(Actor(name, one.class_name, node, one.state, int(one.num_restarts or 0)))
    return sorted(actors, key=lambda actor: actor.name)
