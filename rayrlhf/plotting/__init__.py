"""Pictures of runs: learning curves, and profiles over seeds and tasks."""

from collections.abc import Sequence
from pathlib import Path

from rayrlhf.errors import UserError
from rayrlhf.plotting.curves import draw
from rayrlhf.plotting.profiles import draw_profiles
from rayrlhf.plotting.runs import Curve, Method, methods_of, read_curve
from rayrlhf.plotting.style import save
from rayrlhf.plotting.trials import draw_trials

__all__ = ["Curve", "Method", "draw", "draw_profiles", "methods_of", "plot_runs", "plot_trials", "read_curve"]


def plot_runs(paths: Sequence[Path], *, out: Path | None = None, svg: bool = False) -> list[Path]:
    """Draws the curves of each task and, where seeds or tasks repeat, profiles; returns where the pictures are.

    out: folder for the pictures; by default `plots/` of the first run
    svg: write SVG beside PNG
    """
    if not paths:
        raise UserError("no runs to draw: name their folders, such as runs/*")
    curves = [read_curve(Path(path)) for path in dict.fromkeys(paths)]
    folder = curves[0].run.plots if out is None else out
    endings = (".png", ".svg") if svg else (".png",)
    tasks = dict.fromkeys(curve.config.env.task for curve in curves)
    written: list[Path] = []
    for task in tasks:
        figure = draw(task, methods_of([curve for curve in curves if curve.config.env.task == task]))
        written += save(figure, folder / ("curves" if len(tasks) == 1 else f"curves-{task.replace('/', '-')}"), endings)
    methods = methods_of(curves, across_tasks=True)
    if any(len(method.curves) > 1 for method in methods):
        written += save(draw_profiles(methods), folder / "profiles", endings)
    return written


def plot_trials(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Draws the trials of the search in `folder`, best first; returns where the picture is."""
    return save(draw_trials(folder.name, [read_curve(path) for path in paths]), folder / "trials", (".png",))
