"""The queue of questions over HTTP: `/v1`, for the programs that ask, the people who answer, and those who look.

Every request carries `Authorization: Bearer TOKEN`, except for the labelling page's files, which hold no data. Nothing
is held here: any number of replicas may share a store.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from sqlalchemy import select
from starlette.exceptions import HTTPException

from rayrlhf import __version__
from rayrlhf.config.options import AccountName
from rayrlhf.preferences.store import (
    Accounts,
    Annotator,
    Answered,
    Database,
    Decision,
    Lease,
    Person,
    PreferenceStore,
    Progress,
    RefusedError,
    Reports,
    Run,
    RunInfo,
)
from rayrlhf.preferences.store.records import NO_NUL, Role, RunName
from rayrlhf.preferences.store.reports import PAGE, Among
from rayrlhf.preferences.store.voting import Status
from rayrlhf.preferences.wire import (
    QUEUE_HEADER,
    Account,
    Agreement,
    Asked,
    ClipsMade,
    Doing,
    Drawn,
    Health,
    Me,
    NewAccount,
    Received,
    Said,
    Shown,
    Stored,
    Token,
    Wanted,
    Withdrawn,
)
from rayrlhf.serving.clips import Clips
from rayrlhf.serving.counting import QueueMeters
from rayrlhf.serving.guard import FREE, Bounds, Gate, Rates
from rayrlhf.serving.page import add_page, is_page
from rayrlhf.serving.refusals import add_refusals, problems
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.serving.streams import Board, answered_lines, news

_STREAMS = 4
"""Streams of events that one account may have open on a replica."""
InPath = Annotated[RunName, Path()]


class Queue:
    """What the routes need: the store and its readers."""

    def __init__(self, settings: QueueSettings) -> None:
        self.database = Database(settings.database)
        self.store = PreferenceStore(self.database)
        self.reports = Reports(self.database)
        self.accounts = Accounts(self.database)
        self.clips = Clips(settings.clips)
        self.meters = QueueMeters(self.reports)


def build_app(settings: QueueSettings) -> FastAPI:
    """The application, with a connection to the store of its own."""
    queue = Queue(settings)
    hidden: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}  # ours wants a token
    refusals = problems(400, 401, 403, 413, 422, 429, 503)
    app = FastAPI(title="rayrlhf queue", version=__version__, responses=refusals, **hidden)
    # the last one is the outermost
    rates = Rates(settings.requests_per_second, settings.burst)
    app.add_middleware(Gate, who=queue.accounts.who, rates=rates, free=lambda path: is_page(path) or path in FREE)
    app.add_middleware(Bounds, at_once=settings.at_once, body_bytes=settings.body_bytes)
    add_refusals(app)
    for add in (_add_asking, _add_answering, _add_looking, _add_accounts, _add_health):
        add(app, queue)
    add_page(app)
    return app


# --- who calls ---

_bearer = HTTPBearer(auto_error=False, description="The token of an account of the queue.")


def _caller(*roles: Role) -> Any:
    """Whoever calls, whom the gate has let in, if they are one of `roles` or an admin."""

    def who(request: Request, _: Annotated[Any, Depends(_bearer)]) -> Annotator:  # the bearer is for OpenAPI's eyes
        caller: Annotator = request.state.caller
        if caller.role not in (*roles, "admin"):
            raise HTTPException(403, f"this is for {' and '.join(roles) or 'admin'} accounts")
        return caller

    return Depends(who)


Anyone = Annotated[Annotator, _caller("annotator", "trainer")]
Answerer = Annotated[Annotator, _caller("annotator")]
Trainer = Annotated[Annotator, _caller("trainer")]
Admin = Annotated[Annotator, _caller()]


# --- whoever asks ---


def _add_asking(app: FastAPI, queue: Queue) -> None:
    store = queue.store

    @app.post("/v1/runs", status_code=204)
    def register(run: Run, caller: Trainer) -> None:
        """Makes a run known, or what is written of it new."""
        store.register(run)

    @app.put("/v1/runs/{run}/doing", status_code=204, responses=problems(404))
    def note(run: InPath, doing: Doing, caller: Trainer) -> None:
        """Tells those who wait what training does."""
        store.note(run, doing.model_dump_json())

    @app.post("/v1/runs/{run}/questions", responses=problems(404, 409))
    def enqueue(run: InPath, asked: Asked, caller: Trainer) -> list[str]:
        """Puts questions; the ids of those among them whose clips are still to be made.

        Those that are there already stay, and their verdicts are handed over once more. Where a clip is gone, as for a
        run that goes on at another machine, it is to be made anew.
        """
        unmade = store.enqueue(run, asked.questions)
        shown = store.shown(run, [question.id for question in asked.questions if not question.ready])
        gone = queue.clips.missing({clip for clips in shown.values() for clip in clips})
        lost = {key: clips for key, clips in shown.items() if not gone.isdisjoint(clips)}
        for key, clips in lost.items():
            store.clips_lost(run, key, *clips)
        return unmade + list(lost)

    @app.put("/v1/clips/{clip}", status_code=204)
    def store_clip(clip: str, content: Annotated[bytes, Body(media_type="video/mp4")], caller: Trainer) -> None:
        """Stores an MP4 file, named by the hash of its content (BLAKE2b of 16 bytes, in hexadecimal digits)."""
        queue.clips.store(clip, content)

    @app.put("/v1/runs/{run}/curves", status_code=204)
    def keep_curves(run: InPath, drawn: Drawn, caller: Trainer) -> None:
        """The learned reward along segments, for whoever looks at them."""
        store.keep_curves(run, drawn.curves)

    @app.post("/v1/runs/{run}/clips", status_code=204, responses=problems(404))
    def clips_made(run: InPath, made: ClipsMade, caller: Trainer) -> None:
        """A question's clips are there: it can be shown."""
        store.clips_made(run, made.query_id, made.left_clip, made.right_clip)

    @app.post("/v1/runs/{run}/withdrawals", status_code=204)
    def withdraw(run: InPath, withdrawn: Withdrawn, caller: Trainer) -> None:
        """A question's clips cannot be made: it is decided as one that nobody could tell."""
        store.withdraw(run, withdrawn.query_id)

    @app.post("/v1/runs/{run}/decisions", responses=problems(404))
    def decisions(run: InPath, received: Received, caller: Trainer) -> list[Decision]:
        """What is decided for good; the same again until it is named as received."""
        found = store.decisions(run, received.received)
        queue.meters.look(run)
        return found


# --- whoever answers ---


def _add_answering(app: FastAPI, queue: Queue) -> None:
    store, clock = queue.store, queue.database.clock

    def meant(named: Annotated[str | None, Header(alias=QUEUE_HEADER, max_length=100)] = None) -> None:
        """Refuses what is meant for the queue that was at this address before."""
        if named is not None and named != queue.database.identity():
            raise RefusedError("elsewhere", "another queue is at this address now; load the page anew")

    here = [Depends(meant)]

    def shown(lease: Lease) -> Shown:
        seconds = max(0.0, lease.expires_at - clock.now())
        return Shown(lease.id, lease.left_clip, lease.right_clip, seconds, lease.instruction)

    @app.post("/v1/runs/{run}/leases", responses=problems(404, 409), dependencies=here)
    def lease(run: InPath, wanted: Wanted, caller: Answerer) -> list[Shown]:
        """The questions that are the caller's, and new ones until there are `count`."""
        found = store.lease(run, caller.name, wanted.count)
        queue.meters.leased(run, sum(one.fresh for one in found))
        return [shown(one) for one in found]

    @app.post("/v1/answers", responses=problems(404, 409), dependencies=here)
    def answer(said: Said, caller: Answerer) -> Stored:
        """Stores an answer. A second call with the same key does nothing."""
        made = store.answer(
            caller.name, said.lease, said.choice, key=said.key, seconds=said.seconds, replays=said.replays
        )
        queue.meters.answered(made)
        return Stored(made.answer_id)

    @app.delete("/v1/answers/{number}", responses=problems(404, 409, 410), dependencies=here)
    def undo(number: Annotated[int, Path(ge=1, lt=2**31)], caller: Answerer) -> Shown:
        """Takes an answer back: the question is the caller's again."""
        return shown(store.undo(caller.name, number))


# --- whoever looks ---


def _add_looking(app: FastAPI, queue: Queue) -> None:
    reports = queue.reports

    @app.get("/v1/me")
    def me(caller: Anyone) -> Me:
        """Whose token this is, and which queue."""
        return Me(caller.name, caller.role, queue.database.identity())

    @app.get("/v1/runs")
    def runs(caller: Anyone) -> list[RunInfo]:
        """Every run, the newest first."""
        return reports.runs(caller.name)

    @app.get("/v1/runs/{run}/progress")
    def progress(run: InPath, caller: Anyone) -> Progress:
        """Questions by what has become of them."""
        return reports.progress(run)

    @app.get("/v1/runs/{run}/people")
    def people(run: InPath, caller: Anyone) -> list[Person]:
        """What each annotator has done. An annotator sees their own, and not how they did where they were tested."""
        if caller.role != "annotator":
            return reports.people(run)
        own = reports.people(run, only=caller.name)
        return [Person(one.name, one.answers, one.skips, one.seconds) for one in own]

    @app.get("/v1/runs/{run}/agreement")
    def agreement(run: InPath, caller: Trainer) -> Agreement:
        """Krippendorff's alpha of the votes."""
        return Agreement(reports.agreement(run))

    @app.get("/v1/runs/{run}/answered")
    def answered(
        run: InPath,
        caller: Trainer,
        among: Among = "run",
        gold: bool = False,
        annotator: Annotated[AccountName | None, Query()] = None,
        status: Annotated[list[Status], Query(max_length=10)] = [],  # noqa: B006
        disagreed: bool = False,
        since: Annotated[float | None, Query(ge=0, le=1e12)] = None,
        before: Annotated[float | None, Query(ge=0, le=1e12)] = None,
        before_id: Annotated[str, Query(max_length=200, pattern=NO_NUL)] = "",
        after_id: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE)] = 50,
    ) -> list[Answered]:
        """Answered questions, the newest first: `before` and `before_id` are the last one's of the page before.

        By id with `after_id`, that one's: so none is missed while people answer. `among` adds the other runs of the
        task, or all; with `gold` they are the questions that test annotators, and `choice` is the known answer.
        """
        place = None if before is None else (before, before_id)
        return reports.browse(
            run, among=among, gold=gold, annotator=annotator, statuses=status, disagreed=disagreed, since=since,
            before=place, after_id=after_id, limit=limit,
        )  # fmt: skip

    @app.get("/v1/runs/{run}/export", response_class=StreamingResponse)
    def export(run: InPath, caller: Trainer) -> StreamingResponse:
        """All answered questions with their votes by id, one JSON object a line."""
        return StreamingResponse(answered_lines(reports, run), media_type="application/x-ndjson")

    @app.get("/v1/clips/{clip}", response_class=Response, responses=problems(404, 416))
    def clip(clip: str, request: Request, caller: Anyone) -> Response:
        """A clip, or the range of it that is asked for."""
        return queue.clips.response(clip, request.headers.get("range"))

    streams: Counter[str] = Counter()
    board = Board(reports)

    @app.get("/v1/runs/{run}/events", response_class=StreamingResponse, responses=problems(404))
    async def events(run: InPath, caller: Anyone) -> StreamingResponse:
        """Server-sent events for some minutes: `news` when what can be answered changes or training says something."""
        await board.look(run)  # 404 where there is none
        if streams[caller.name] >= _STREAMS:
            raise HTTPException(429, f"{_STREAMS} streams of events are open already", {"Retry-After": "5"})

        async def counted() -> AsyncIterator[str]:
            streams[caller.name] += 1
            try:
                async for line in news(board, run, caller.name):
                    yield line
            finally:
                streams[caller.name] -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")


# --- accounts, health ---


def _add_accounts(app: FastAPI, queue: Queue) -> None:
    @app.post("/v1/accounts", status_code=201, responses=problems(409))
    def add(account: NewAccount, caller: Admin) -> Token:
        """A new account; its token is shown this once."""
        return Token(queue.accounts.add(account.name, account.role))

    @app.post("/v1/accounts/{name}/token", responses=problems(404))
    def renew(name: Annotated[AccountName, Path()], caller: Admin) -> Token:
        """Another token for an account, also for one that was ended."""
        return Token(queue.accounts.renew(name))

    @app.get("/v1/accounts")
    def accounts(caller: Admin) -> list[Account]:
        """All accounts."""
        return [Account(one.name, one.role, usable) for one, usable in queue.accounts.all()]

    @app.delete("/v1/accounts/{name}", status_code=204, responses=problems(404, 409))
    def disable(name: Annotated[AccountName, Path()], caller: Admin) -> None:
        """Ends another account's token; its answers stay."""
        if name == caller.name:
            raise RefusedError("conflict", "an account cannot end itself")
        queue.accounts.disable(name)


def _add_health(app: FastAPI, queue: Queue) -> None:
    @app.get("/v1/health")
    def health() -> Health:
        """That the server answers. It wants no token, nor does `/v1/ready`."""
        return Health("ok", __version__)

    @app.get("/v1/ready", responses=problems(503))
    def ready() -> Health:
        """That the store answers, too; 503 where it does not."""
        with queue.database.reading() as connection:
            connection.execute(select(1))
        return Health("ready", __version__)

    @app.get("/v1/openapi.json")
    def openapi(caller: Anyone) -> dict[str, Any]:
        """What this is."""
        return app.openapi()
