"""The trials of a search in one picture: success against environment steps and against labels."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayrlhf.plotting.curves import by_label, set_axes
from rayrlhf.plotting.runs import SUCCESS, Curve
from rayrlhf.plotting.style import STYLE, add_legend, look

NAMED = 5
"""So many of the best trials have a colour and a name each; the others are grey."""


def draw_trials(title: str, curves: Sequence[Curve]) -> Figure:
    """One line per trial, best first."""
    asked = any(curve.uses_labels for curve in curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6 if asked else 5.4, 4.2), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, 2 if asked else 1, squeeze=False, sharey="row")[0])
        for rank, curve in enumerate(curves):
            own = look(rank) if rank < NAMED else {"color": "#bbbbbb", "marker": "."}
            style = {**own, "linewidth": 2.0 if rank == 0 else 1.2, "markersize": 4.0, "zorder": 3 - rank / len(curves)}
            label = curve.run.name if rank < NAMED else None
            panels[0].plot(curve.env_steps, curve.values[SUCCESS], label=label, **style)
            if asked and curve.uses_labels:
                panels[1].plot(*by_label(curve, SUCCESS), **style)
        set_axes(panels, SUCCESS)
        for axes, name in zip(panels, ("environment steps", "labels"), strict=False):
            axes.set_xlabel(name)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        note = f"the best {min(NAMED, len(curves))} of {len(curves)} trials" if len(curves) > 1 else None
        add_legend(figure, panels[0], NAMED, note)
    return figure
