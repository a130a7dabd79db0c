"""Learning curves: success and true return against environment steps and against labels.

Runs that differ in nothing but their seed (and where and how often they write) are one method: its curve is the
interquartile mean over them, with a 95% stratified bootstrap interval over runs (Agarwal et al. 2021).
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from rayrlhf.evaluation.statistics import bootstrap_interval
from rayrlhf.plotting.runs import MEASURES, SUCCESS, Curve, Doubles, Method
from rayrlhf.plotting.style import STYLE, add_legend, look
from rayrlhf.seeding import generator

_POINTS = 200
"""Points at which the curves of several runs are compared."""
_MARKED = 40
"""Curves with no more evaluations than this have each of them marked."""


def draw(task: str, methods: Sequence[Method]) -> Figure:
    """The picture of one task: a row per measure; the columns are environment steps and, if any were used, labels."""
    asked = any(curve.uses_labels for method in methods for curve in method.curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6 if asked else 5.4, 6.4), layout="constrained")
        grid = figure.subplots(len(MEASURES), 2 if asked else 1, squeeze=False, sharey="row", sharex="col")
        for row, measure in zip(grid, MEASURES, strict=True):
            _draw_panels(row, measure, methods)
        for axes, name in zip(grid[-1], ("environment steps", "labels"), strict=False):
            axes.set_xlabel(name)
        figure.suptitle(_title(task, methods), x=0.01, ha="left", fontweight="bold")
        several = any(len(method.curves) > 1 for method in methods)
        note = "interquartile mean, 95% bootstrap interval over seeds" if several else None
        add_legend(figure, grid[0][0], 2 if asked else 1, note)
    return figure


def _draw_panels(row: Sequence[Axes], measure: str, methods: Sequence[Method]) -> None:
    for axes, by_labels in zip(row, (False, True), strict=False):
        draw_lines(axes, measure, methods, by_labels=by_labels)
    set_axes(row, measure)


def draw_lines(axes: Axes, measure: str, methods: Sequence[Method], *, by_labels: bool) -> None:
    """A line per method that has any runs, against environment steps or labels."""
    for index, method in enumerate(methods):
        own = look(index)
        if not method.curves:
            continue
        if not by_labels:
            _draw_method(axes, method, [(c.env_steps, c.values[measure]) for c in method.curves], own)
        elif all(curve.uses_labels for curve in method.curves):
            _draw_method(axes, method, [by_label(c, measure) for c in method.curves], own)
        else:  # no labels: what it ended with, to measure the others by
            ends = np.array([curve.values[measure][-1] for curve in method.curves])
            axes.axhline(float(np.mean(ends)), color=own["color"], linestyle="--", linewidth=1.2)


def set_axes(row: Sequence[Axes], measure: str) -> None:
    """Names and scales of the panels that show `measure`, the first against environment steps."""
    row[0].set_ylabel(MEASURES[measure])
    row[0].xaxis.set_major_formatter(FuncFormatter(_short))
    if measure == SUCCESS:
        row[0].set_ylim(-0.03, 1.03)
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in row:
        axes.set_xlim(left=0)


def _draw_method(axes: Axes, method: Method, lines: Sequence[tuple[Doubles, Doubles]], own: dict[str, Any]) -> None:
    x, scores = on_one_grid(lines)
    label = f"{method.name} ({len(lines)} seeds)" if len(lines) > 1 else method.name
    size = 4.0 if len(x) <= _MARKED else 0.0
    interval = bootstrap_interval([scores], generator(0, "plot"))  # [R, P]
    if len(lines) > 1:
        axes.fill_between(x, interval.low, interval.high, color=own["color"], alpha=0.18, linewidth=0)
        for own_x, own_y in lines:
            axes.plot(own_x, own_y, color=own["color"], alpha=0.25, linewidth=0.8)
    every = max(1, len(x) // 12) if len(lines) > 1 else 1
    axes.plot(x, interval.value, label=label, linewidth=2.0, markersize=size or 4.0, markevery=every, **own)


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


def by_label(curve: Curve, measure: str) -> tuple[Doubles, Doubles]:
    """The last evaluation at each number of labels: what so many labels had brought when the next ones came."""
    counts = np.unique(curve.labels)
    last = np.searchsorted(curve.labels, counts, side="right") - 1
    return counts, curve.values[measure][last]


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
