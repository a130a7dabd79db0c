"""What the policy's server is told when it starts: by the command line, or by a Serve config file."""

from typing import Annotated

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from rayrlhf.config.options import NonNegative, Positive, Rate
from rayrlhf.serving.settings import Digest, OneLine

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"
PolicyName = Annotated[str, StringConstraints(pattern=NAME)]
"""What callers name a policy by."""


class PolicySettings(OneLine):
    """The endpoint of one or several trained policies."""

    models: Annotated[dict[PolicyName, str], Field(min_length=1)]
    """By the name that callers use: the folder of a run (its newest checkpoint) or of one checkpoint."""
    watch: bool = False
    """Go on to a run's newest checkpoint while training writes them; else each replica keeps what it loaded."""
    watch_seconds: Rate = 2.0
    """How often it is looked whether there is one."""
    token_digests: tuple[Digest, ...] = ()
    """SHA-256 of the tokens that may call, as hexadecimal digits; none: whoever reaches the port may."""
    min_replicas: NonNegative = 1
    """Processes that answer, at least."""
    max_replicas: Positive = 1
    """At most; between the two Serve follows the load."""
    gather_rows: Positive = 64
    """Single observations that are answered in one pass, at most."""
    gather_seconds: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """How long a single observation waits for others; 0: only those that are there already are gathered."""
    most_rows: Positive = 4096
    """Observations, or steps of segments, in one request; more get 422."""
    requests_per_second: Rate = 10_000.0
    """Requests that one token may make of a replica in the long run; more get 429."""
    burst: Positive = 20_000
    """Requests that one token may make at once."""
    at_once: Positive = 256
    """Requests that a replica works on at the same time; more get 503."""
    body_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    """Largest body of a request; a larger one gets 413."""

    @field_validator("max_replicas")  # of the model, it would come after the one that makes one line
    @classmethod
    def _in_order(cls, highest: int, known: ValidationInfo) -> int:
        if known.data.get("min_replicas", 1) > highest:
            raise ValueError(f"min_replicas ({known.data['min_replicas']}) is above max_replicas ({highest})")
        return highest


class Targets(OneLine):
    """What can be changed while it runs, as a deployment's `user_config`: which checkpoints are served."""

    models: dict[PolicyName, str]
    """By name, instead of what the settings say; each must be a name of theirs."""
