"""Learning curves: success and true return against environment steps and against labels.

Runs that differ in nothing but their seed (and where and how often they write) are one method: its curve is the
interquartile mean over them, with a 95% stratified bootstrap interval over runs (Agarwal et al. 2021).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.evaluation.statistics import bootstrap_interval
from rayrlhf.seeding import generator
from rayrlhf.tracking.directory import Row, RunDirectory

Doubles = NDArray[np.float64]

SUCCESS, RETURN, LABELS = "success_rate", "true_return_mean", "labels"
"""Columns of `metrics.jsonl` that curves are made of."""
MEASURES = {SUCCESS: "success", RETURN: "true return of an episode"}

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Colours that colour-blind readers can tell apart (Okabe and Ito 2008), each with a marker of its own."""
_POINTS = 200
"""Points at which the curves of several runs are compared."""
_MARKED = 40
"""Curves with no more evaluations than this have each of them marked."""
_STYLE: dict[Any, Any] = {
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


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run, `P` of them, in the order of their steps.

    env_steps, labels: `[P]`   values: by column of `metrics.jsonl`, `[P]`
    """

    run: RunDirectory
    config: RunConfig
    env_steps: Doubles
    labels: Doubles
    values: dict[str, Doubles]


@dataclass(frozen=True)
class Method:
    """Runs of one task that differ in their seed alone."""

    name: str
    curves: tuple[Curve, ...]


def read_curve(path: Path) -> Curve:
    """The evaluations of the run in `path`. Raises `UserError` where there are none to draw."""
    run = RunDirectory.open(path)
    evaluated = (row for row in run.metrics() if row.get(SUCCESS) is not None)
    newest = {row["env_steps"] or 0: row for row in evaluated}  # the final evaluation may repeat the last step
    rows = [newest[step] for step in sorted(newest)]
    if not rows:
        raise UserError(f"{str(path)!r} has no evaluation to draw yet: see evaluation.interval")
    values = {name: _column(rows, name) for name in MEASURES}
    return Curve(run, run.config(), _column(rows, "env_steps"), _column(rows, LABELS, 0.0), values)


def plot_runs(paths: Sequence[Path], *, out: Path | None = None, svg: bool = False) -> list[Path]:
    """Draws one picture per task and returns where they are.

    out: folder for the pictures; by default `plots/` of the first run
    svg: write SVG beside PNG
    """
    if not paths:
        raise UserError("no runs to draw: name their folders, such as runs/*")
    curves = [read_curve(Path(path)) for path in dict.fromkeys(paths)]
    folder = curves[0].run.plots if out is None else out
    tasks = dict.fromkeys(curve.config.env.task for curve in curves)
    written: list[Path] = []
    for task in tasks:
        figure = draw(task, methods_of([curve for curve in curves if curve.config.env.task == task]))
        stem = folder / ("curves" if len(tasks) == 1 else f"curves-{task.replace('/', '-')}")
        written += _save(figure, stem, (".png", ".svg") if svg else (".png",))
    return written


def methods_of(curves: Sequence[Curve]) -> list[Method]:
    """Groups runs by all that matters in their configs; the names say where the groups differ."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(_identity(curve.config), []).append(curve)
    names = _names([group[0].config for group in groups.values()])
    return [Method(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True)]


def draw(task: str, methods: Sequence[Method]) -> Figure:
    """The picture of one task: a row per measure; the columns are environment steps and, if any were used, labels."""
    asked = any(_uses_labels(curve) for method in methods for curve in method.curves)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6 if asked else 5.4, 6.4), layout="constrained")
        grid = figure.subplots(len(MEASURES), 2 if asked else 1, squeeze=False, sharey="row", sharex="col")
        for row, measure in zip(grid, MEASURES, strict=True):
            _draw_panels(row, measure, methods)
        for axes, name in zip(grid[-1], ("environment steps", "labels"), strict=False):
            axes.set_xlabel(name)
        figure.suptitle(_title(task, methods), x=0.01, ha="left", fontweight="bold")
        _legend(figure, grid[0], columns=2 if asked else 1)
    return figure


def _legend(figure: Figure, row: Sequence[Axes], columns: int) -> None:
    handles, names = row[0].get_legend_handles_labels()
    several = any("seeds" in name for name in names)
    note = "interquartile mean, 95% bootstrap interval over seeds" if several else None
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


def _draw_panels(row: Sequence[Axes], measure: str, methods: Sequence[Method]) -> None:
    for index, method in enumerate(methods):
        look = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}
        _draw_method(row[0], method, [(c.env_steps, c.values[measure]) for c in method.curves], look)
        if len(row) > 1 and all(_uses_labels(curve) for curve in method.curves):
            _draw_method(row[1], method, [_by_label(c, measure) for c in method.curves], look)
        elif len(row) > 1:  # no labels: what it ended with, to measure the others by
            ends = np.array([curve.values[measure][-1] for curve in method.curves])
            row[1].axhline(float(np.mean(ends)), color=look["color"], linestyle="--", linewidth=1.2)
    row[0].set_ylabel(MEASURES[measure])
    row[0].xaxis.set_major_formatter(FuncFormatter(_short))
    if measure == SUCCESS:
        row[0].set_ylim(-0.03, 1.03)
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in row:
        axes.set_xlim(left=0)


def _draw_method(axes: Axes, method: Method, lines: Sequence[tuple[Doubles, Doubles]], look: dict[str, Any]) -> None:
    x, scores = on_one_grid(lines)
    label = f"{method.name} ({len(lines)} seeds)" if len(lines) > 1 else method.name
    size = 4.0 if len(x) <= _MARKED else 0.0
    interval = bootstrap_interval([scores], generator(0, "plot"))  # [R, P]
    if len(lines) > 1:
        axes.fill_between(x, interval.low, interval.high, color=look["color"], alpha=0.18, linewidth=0)
        for own_x, own_y in lines:
            axes.plot(own_x, own_y, color=look["color"], alpha=0.25, linewidth=0.8)
    every = max(1, len(x) // 12) if len(lines) > 1 else 1
    axes.plot(x, interval.value, label=label, linewidth=2.0, markersize=size or 4.0, markevery=every, **look)


def on_one_grid(lines: Sequence[tuple[Doubles, Doubles]]) -> tuple[Doubles, Doubles]:
    """Several `(x, y)` on one grid: `x [P]` over the range all of them cover, and `y [R, P]`.

    Where all share their `x` these are the grid; else values in between are interpolated linearly.
    """
    first = lines[0][0]
    if all(np.array_equal(x, first) for x, _ in lines):
        return first, np.stack([y for _, y in lines])
    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    inside = np.unique(np.concatenate([x for x, _ in lines]))
    grid = inside[(inside >= low) & (inside <= high)]
    if len(grid) > _POINTS:
        grid = np.linspace(low, high, _POINTS)
    if len(grid) == 0:  # nothing shared: runs that were only begun
        grid = np.array([high])
    return grid, np.stack([np.interp(grid, x, y) for x, y in lines])


def _by_label(curve: Curve, measure: str) -> tuple[Doubles, Doubles]:
    """The last evaluation at each number of labels: what so many labels had brought when the next ones came."""
    counts = np.unique(curve.labels)
    last = np.searchsorted(curve.labels, counts, side="right") - 1
    return counts, curve.values[measure][last]


def _uses_labels(curve: Curve) -> bool:
    return bool(curve.labels[-1] > 0)


def _column(rows: Sequence[Row], name: str, default: float = float("nan")) -> Doubles:
    values = (row.get(name) for row in rows)
    return np.array([default if value is None else value for value in values], dtype=np.float64)


def _tree(config: RunConfig) -> dict[str, Any]:
    """What of a config makes a method: all but seed, names and how often it writes; of the true reward no questions."""
    aside: Any = dict.fromkeys(("seed", "name", "storage_path", "tracking", "checkpoint", "resources"), True)
    aside |= {"explore": {"save", "from_"}}
    if config.mode == "oracle":
        aside |= dict.fromkeys(("queries", "teacher", "reward"), True)
    return config.model_dump(mode="json", by_alias=True, exclude=aside)


def _identity(config: RunConfig) -> str:
    return json.dumps(_tree(config), sort_keys=True)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _names(configs: Sequence[RunConfig]) -> list[str]:
    """A name for each config: its method, and the options (three at most) in which it differs from the others."""
    flats = [_flat(_tree(config)) for config in configs]
    every = dict.fromkeys(key for flat in flats for key in flat if key != "mode")
    different = [key for key in every if len({json.dumps(flat[key]) for flat in flats if key in flat}) > 1]
    names = []
    for config, flat in zip(configs, flats, strict=True):
        method = "true reward" if config.mode == "oracle" else config.algorithm.upper()
        own = [key for key in different if key in flat]
        said = [f"{key} {_said(flat[key])}" for key in own[:3]] + (["…"] if len(own) > 3 else [])
        names.append(", ".join([method, *said]))
    return names


def _said(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _title(task: str, methods: Sequence[Method]) -> str:
    configs = [curve.config for method in methods for curve in method.curves]
    hidden = {config.env.goal_hidden for config in configs}
    if configs[0].env.suite != "metaworld" or len(hidden) > 1:
        return task
    return f"{task}, goal {'hidden' if hidden.pop() else 'shown'}"


def _short(value: float, _: object = None) -> str:
    """`500`, `20K`, `1.5M`."""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _save(figure: Figure, stem: Path, endings: Sequence[str]) -> list[Path]:
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = []
        with mpl.rc_context(_STYLE):
            for ending in endings:
                path = stem.with_name(stem.name + ending)
                figure.savefig(path, dpi=150, metadata={"Date": None} if ending == ".svg" else None)
                written.append(path)
    except OSError as error:
        raise UserError(f"cannot write {stem}: {error.strerror or error}") from error
    return written
