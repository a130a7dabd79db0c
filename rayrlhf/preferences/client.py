"""The queue over HTTP, from Python: the same calls as `PreferenceStore`, with the same records and errors."""

import ipaddress
import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store.database import UnavailableError
from rayrlhf.preferences.store.records import Curves, Decision, Question, RefusedError, Role, Run, clip_name
from rayrlhf.preferences.store.reports import Answered, Person, Progress, RunInfo
from rayrlhf.preferences.wire import (
    MOST_AT_ONCE,
    MOST_CURVES,
    REFUSAL_STATUS,
    Account,
    Agreement,
    Asked,
    Body,
    ClipsMade,
    Doing,
    Drawn,
    Health,
    Me,
    NewAccount,
    Problem,
    Received,
    Said,
    Shown,
    Stored,
    Token,
    Wanted,
    Withdrawn,
)

Result = TypeVar("Result")
TOKEN_VARIABLE = "RAYRLHF_TOKEN"
"""Where programs find their token: what stands on a command line, others on the machine can read."""
_NOTHING = type(None)
_AGAIN = (429, 500, 502, 503, 504)
"""Statuses of which a later call may be free; 500 is what Ray Serve says for a replica that died under a request."""
_LONGEST_PAUSE = 5.0
_DATA = "data: "


@dataclass(frozen=True)
class QueueAddress:
    """Where a queue is, and the token of an account there."""

    url: str
    token: str = field(repr=False)

    @property
    def host(self) -> str:
        """The name or address of the machine."""
        return _host(self.url)


class QueueClient:
    """Calls on the queue at `url` with an account's `token`; use it in a `with` block, or `close` it.

    A server that is away or busy is asked again for `patience` seconds, and a call may take `timeout` seconds to be
    answered; every call may be repeated without harm.

    Raises, from every call:
        UnavailableError: it stayed away.
        RefusedError: the call cannot be carried out as things are.
        UserError: the token is wrong or of another role, or the call is malformed.
    """

    def __init__(self, url: str, token: str, *, patience: float = 30.0, timeout: float = 10.0) -> None:
        self._url, self._patience = url.rstrip("/"), patience
        headers = {"Authorization": f"Bearer {token}"}
        # a proxy is for what lies beyond this machine, and is nobody's to give a token to
        trust_env = not is_loopback(_host(url))
        self._http = httpx.Client(headers=headers, timeout=timeout, trust_env=trust_env)

    def __enter__(self) -> "QueueClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    # --- whoever asks ---

    def register(self, run: Run) -> None:
        """Makes the run known, or what is written of it new."""
        self._call("POST", "/v1/runs", TypeAdapter(Run).dump_json(run))

    def note(self, run: str, doing: Doing) -> None:
        """Tells those who wait what training does."""
        self._call("PUT", f"/v1/runs/{_part(run)}/doing", _json(doing))

    def enqueue(self, run: str, questions: Sequence[Question]) -> list[str]:
        """Puts questions; the ids of those among them whose clips are still to be made.

        Those that are there already stay, and their verdicts are handed over once more.
        """
        unready: list[str] = []
        for start in range(0, len(questions), MOST_AT_ONCE):
            asked = Asked(questions=list(questions[start : start + MOST_AT_ONCE]))
            unready += self._call("POST", f"/v1/runs/{_part(run)}/questions", _json(asked), list[str])
        return unready

    def store_clip(self, content: bytes) -> str:
        """Stores an MP4 file; its name, which follows from its content."""
        name = clip_name(content)
        self._send("PUT", f"/v1/clips/{name}", content, {}, kind="video/mp4")
        return name

    def clips_made(self, run: str, query_id: str, left: str, right: str) -> None:
        """The question's clips are there: it can be shown."""
        made = ClipsMade(query_id=query_id, left_clip=left, right_clip=right)
        self._call("POST", f"/v1/runs/{_part(run)}/clips", _json(made))

    def withdraw(self, run: str, query_id: str) -> None:
        """A question's clips cannot be made: it is decided as one that nobody could tell."""
        self._call("POST", f"/v1/runs/{_part(run)}/withdrawals", _json(Withdrawn(query_id=query_id)))

    def keep_curves(self, run: str, curves: Sequence[Curves]) -> None:
        """The learned reward along segments of the run's, for whoever looks."""
        for start in range(0, len(curves), MOST_CURVES):
            drawn = Drawn(curves=list(curves[start : start + MOST_CURVES]))
            self._call("PUT", f"/v1/runs/{_part(run)}/curves", _json(drawn))

    def decisions(self, run: str, received: Sequence[str] = ()) -> list[Decision]:
        """What is decided for good; the same again until it is named as `received`."""
        body = _json(Received(received=list(received)))
        return self._call("POST", f"/v1/runs/{_part(run)}/decisions", body, list[Decision])

    # --- whoever answers ---

    def lease(self, run: str, count: int = 1) -> list[Shown]:
        """The questions that are the caller's, and new ones until there are `count`."""
        return self._call("POST", f"/v1/runs/{_part(run)}/leases", _json(Wanted(count=count)), list[Shown])

    def answer(
        self, lease: int, choice: Choice, *, key: str | None = None, seconds: float = 0.0, replays: int = 0
    ) -> Stored:
        """Stores an answer, of the clips as they were shown; once, however often it is sent."""
        said = Said(lease=lease, choice=choice, key=key or uuid.uuid4().hex, seconds=seconds, replays=replays)
        return self._call("POST", "/v1/answers", _json(said), Stored)

    def undo(self, answer: int) -> Shown:
        """Takes an answer back: the question is the caller's again."""
        return self._call("DELETE", f"/v1/answers/{answer}", None, Shown)

    # --- whoever looks ---

    def me(self) -> Me:
        """Whose token this is, and which queue."""
        return self._call("GET", "/v1/me", None, Me)

    def runs(self) -> list[RunInfo]:
        """Every run, the newest first."""
        return self._call("GET", "/v1/runs", None, list[RunInfo])

    def progress(self, run: str) -> Progress:
        """Questions by what has become of them."""
        return self._call("GET", f"/v1/runs/{_part(run)}/progress", None, Progress)

    def people(self, run: str) -> list[Person]:
        """What each annotator has done."""
        return self._call("GET", f"/v1/runs/{_part(run)}/people", None, list[Person])

    def agreement(self, run: str) -> float | None:
        """Krippendorff's alpha of the votes."""
        return self._call("GET", f"/v1/runs/{_part(run)}/agreement", None, Agreement).krippendorff_alpha

    def answered(self, run: str) -> Iterator[Answered]:
        """All answered questions with their votes, by id."""
        last = {"after_id": ""}
        while page := self._call("GET", f"/v1/runs/{_part(run)}/answered", None, list[Answered], params=last):
            yield from page
            last = {"after_id": page[-1].query_id}

    def export(self, run: str) -> Iterator[Answered]:
        """The same as one stream, which is not asked for again where it breaks."""
        read = TypeAdapter(Answered).validate_json
        with self._stream(f"/v1/runs/{_part(run)}/export") as lines:
            for line in lines:
                try:
                    found = read(line)
                except ValidationError as error:
                    raise UserError(f"{self._url} is no queue of this rayrlhf: {in_one_line(error)}") from error
                yield found

    def events(self, run: str) -> Iterator[dict[str, Any]]:
        """What is new in a run as it comes: `open`, `answers`, `mine`, `doing`. The stream ends after some minutes."""
        with self._stream(f"/v1/runs/{_part(run)}/events") as lines:
            for line in lines:
                if line.startswith(_DATA):
                    yield json.loads(line.removeprefix(_DATA))

    def clip(self, name: str) -> bytes:
        """The clip `name`, an MP4 file."""
        return self._send("GET", f"/v1/clips/{_part(name)}", None, {}).content

    def health(self) -> Health:
        """That the queue and its store answer."""
        return self._call("GET", "/v1/health", None, Health)

    # --- admins ---

    def accounts(self) -> list[Account]:
        """All accounts, by name."""
        return self._call("GET", "/v1/accounts", None, list[Account])

    def add_account(self, name: str, role: Role) -> str:
        """A new account's token; where it got lost on the way, `renew_token` gives another."""
        return self._call("POST", "/v1/accounts", _json(NewAccount(name=name, role=role)), Token).token

    def renew_token(self, name: str) -> str:
        """Another token for an account, which ends the one before."""
        return self._call("POST", f"/v1/accounts/{_part(name)}/token", None, Token).token

    def disable_account(self, name: str) -> None:
        """Ends another account's token; its answers stay."""
        self._call("DELETE", f"/v1/accounts/{_part(name)}")

    # --- over HTTP ---

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: type[Result] = _NOTHING,  # type: ignore[assignment]
        *,
        params: dict[str, Any] | None = None,
    ) -> Result:
        response = self._send(method, path, body, params or {})
        if kind is _NOTHING:
            return None  # type: ignore[return-value]
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise UserError(f"{self._url} is no queue of this rayrlhf: {in_one_line(error)}") from error

    @contextmanager
    def _stream(self, path: str) -> Iterator[Iterator[str]]:
        """The lines of a response as they come."""
        response = self._send("GET", path, None, {}, stream=True)
        try:
            yield response.iter_lines()
        except httpx.TransportError as error:
            raise UnavailableError(f"the queue at {self._url} broke off: {in_one_line(error)}") from error
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        params: dict[str, Any],
        *,
        kind: str = "application/json",
        stream: bool = False,
    ) -> httpx.Response:
        headers = {"Content-Type": kind} if body is not None else {}
        end, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                url = self._url + path
                request = self._http.build_request(method, url, content=body, params=params, headers=headers)
                response = self._http.send(request, stream=stream)
                if not response.is_success:
                    response.read()
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise UserError(f"{self._url!r} is no address of a queue: {error}") from error
            except httpx.TransportError as error:
                reason, wait = in_one_line(error), pause
            else:
                if response.is_success or (response.status_code not in _AGAIN and _problem(response)):
                    return _checked(response, self._url)
                reason, wait = _detail(response), max(pause, _retry_after(response))
            if time.monotonic() + wait > end:
                raise UnavailableError(f"the queue at {self._url} does not answer: {reason}")
            time.sleep(wait * random.uniform(0.8, 1.2))  # not all at the same moment
            pause = min(2 * pause, _LONGEST_PAUSE)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return ""


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _json(body: Body) -> bytes:
    return body.model_dump_json().encode()


def _checked(response: httpx.Response, url: str) -> httpx.Response:
    if response.is_success:
        return response
    problem = _problem(response)
    if problem is not None and problem.why in REFUSAL_STATUS:
        raise RefusedError(problem.why, problem.detail)  # type: ignore[arg-type]
    raise UserError(f"the queue at {url} says {response.status_code}: {_detail(response)}")


def _detail(response: httpx.Response) -> str:
    problem = _problem(response)
    return problem.detail if problem else response.reason_phrase or str(response.status_code)


def _problem(response: httpx.Response) -> Problem | None:
    """What the queue says; none where something before it answered, such as Serve while it is starting."""
    try:
        return TypeAdapter(Problem).validate_json(response.content)
    except ValidationError:
        return None


def _retry_after(response: httpx.Response) -> float:
    after = response.headers.get("retry-after", "")
    return float(after) if after.isdigit() else 0.0
