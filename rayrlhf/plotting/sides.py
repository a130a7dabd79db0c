"""What is compared with what: the sides of a comparison, each the runs of one method, in the order they were named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rayrlhf.errors import UserError
from rayrlhf.plotting.runs import Curve, Method, methods_of, read_curve


def sides_of(paths: Sequence[Path]) -> list[Method]:
    """The sides that `paths` name; `UserError` where there are not two.

    A folder of runs is a side and gives it its name (several, where they differ in more than seed and task; without its
    name, where nothing else is compared). Runs that
    are named one by one are joined where they differ in seed or task alone, as `rayrlhf plot` does; if that would leave
    a single side, each of them is one.
    """
    found: list[tuple[int, Method]] = []
    single: list[tuple[int, Curve]] = []
    places = list(dict.fromkeys(paths))
    for place, path in enumerate(places):
        if (path / "config.yaml").is_file() or not path.is_dir():
            single.append((place, read_curve(path)))
        else:
            found += [(place, method) for method in _in_folder(path, alone=len(places) == 1)]
    found += _joined(single, alone=not found)
    sides = [method for _, method in sorted(found, key=lambda one: one[0])]
    if len(sides) < 2:
        raise UserError("there is one side alone: name two runs, or two folders of runs, to compare")
    return _told_apart(sides)


def _in_folder(folder: Path, *, alone: bool) -> list[Method]:
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not runs:
        raise UserError(
            f"{str(folder)!r} is neither a run's folder nor a folder of runs: no config.yaml in it or below"
        )
    methods = methods_of([read_curve(run) for run in runs], across_tasks=True)
    if alone:
        return methods
    name = folder.resolve().name
    return [Method(name if len(methods) == 1 else f"{name}: {method.name}", method.curves) for method in methods]


def _joined(single: Sequence[tuple[int, Curve]], *, alone: bool) -> list[tuple[int, Method]]:
    """Runs that were named one by one, as methods; each at the place of its first run."""
    place = {id(curve): number for number, curve in single}
    methods = methods_of([curve for _, curve in single], across_tasks=True)
    if alone and len(methods) == 1:
        methods = [Method("", (curve,)) for _, curve in single]
    named = [m if len(m.curves) > 1 else replace(m, name=m.curves[0].run.name) for m in methods]
    return [(min(place[id(curve)] for curve in method.curves), method) for method in named]


def _told_apart(sides: Sequence[Method]) -> list[Method]:
    """The same with a number behind names that repeat."""
    seen: Counter[str] = Counter()
    named = []
    for side in sides:
        seen[side.name] += 1
        named.append(replace(side, name=f"{side.name} ({seen[side.name]})") if seen[side.name] > 1 else side)
    return named
