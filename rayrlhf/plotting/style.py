"""How pictures look, and how they are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayrlhf.errors import UserError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Colours that colour-blind readers can tell apart (Okabe and Ito 2008), each with a marker of its own."""
DASHES = ("-", "--", ":")
"""Where there are more methods than colours."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.edgecolor": "#777777",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rayrlhf",
}


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the method with this number."""
    turn, place = divmod(index, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": DASHES[turn % len(DASHES)]}


def add_legend(figure: Figure, axes: Axes, columns: int, note: str | None) -> None:
    """Names of the lines in `axes` below the picture, under `note`."""
    handles, names = axes.get_legend_handles_labels()
    fits = all(len(name) <= 55 for name in names)
    figure.legend(
        handles,
        names,
        loc="outside lower left",
        ncols=min(len(names), columns) if fits else 1,
        title=note,
        title_fontsize="small",
        alignment="left",
    )


def save(figure: Figure, stem: Path, endings: Sequence[str]) -> list[Path]:
    """Writes `figure` once for each of `endings`; UserError where that cannot be done."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = []
        with mpl.rc_context(STYLE):
            for ending in endings:
                path = stem.with_name(stem.name + ending)
                figure.savefig(path, dpi=150, metadata={"Date": None} if ending == ".svg" else None)
                written.append(path)
    except OSError as error:
        raise UserError(f"cannot write {stem}: {error.strerror or error}") from error
    return written
