"""`rayrlhf plot`: learning curves of runs, and profiles over seeds and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.plotting import plot_runs
from rayrlhf.plotting.compare import compare_runs


@dataclass(frozen=True)
class PlotOptions:
    """Success and true return against environment steps and labels.

    Runs that differ in their seed alone become one curve: interquartile mean with a 95% bootstrap interval. Where runs
    repeat, performance profiles show the share of them that ends above each level of success. With --compare, one page
    has all of it side by side: curves, profiles, probability of improvement, numbers, options, videos.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders or URLs of runs. With --compare also folders of runs, each of them one side of the comparison."""
    compare: bool = False
    """Write compare.html, a page that opens from disk."""
    out: Path | None = None
    """Folder for the pictures; by default plots/ of the first run."""
    svg: bool = False
    """Write SVG beside PNG."""
    json: bool = False
    """Print the paths as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf plot ARGS`."""
    options = parse(PlotOptions, args, "plot")
    runs = _local(options.runs) if any(map(is_url, options.runs)) else [Path(run) for run in options.runs]
    if options.compare and options.svg:
        raise UserError("--svg writes pictures: the page of --compare has them in it")
    pictures = (
        [compare_runs(runs, out=options.out)] if options.compare else plot_runs(runs, out=options.out, svg=options.svg)
    )
    for path in pictures:
        say(f"{'plot':<8}{path}")
    finish({"plots": [str(path) for path in pictures]}, as_json=options.json)
    return 0


def _local(runs: Sequence[str]) -> list[Path]:
    from rayrlhf.remote import local  # slow to load

    return [local(run, with_checkpoint=False) for run in runs]
