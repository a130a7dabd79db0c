"""`rayrlhf plot`: learning curves of runs, and profiles over seeds and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.plotting import plot_runs


@dataclass(frozen=True)
class PlotOptions:
    """Success and true return against environment steps and labels.

    Runs that differ in their seed alone become one curve: interquartile mean with a 95% bootstrap interval. Where runs
    repeat, performance profiles show the share of them that ends above each level of success.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs."""
    out: Path | None = None
    """Folder for the pictures; by default plots/ of the first run."""
    svg: bool = False
    """Write SVG beside PNG."""
    json: bool = False
    """Print the paths as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf plot ARGS`."""
    options = parse(PlotOptions, args, "plot")
    pictures = plot_runs(options.runs, out=options.out, svg=options.svg)
    for path in pictures:
        say(f"{'plot':<8}{path}")
    finish({"plots": [str(path) for path in pictures]}, as_json=options.json)
    return 0
