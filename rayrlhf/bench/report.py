"""What a benchmark returns, and the options all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from rayrlhf.bench.timing import Clock, Rates, best_device, machine
from rayrlhf.config.options import Options
from rayrlhf.errors import UserError, nearest

Count = Annotated[int, Field(gt=0)]
Chosen = TypeVar("Chosen", bound=Options)


class BenchOptions(Options):
    """Options of every benchmark; each has its own besides."""

    rounds: Count = 7
    """How often the sides take turns; medians are reported."""
    clock: Clock = "wall"
    threads: Count = 1
    """Torch threads of every process."""


class DeviceOptions(BenchOptions):
    """Options of the benchmarks that can run on a GPU."""

    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def chosen_device(self) -> str:
        """`cpu` or `cuda`. Raises `UserError` where a GPU is asked for and there is none, or timed by CPU seconds."""
        device = best_device() if self.device == "auto" else self.device
        if device == "cuda" and best_device() != "cuda":
            raise UserError("device=cuda, but torch finds no GPU here: leave the option out")
        if device == "cuda" and self.clock == "cpu":
            raise UserError("clock=cpu does not see a GPU's time: use clock=wall")
        return device


@dataclass(frozen=True)
class Case:
    """One comparison. `ours` and `reference` are in `unit`, more is better; `against` says what the reference is."""

    ours: float
    reference: float
    unit: str
    against: str

    def row(self) -> dict[str, Any]:
        """The case as it is printed; there is no ratio to a reference of zero."""
        ratio = self.ours / self.reference if self.reference else None
        return {
            "ours": self.ours,
            "reference": self.reference,
            "ratio": ratio,
            "unit": self.unit,
            "against": self.against,
        }


@dataclass
class Report:
    """A benchmark's cases as they come, and what else it is worth knowing of them.

    spread: by case, the lowest and the highest ratio of a round
    notes:  by case or subject, further numbers: parts, bounds, controls
    """

    bench: str
    device: str = "cpu"
    cases: dict[str, Case] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, rates: Rates, ours: str, reference: str, *, unit: str, against: str) -> None:
        """The case `name`: medians of two sides of `rates`."""
        self.cases[name] = Case(rates.median(ours), rates.median(reference), unit, against)
        ratios = rates.ratios(ours, reference)
        self.spread[name] = (min(ratios), max(ratios))

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "bench": self.bench,
            "cases": {name: case.row() for name, case in self.cases.items()},
            "spread": {name: list(ends) for name, ends in self.spread.items()},
            "notes": self.notes,
            "machine": machine(self.device),
        }


def options_from(kind: type[Chosen], given: Mapping[str, Any], bench: str) -> Chosen:
    """`given` as `kind`. Raises `UserError`, one line, for an unknown option or a wrong value."""
    unknown = [name for name in given if name not in kind.model_fields]
    if unknown:
        known = ", ".join(kind.model_fields)
        hint = nearest(unknown[0], kind.model_fields)
        raise UserError(f"bench {bench} has no option {unknown[0]!r}{hint}; there are {known}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"bench {bench}: {name}={given.get(name)!r}: {first['msg']}") from error
