"""What the option groups share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]

Few = Annotated[int, Field(gt=0, le=1000)]
ACCOUNT_PATTERN = r"^\w[\w .@+-]{0,99}$"
AccountName = Annotated[str, Field(pattern=ACCOUNT_PATTERN)]
Rate = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


def _share_or_whole(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a share of a GPU is below 1, and above it are whole ones")
    return gpus


Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_share_or_whole)]
"""As Ray takes them for a process."""


class Options(BaseModel):
    """Base of all option groups: unknown keys and wrong types are errors, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
