"""Trained policies over HTTP: `/v1`, for whoever wants an action, a reward, or to know what is served.

Nothing is held between two requests. Where tokens are set, every request but those for health carries one.
"""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from rayrlhf import __version__
from rayrlhf.errors import UserError, nearest
from rayrlhf.preferences.fragments import Floats
from rayrlhf.preferences.store import digest_of
from rayrlhf.serving.guard import FREE, Bounds, FromHere, Gate, Rates
from rayrlhf.serving.policy_bodies import ActBody, Acted, Name, RewardBody, Rewarded
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.refusals import RETRY_SECONDS, add_refusals, problems
from rayrlhf.serving.shelf import Ask, Model, Version

log = logging.getLogger(__name__)

MODEL_HEADER = "serve_multiplexed_model_id"
"""Serve sends a request with a policy's name in it to a replica that has that policy in memory."""


class Models(Protocol):
    """Where the routes get their models from: a `Shelf`, or a replica of Serve's that is one."""

    @property
    def names(self) -> list[str]:
        """What can be asked for."""
        ...

    @property
    def ready(self) -> bool:
        """Whether any of them is loaded."""
        ...

    async def load(self, name: str) -> Model:
        """The model `name`."""
        ...

    async def act(self, ask: Ask) -> Floats:
        """An action `[A]`, computed together with others."""
        ...


@dataclass(frozen=True)
class Caller:
    """Whoever has a token, named by the beginning of its digest; or everyone, where none are set."""

    name: str


class Callers:
    """Who may call. Tokens are looked up by their digests: how long that takes says nothing of them."""

    def __init__(self, digests: tuple[str, ...]) -> None:
        self._callers = {digest: Caller(digest[:8]) for digest in digests}

    def who(self, token: str) -> Caller | None:
        """Whose token this is; none for a wrong one."""
        return self._callers.get(digest_of(token)) if self._callers else Caller("everyone")


def build_app(settings: PolicySettings, models: Models) -> FastAPI:
    """The application over `models`."""
    hidden: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}  # ours wants a token
    refusals = problems(400, 401, 404, 413, 422, 429, 503)
    bearer = HTTPBearer(auto_error=False, description="A token of this endpoint, where it wants one.")  # for OpenAPI
    app = FastAPI(
        title="rayrlhf policy", version=__version__, responses=refusals, dependencies=[Depends(bearer)], **hidden
    )
    rates = Rates(settings.requests_per_second, settings.burst)
    # the last one is the outermost
    app.add_middleware(Gate, who=Callers(settings.token_digests).who, rates=rates, free=FREE.__contains__)
    app.add_middleware(Bounds, at_once=settings.at_once, body_bytes=settings.body_bytes)
    if not settings.token_digests:
        app.add_middleware(FromHere)
    add_refusals(app)
    desk = _Desk(settings, models)
    _add_answers(app, desk)
    _add_cards(app, desk)
    return app


class _Desk:
    """What the routes share: which model is meant, and whether what was sent fits it."""

    def __init__(self, settings: PolicySettings, models: Models) -> None:
        self.settings, self.models = settings, models

    async def model(self, task: str | None, request: Request) -> Model:
        """The model of a request: named in its body, in Serve's header, or the only one there is."""
        name, names = task or request.headers.get(MODEL_HEADER), self.models.names
        if name is None and len(names) > 1:
            raise HTTPException(422, "which task? several policies are served: see /v1/models")
        return await self.named(name or names[0])

    async def named(self, name: str) -> Model:
        """404 for a name that is not served, 503 where its policy cannot be loaded."""
        if name not in self.models.names:
            hint = nearest(name, self.models.names) or "; see /v1/models"
            raise HTTPException(404, f"there is no policy {name[:100]!r}{hint}")
        try:
            return await self.models.load(name)
        except UserError as error:
            detail = f"the policy {name!r} cannot be loaded just now"
            raise HTTPException(503, detail, {"Retry-After": str(RETRY_SECONDS)}) from error

    async def told(self, version: Version, obs: Floats, instruction: str | None) -> Floats:
        """The observations with the instruction; 422 where one is missing, or is not understood."""
        if (version.vocabulary is None) != (instruction is None):
            if instruction is None:
                raise HTTPException(422, "this policy has several tasks: say which in `instruction`; its card has some")
            raise HTTPException(422, "this policy takes no instruction")
        if version.vocabulary is None or instruction in version.vocabulary.own:
            return version.told(obs, instruction)
        try:  # by the encoder, which takes its time
            return await run_in_threadpool(version.told, obs, instruction)
        except UserError as error:
            detail = f"this policy does not know the instruction {instruction!r}; its card has those it knows"
            log.warning("an instruction was not understood: %s", error)
            raise HTTPException(422, detail) from error

    def require(self, name: str, array: Floats, width: int, ranks: tuple[int, int]) -> None:
        """422 where an array is not `[..., width]` of one of `ranks`, has no rows or too many."""
        if array.ndim not in ranks or array.shape[-1] != width:
            wanted = " or ".join("[..]" * (rank - 1) + f"[{width}]" for rank in ranks)
            raise HTTPException(422, f"{name} is {_shape(array)}, wanted {wanted}")
        rows = array.size // max(width, 1)
        if not 0 < rows <= self.settings.most_rows:
            raise HTTPException(422, f"{name} has {rows} rows, wanted 1 to {self.settings.most_rows}")


def _shape(array: Floats) -> str:
    return "".join(f"[{size}]" for size in array.shape) or "a number"


def _add_answers(app: FastAPI, desk: _Desk) -> None:
    @app.post("/v1/act", response_model=Acted)
    async def act(body: ActBody, request: Request) -> JSONResponse:
        """Actions in the simulator's units, within its bounds, with which version computed them."""
        model = await desk.model(body.task, request)
        version = model.current
        desk.require("obs", body.obs, version.obs_dim, (1, 2))
        obs = await desk.told(version, body.obs, body.instruction)
        rows = 1 if body.obs.ndim == 1 else len(body.obs)
        noise = None if body.deterministic else version.noise(rows, body.seed)
        if body.obs.ndim == 1:
            action = await desk.models.act(Ask(version, obs, None if noise is None else noise[0]))
        else:
            action = await run_in_threadpool(version.act, obs, noise)
        return _json(action=action.tolist(), task=model.name, version=version.id)

    @app.post("/v1/reward", response_model=Rewarded, responses=problems(409))
    async def reward(body: RewardBody, request: Request) -> JSONResponse:
        """What the reward ensemble thinks of segments."""
        model = await desk.model(body.task, request)
        version = model.current
        desk.require("obs", body.obs, version.obs_dim, (2, 3))
        desk.require("action", body.action, version.action_dim, (2, 3))
        if body.obs.shape[:-1] != body.action.shape[:-1]:
            raise HTTPException(422, f"obs is {_shape(body.obs)} and action {_shape(body.action)}: their steps differ")
        if version.scorer is None:
            raise HTTPException(409, f"version {version.id} of {model.name} has no fitted reward")
        obs = await desk.told(version, body.obs, body.instruction)
        segments = obs.reshape(-1, *obs.shape[-2:]), body.action.reshape(-1, *body.action.shape[-2:])
        scores = await run_in_threadpool(version.rewards, *segments)
        return _json(**_judged(scores, single=body.obs.ndim == 2), task=model.name, version=version.id)


def _judged(scores: Floats, *, single: bool) -> dict[str, Any]:
    """Mean and standard deviation over members of `scores` `[E, B, T]`, and of their sums over `T`."""
    sums = scores.sum(axis=2)
    found = {
        "reward": scores.mean(axis=0),
        "disagreement": scores.std(axis=0),
        "sum": sums.mean(axis=0),
        "sum_disagreement": sums.std(axis=0),
    }
    return {name: (array[0] if single else array).tolist() for name, array in found.items()}


def _json(**content: Any) -> JSONResponse:
    return JSONResponse(content)  # FastAPI's own way walks through every number


def _add_cards(app: FastAPI, desk: _Desk) -> None:
    async def card(name: str) -> dict[str, Any]:
        return {"name": name, **(await desk.named(name)).current.card}

    @app.get("/v1/models")
    async def models() -> dict[str, list[str]]:
        """The names of what is served."""
        return {"models": desk.models.names}

    @app.get("/v1/models/{task}")
    async def model(task: Annotated[Name, Path()]) -> dict[str, Any]:
        """What a policy is: its layouts, version, and how good it was found to be."""
        return await card(task)

    @app.get("/v1/health")
    async def health() -> dict[str, str]:
        """That the server lives."""
        return {"status": "ok", "version": __version__}

    @app.get("/v1/ready")
    async def ready() -> dict[str, str]:
        """That actions can be had; 503 until then."""
        if not desk.models.ready:
            raise HTTPException(503, "no policy is loaded yet", {"Retry-After": str(RETRY_SECONDS)})
        return {"status": "ready"}

    @app.get("/v1/openapi.json")
    async def openapi() -> dict[str, Any]:
        """What this is."""
        return app.openapi()
