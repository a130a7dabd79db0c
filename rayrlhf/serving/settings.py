"""What the queue's server is told when it starts: by the command line, or by a Serve config file."""

from typing import Annotated, Any

from pydantic import Field, ModelWrapValidatorHandler, StringConstraints, ValidationError, model_validator

from rayrlhf.config.options import Options, Positive, Rate
from rayrlhf.errors import UserError, nearest

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class OneLine(Options):
    """Options whose mistakes are one line, whoever makes them from a file."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, value: Any, handler: ModelWrapValidatorHandler["OneLine"]) -> "OneLine":
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                known = nearest(key, cls.model_fields) or f"; there are {', '.join(cls.model_fields)}"
                raise UserError(f"unknown key {key!r}{known}") from error
            raise UserError(f"{key}: {first['msg']}" if key else first["msg"]) from error


class QueueSettings(OneLine):
    """The queue of questions over HTTP."""

    database: str
    """The preference store: an SQLite file, or `postgresql://USER@HOST/NAME`."""
    clips: str
    """Folder of the clips, here or on any filesystem of pyarrow's."""
    admin_digest: Digest | None = None
    """SHA-256, as hexadecimal digits, of the token of the account `admin`, which is made or renewed with it."""
    links: str | None = None
    """A file for the tokens of the accounts `admin` and `training`, which are made; only its owner may read it."""
    replicas: Positive = 1
    """Processes that answer; they share the store and nothing else."""
    requests_per_second: Rate = 20.0
    """Requests that one account may make of a replica in the long run; more get 429."""
    burst: Positive = 60
    """Requests that one account may make at once."""
    at_once: Positive = 64
    """Requests that a replica works on at the same time; more get 503."""
    body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """Largest body of a request; a larger one gets 413."""
