"""The queue as a deployment of Ray Serve."""

from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve._private import replica
from ray.serve.config import BackpressureConfig

from rayrlhf.errors import UserError
from rayrlhf.preferences.client import is_loopback
from rayrlhf.serving.queue import build_app
from rayrlhf.serving.refusals import RETRY_SECONDS
from rayrlhf.serving.settings import QueueSettings

REPLICA_CPUS = 0.1
OPEN_STREAMS = 1000
"""Pages that a replica can have open: each holds a stream of events, and takes nobody's place beside."""
WAITING = 200
"""Requests that wait for a replica; more get 503 from Serve."""
BACKPRESSURE = BackpressureConfig(retry_after_s=RETRY_SECONDS)


def queue_deployment(settings: QueueSettings) -> Application:
    """The queue, for `serve.run`."""

    def build() -> FastAPI:  # Serve calls plain functions only, in each replica
        return _build(settings)

    deployment: Any = serve.deployment(
        serve.ingress(build)(),
        name="queue",
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        # a replica refuses by itself above `at_once`; streams of events come on top
        max_ongoing_requests=OPEN_STREAMS + 4 * settings.at_once,
        max_queued_requests=WAITING,
        backpressure_config=BACKPRESSURE,
    )
    application: Application = deployment.bind()
    return application


def keep_to_this_machine() -> None:
    """In a replica of a Ray that only this machine reaches: has Serve open no port to the network.

    A replica listens for other deployments on all addresses, whatever the node's own is.
    """
    if all(is_loopback(node["NodeManagerAddress"]) for node in _nodes()):
        serves: Any = replica
        bind = serves.add_port_to_grpc_server
        serves.add_port_to_grpc_server = lambda server, place: bind(server, place.replace("[::]", "127.0.0.1"))


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _build(settings: QueueSettings) -> FastAPI:
    """The application in its replica. Raises `UserError` for an SQLite file on a cluster of several nodes."""
    sqlite = not settings.database.startswith("postgresql")
    nodes = _nodes()
    if sqlite and len(nodes) > 1:
        raise UserError(
            f"{len(nodes)} nodes cannot share an SQLite file: give the queue postgresql://..., or a cluster of one node"
        )
    keep_to_this_machine()
    return build_app(settings)
