"""`rayrlhf tune`: a search over the options of a run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.tracking.progress import duration
from rayrlhf.tuning.options import SearchConfig, load_search
from rayrlhf.tuning.space import check_space

if TYPE_CHECKING:
    from rayrlhf.tuning.search import Outcome


@dataclass(frozen=True)
class TuneOptions:
    """Search for good options of a run. The file says what is fixed, what is searched, and how; see docs/tune.md."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A search's YAML file, such as tune_configs/smoke.yaml, or the folder of a search, to go on with it."""
    resume: bool = False
    """Go on with the search: trials that have ended are kept, the others go on from their newest checkpoints."""
    resume_if_begun: bool = False
    """The same where the search has begun, else begin it: for a job that is started again by whatever runs it."""
    name: str | None = None
    """The search's folder; by default the file's `name`, or the file is called so."""
    storage: str | None = None
    """The folder in which that is; by default the file's `storage`."""
    quiet: bool = False
    """No lines on the way."""
    json: bool = False
    """Print the outcome as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf tune ARGS`."""
    options = parse(TuneOptions, args, "tune")
    config = load_search(options.file, name=options.name, storage=options.storage)
    check_space(config)
    # imported here, so that help and a mistake in the file come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.tuning.search import begun, search

    with one_line():
        resume = options.resume or (options.resume_if_begun and begun(config))
        outcomes = search(config, resume=resume, say=_quiet if options.quiet else say)
    finish(_report(config, outcomes), as_json=options.json)
    return 0 if any(outcome.result is not None for outcome in outcomes) else 1


def _quiet(line: str) -> None:
    """Says nothing."""


def _report(config: SearchConfig, outcomes: "Sequence[Outcome]") -> dict[str, Any]:
    """The table, the plot and the best config, and where they are."""
    from rayrlhf.plotting import plot_trials
    from rayrlhf.tuning.search import best_file, written

    searched = list(dict.fromkeys(key for outcome in outcomes for key in outcome.values))
    columns = ["trial", *_short(searched), "success", "return", "labels", "steps", "time", "status"]
    rows = [
        [
            outcome.name,
            *(written(outcome.values[key]) if key in outcome.values else "" for key in searched),
            *_numbers(outcome),
        ]
        for outcome in outcomes
    ]
    show(config.name, columns, rows, right=range(1 + len(searched), len(columns) - 1))
    for outcome in outcomes:
        if outcome.error is not None:
            say(f"{outcome.name} failed: {outcome.error}")
    measured = [config.folder / outcome.name for outcome in outcomes if outcome.result is not None]
    pictures = plot_trials(measured, config.folder) if measured else []
    for path in pictures:
        say(f"{'plot':<8}{path}")
    best = best_file(config) if measured else None
    if best is not None:
        say(f"{'best':<8}{best}: rayrlhf train {best}")
    say(f"{'search':<8}{config.folder}")
    return {
        "name": config.name,
        "trials": [asdict(outcome) for outcome in outcomes],
        "plots": [str(path) for path in pictures],
        "best": None if best is None else str(best),
    }


def _short(keys: Sequence[str]) -> list[str]:
    """The last part of each key where it tells them apart."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]


def _numbers(outcome: "Outcome") -> list[str]:
    result = outcome.result
    if result is None:
        return ["", "", "", "", "", outcome.status]
    return [
        f"{result['success_rate']:.0%}",
        f"{result['true_return']:,.1f}",
        f"{result['labels']:,.0f}",
        f"{result['env_steps']:,.0f}",
        duration(60 * result["minutes"]),
        outcome.status,
    ]
