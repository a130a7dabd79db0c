"""What is said where a request is not carried out: always one `Problem`."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rayrlhf.errors import UserError
from rayrlhf.preferences.store import RefusedError, UnavailableError
from rayrlhf.preferences.wire import REFUSAL_STATUS, Problem

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
_WORDS = {403: "role", 404: "unknown", 409: "conflict", 413: "size", 416: "range", 422: "invalid"}


def problem(status: int, why: str, detail: str, retry: float = RETRY_SECONDS) -> JSONResponse:
    """A refusal as all of them look; with 429 and 503, when to come again."""
    headers = {"Retry-After": str(max(1, round(retry)))} if status in (429, 503) else {}
    return JSONResponse({"why": why, "detail": detail}, status, headers)


def no_store(error: Exception) -> JSONResponse:
    """The database is away; what exactly is the matter is for the log, and for whoever runs it."""
    log.error("%s", error)
    full = "is full" in str(error)
    return problem(503, "unavailable", f"the preference store {'is full' if full else 'does not answer'}; try again")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the schema: what is answered with these statuses."""
    return {status: {"model": Problem} for status in statuses}


def add_refusals(app: FastAPI) -> None:
    """Every refusal is one `Problem`."""

    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        return problem(REFUSAL_STATUS[error.why], error.why, str(error))

    def unavailable(_: Request, error: Exception) -> JSONResponse:
        return no_store(error)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem(422, "invalid", f"{place}: {first['msg'].removeprefix('Value error, ')}")

    def plain(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        found = problem(error.status_code, _WORDS.get(error.status_code, "refused"), str(error.detail))
        found.headers.update(error.headers or {})
        return found

    def by_user(_: Request, error: Exception) -> JSONResponse:
        return problem(400, "invalid", str(error))

    handlers: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
        RefusedError: refused,
        UnavailableError: unavailable,
        RequestValidationError: invalid,
        HTTPException: plain,
        UserError: by_user,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
