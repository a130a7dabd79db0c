"""Performance profiles: the share of runs, over all tasks, that end above each level of success.

Agarwal et al. 2021 (arXiv 2108.13264), section 4.2: a curve that lies above another everywhere is the better method's;
the tails tell what means hide. The 95% bootstrap interval is pointwise and stratified by task.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rayrlhf.evaluation.statistics import performance_profile
from rayrlhf.plotting.runs import SUCCESS, Doubles, Method
from rayrlhf.plotting.style import STYLE, add_legend, look
from rayrlhf.seeding import generator

THRESHOLDS: Doubles = np.linspace(0.0, 1.0, 101)


def draw_profiles(methods: Sequence[Method]) -> Figure:
    """One line per method that has several runs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.subplots()
        draw_shares(axes, methods)
        figure.suptitle("Performance profiles of the final success", x=0.01, ha="left", fontweight="bold")
        add_legend(figure, axes, 1, "95% bootstrap interval, stratified by task")
    return figure


def draw_shares(axes: Axes, methods: Sequence[Method]) -> None:
    """The profiles of those methods that have several runs."""
    for index, method in enumerate(methods):
        if len(method.curves) > 1:
            strata = final_success(method)
            runs, tasks = sum(map(len, strata)), len(strata)
            share = performance_profile(strata, THRESHOLDS, generator(0, "profile"))
            name = f"{method.name} ({runs} runs" + (f", {tasks} tasks)" if tasks > 1 else ")")
            line = {name: value for name, value in look(index).items() if name != "marker"}
            axes.fill_between(
                THRESHOLDS, share.low, share.high, color=line["color"], alpha=0.18, linewidth=0, step="post"
            )
            axes.plot(THRESHOLDS, share.value, label=name, **line, linewidth=2.0, drawstyle="steps-post")
    axes.set(xlabel="success", ylabel="share of runs that end above", xlim=(0.0, 1.0), ylim=(-0.03, 1.03))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))


def final_success(method: Method) -> list[Doubles]:
    """The last evaluation's success of each run `[n]`, a stratum per task."""
    tasks: dict[str, list[float]] = {}
    for curve in method.curves:
        tasks.setdefault(curve.config.env.task, []).append(float(curve.values[SUCCESS][-1]))
    return [np.array(ends) for ends in tasks.values()]
