"""What the queue's server is told when it starts."""

from typing import Annotated

from pydantic import Field

from rayrlhf.config.options import Options, Positive, Rate


class QueueSettings(Options):
    """The queue of questions over HTTP."""

    database: str
    """The preference store: an SQLite file, or `postgresql://USER@HOST/NAME`."""
    clips: str
    """Folder of the clips, here or on any filesystem of pyarrow's."""
    requests_per_second: Rate = 20.0
    """Requests that one account may make of a replica in the long run; more get 429."""
    burst: Positive = 60
    """Requests that one account may make at once."""
    at_once: Positive = 64
    """Requests that a replica works on at the same time; more get 503."""
    body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    """Largest body of a request; a larger one gets 413."""
