"""`rayrlhf plot --compare`: runs side by side, on one page that opens from disk.

The page asks nobody for anything: pictures and small videos are in it, there are no scripts, and a content security
policy forbids whatever a name might smuggle in. Names are text everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rayrlhf.config.protocol import WITHOUT_SUCCESS, protocol
from rayrlhf.errors import UserError
from rayrlhf.files import read_object, write_atomically
from rayrlhf.plotting import panels
from rayrlhf.plotting.aligned import alignment_cells, alignment_columns, answers_of, earlier_of, reliability
from rayrlhf.plotting.films import films
from rayrlhf.plotting.numbers import WORDS, endings, ends, improvements, minutes, number, of_task, per_cent, tasks_of
from rayrlhf.plotting.runs import ABSENT, MEASURES, RETURN, SUCCESS, Method, differing_options, in_words
from rayrlhf.plotting.sides import sides_of

NAME = "compare.html"
FILES = "compare-files"
"""Beside the page: videos that are too large to be in it."""


def compare_runs(paths: Sequence[Path], *, out: Path | None = None) -> Path:
    """Writes the page of the sides that `paths` name (`sides_of`); returns where it is.

    out: its folder; by default `plots/` of the first run
    """
    sides = sides_of(paths)
    folder = sides[0].curves[0].run.plots if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    page = folder / NAME
    environment = Environment(
        loader=PackageLoader("rayrlhf.plotting", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": per_cent, "number": number}
    write_atomically(page, environment.get_template("compare.html").render(**content(sides, folder / FILES)))
    return page


def content(sides: Sequence[Method], beside: Path) -> dict[str, Any]:
    """What the template fills in."""
    measures = [name for name in MEASURES if name != SUCCESS or _has_success(sides)]
    return {
        "sides": [_side(index, side) for index, side in enumerate(sides)],
        "tasks": tasks_of(sides),
        "endings": endings(sides),
        "curves": [_curves(sides, task, measures) for task in tasks_of(sides)],
        "profiles": _profiles(sides) if SUCCESS in measures else None,
        "improvements": improvements(sides, measures),
        "measures": MEASURES,
        "has_success": SUCCESS in measures,
        "alignment": _alignment(sides),
        "films": films(sides, beside),
        "options": _options(sides),
        "versions": _versions(sides),
        "repeated": any(_several(side) for side in sides),
    }


def _has_success(sides: Sequence[Method]) -> bool:
    curves = [curve for side in sides for curve in side.curves]
    return any(c.config.env.suite not in WITHOUT_SUCCESS or c.values[SUCCESS].any() for c in curves)


def _several(side: Method) -> bool:
    return any(len(of_task(side, task).curves) > 1 for task in tasks_of([side]))


def _side(index: int, side: Method) -> dict[str, Any]:
    runs = [
        {
            "name": curve.run.name,
            "task": curve.config.env.task,
            "seed": curve.config.seed,
            "success": per_cent(curve.values[SUCCESS][-1]),
            "true_return": number(curve.values[RETURN][-1]),
            "labels": f"{curve.labels[-1]:,.0f}",
            "env_steps": f"{curve.env_steps[-1]:,.0f}",
            "minutes": ABSENT if (spent := minutes(curve)) is None else f"{spent:,.1f}",
            "ended": curve.run.summary() is not None,
        }
        for curve in side.curves
    ]
    protocols = list(dict.fromkeys(protocol(curve.config) for curve in side.curves))
    return {"name": side.name, "swatch": Markup(panels.swatch(index)), "runs": runs, "protocols": protocols}


def _curves(sides: Sequence[Method], task: str, measures: Sequence[str]) -> dict[str, Any]:
    shown = [of_task(side, task) for side in sides]
    asked = any(curve.uses_labels for side in shown for curve in side.curves)
    figures = [
        {
            "svg": Markup(panels.curves_panel(task, measure, shown, by_labels=by_labels)),
            "alt": _in_words(shown, task, measure, "labels" if by_labels else "environment steps"),
            "caption": f"{MEASURES[measure].capitalize()} against {'labels' if by_labels else 'environment steps'}",
        }
        for measure in measures
        for by_labels in ((False, True) if asked else (False,))
    ]
    return {"task": task, "figures": figures}


def _in_words(sides: Sequence[Method], task: str, measure: str, against: str) -> str:
    """What somebody who does not see the picture is told: where each line begins and ends."""
    words = WORDS[measure]
    told = [
        f"{side.name} goes from {words(float(first))} to {words(float(last))}"
        for side in sides
        if side.curves
        for first, last in [(_mean_at(side, measure, 0), _mean_at(side, measure, -1))]
    ]
    return f"Line chart of {MEASURES[measure]} against {against} on {task}, means over runs: {'; '.join(told)}."


def _mean_at(side: Method, measure: str, place: int) -> float:
    return sum(float(curve.values[measure][place]) for curve in side.curves) / len(side.curves)


def _profiles(sides: Sequence[Method]) -> dict[str, Any] | None:
    several = [side for side in sides if len(side.curves) > 1]
    if not several:
        return None
    shares = []
    for side in several:
        scores = [score for stratum in ends(side, SUCCESS, tasks_of([side])) for score in stratum]
        above = sum(score > 0.5 for score in scores)
        shares.append(f"{side.name}: {above} of {len(scores)} runs end above 50%")
    alone = [side.name for side in sides if len(side.curves) == 1]
    svg, alt = Markup(panels.profiles_panel(sides)), f"Performance profiles of the final success. {'; '.join(shares)}."
    return {"svg": svg, "alt": alt, "alone": alone}


def _alignment(sides: Sequence[Method]) -> dict[str, Any] | None:
    cells = [alignment_cells(side) for side in sides]
    kept = [i for i, _ in enumerate(alignment_columns()) if any(row[i] != ABSENT for row in cells)]
    if not kept:
        return None
    measured = [side.name for side in sides if reliability(side) is not None]
    answers = [sorted(answers_of(side)) for side in sides]
    return {
        "rows": [(alignment_columns()[i], [row[i] for row in cells]) for i in kept],
        "reliability": Markup(panels.reliability_panel(sides)) if measured else None,
        "measured": measured,
        "answers": answers,
        "earlier": [words for side in sides for words in earlier_of(side)],
        "same_answers": len({tuple(found) for found in answers if found}) <= 1,
    }


def _options(sides: Sequence[Method]) -> list[tuple[str, list[str]]]:
    found = differing_options([side.curves[0].config for side in sides])
    return [(key, [in_words(value) for value in values]) for key, values in found.items()]


def _versions(sides: Sequence[Method]) -> list[tuple[str, list[str]]]:
    """Packages and commits that differ between the sides' first runs."""
    made_with = []
    for side in sides:
        manifest = read_object(side.curves[0].run.manifest_file, "move it away to go on") or {}
        git = manifest.get("git") or {}
        commit = str(git.get("commit", ABSENT))[:12] + (" and changes" if git.get("dirty") else "")
        made_with.append({**manifest.get("versions", {}), "commit": commit})
    every = dict.fromkeys(key for found in made_with for key in found)
    rows = [(key, [str(found.get(key, ABSENT)) for found in made_with]) for key in every]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
