"""Applications for Ray Serve's config files, as `import_path: rayrlhf.serving.apps:policy` (see `serve/`)."""

import logging
from pathlib import Path
from typing import Any

import ray
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client
from starlette.concurrency import run_in_threadpool

from rayrlhf.errors import UserError
from rayrlhf.preferences.client import is_loopback
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.store import Accounts, Database
from rayrlhf.serving.deploy import BACKPRESSURE, WAITING, keep_to_this_machine, queue_deployment
from rayrlhf.serving.links import ADMIN, STANDARD, tokens_of
from rayrlhf.serving.policy import build_app
from rayrlhf.serving.policy_settings import PolicySettings, Targets
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.serving.shelf import Ask, Model, Shelf, act_on_all
from rayrlhf.trained import candidates

log = logging.getLogger(__name__)

HELD = 16
"""Policies that a replica keeps in memory; of more, those that were not asked for longest are let go."""
ONGOING = 8
"""Requests in work on each replica that autoscaling aims at."""


def queue(settings: QueueSettings) -> Application:
    """The queue of questions with its page.

    Raises:
        UserError: the database does not answer, or nobody could make accounts.
    """
    if settings.admin_digest is not None:
        _require_own(settings.admin_digest)
    database = Database(settings.database)
    try:
        accounts = Accounts(database)
        if settings.admin_digest is not None:
            accounts.ensure(ADMIN, "admin", settings.admin_digest)
        if settings.links is not None:
            tokens_of(accounts, STANDARD, Path(settings.links))
        if not any(usable and account.role == "admin" for account, usable in accounts.all()):
            raise UserError("nobody could come in: give links, a file for the first tokens, or admin_digest")
    finally:
        database.close()
    return queue_deployment(settings)


def policy(settings: PolicySettings) -> Application:
    """The endpoint of trained policies.

    Raises:
        UserError: a target is neither a run nor a checkpoint, or everyone in the network could call.
    """
    for target in settings.models.values():
        candidates(Path(target))
    for digest in settings.token_digests:
        _require_own(digest)
    serves = _get_global_client(raise_if_no_controller_running=False) if ray.is_initialized() else None
    if not settings.token_digests and serves is not None and not is_loopback(serves.http_config.host):
        raise UserError(
            f"Serve listens at {serves.http_config.host}, so that other machines can call: give token_digests"
        )
    scale: dict[str, Any] = {"num_replicas": settings.min_replicas}
    if settings.min_replicas < settings.max_replicas:
        lowest, highest = settings.min_replicas, settings.max_replicas
        bounds = {"min_replicas": lowest, "max_replicas": highest, "target_ongoing_requests": ONGOING}
        scale = {"autoscaling_config": bounds}
    deployment: Any = serve.deployment(
        PolicyReplica,
        name="policy",
        # a replica refuses by itself above `at_once`, and says when to come again
        max_ongoing_requests=2 * settings.at_once,
        max_queued_requests=WAITING,
        backpressure_config=BACKPRESSURE,
        logging_config={"enable_access_log": False},
        **scale,
    )
    application: Application = deployment.bind(settings)
    return application


def _require_own(digest: str) -> None:
    """Refuses what stands in the examples."""
    if not digest.strip("0"):
        raise UserError(
            'a digest of zeros belongs to no token: put in your own\'s, by `printf %s "$TOKEN" | sha256sum`'
        )


@serve.ingress()
class PolicyReplica:
    """A process that answers: a `Shelf` whose loading is Serve's multiplexing, and whose acting Serve's batching."""

    async def __init__(self, settings: PolicySettings) -> None:  # type: ignore[misc]  # Serve awaits it
        torch.set_num_threads(1)
        keep_to_this_machine()
        self._settings = settings
        self._shelf = Shelf(settings.models, watch_seconds=settings.watch_seconds if settings.watch else None)
        gather: Any = self.act
        gather.set_max_batch_size(settings.gather_rows)
        gather.set_batch_wait_timeout_s(settings.gather_seconds)
        for name in self.names[:HELD]:
            try:
                await self.load(name)
            except UserError as trouble:
                log.warning("%s is not loaded: %s", name, trouble)
        if not self.ready:
            raise UserError(f"none of {', '.join(self.names)} can be loaded")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._settings, self)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Exchanges checkpoints in place. What cannot be loaded is logged, and the old one goes on."""
        try:
            targets = Targets.model_validate(user_config)
        except UserError as trouble:
            log.error("user_config is passed over: %s", trouble)
            return
        await run_in_threadpool(self._shelf.aim, targets.models)

    @property
    def names(self) -> list[str]:
        """What can be asked for."""
        return self._shelf.names

    @property
    def ready(self) -> bool:
        """Whether any of them is loaded."""
        return self._shelf.ready

    @serve.multiplexed(max_num_models_per_replica=HELD)  # type: ignore[untyped-decorator]
    async def load(self, name: str) -> Model:
        """The model `name`."""
        return await run_in_threadpool(self._shelf.take, name)

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0)  # the settings' own from the start
    async def act(self, asks: list[Ask]) -> list[Floats]:
        """An action `[A]` for each of `asks`."""
        return act_on_all(asks)
