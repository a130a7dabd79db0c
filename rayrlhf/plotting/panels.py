"""Pictures for a page: SVG without words of the user's, whose colours are the page's, light or dark.

They have no legend; the page has one.
"""

import io
import re
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rayrlhf.plotting.aligned import reliability
from rayrlhf.plotting.curves import draw_lines, set_axes
from rayrlhf.plotting.profiles import draw_shares
from rayrlhf.plotting.runs import Method
from rayrlhf.plotting.style import COLOURS, STYLE, look

_TEXT, _EDGE, _GRID = "#010203", "#040506", "#070809"
"""Stand for the page's colours while matplotlib draws."""
_VARIABLES = {
    **{colour.lower(): f"var(--side-{i})" for i, colour in enumerate(COLOURS)},
    _TEXT: "var(--text)",
    _EDGE: "var(--edge)",
    _GRID: "var(--grid)",
}
_PAGE_STYLE = {
    **STYLE,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _EDGE,
    "xtick.color": _EDGE,
    "ytick.color": _EDGE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "grid.color": _GRID,
}
_SIZE = (5.2, 3.3)


def curves_panel(task: str, measure: str, sides: Sequence[Method], *, by_labels: bool) -> str:
    """`measure` on a task against environment steps or labels, a line for each side that has runs of it."""

    def paint(axes: Axes) -> None:
        draw_lines(axes, measure, sides, by_labels=by_labels)
        set_axes([axes], measure)
        axes.set_xlabel("labels" if by_labels else "environment steps")

    return _panel(f"{task}-{measure}-{by_labels}", paint)


def profiles_panel(sides: Sequence[Method]) -> str:
    """Performance profiles of the sides that have several runs."""
    return _panel("profiles", lambda axes: draw_shares(axes, sides))


def reliability_panel(sides: Sequence[Method]) -> str:
    """Observed against predicted P(right), a line for each side that was measured; large marks have many pairs."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_EDGE, linestyle=(0, (2, 3)), linewidth=1.2)
        for index, side in enumerate(sides):
            found = reliability(side)
            if found is not None:
                predicted, observed, count = found
                own = look(index)
                axes.plot(predicted, observed, color=own["color"], linestyle=own["linestyle"], linewidth=1.6)
                axes.scatter(
                    predicted, observed, s=12 + 140 * count / count.sum(), color=own["color"], marker=own["marker"]
                )
        axes.set(xlabel="P(right) of the reward model", ylabel="share of labels for the right")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))

    return _panel("reliability", paint, size=(4.2, 4.0))


def swatch(index: int) -> str:
    """The line and the mark of the side with this number, as the panels have them."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], linewidth=2.0, markersize=6, markevery=[1], **look(index))
        axes.axis("off")

    return _panel(f"mark-{index}", paint, size=(0.5, 0.2))


def _panel(name: str, paint: Callable[[Axes], None], *, size: tuple[float, float] = _SIZE) -> str:
    # names within a picture must not meet those of the others on the page
    with mpl.rc_context({**_PAGE_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue(), re.sub(r"\W+", "-", name))


def _inline(svg: str, name: str) -> str:
    """The picture as a part of a page: scaled by it, in its colours, with ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), body)
    return body.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
