"""`bench metaworld`: methods on tasks with several seeds, as one sweep, beside what others have published.

The runs are a Tune search, several at a time, on as many GPUs as there are; the same command goes on with what was cut
off. Each run that came to its end is a Parquet file of its own in `results`: what is there is not run again, what
others ran is put beside it, and the table says what has not been run. `draw=true` runs nothing.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.bench import results, suites
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.bench.results import Result
from rayrlhf.bench.suites import Comparison, Planned, Suite, digest_of
from rayrlhf.config.load import flat as flattened
from rayrlhf.config.load import overridden
from rayrlhf.config.options import NonNegative, Options
from rayrlhf.config.protocol import protocol
from rayrlhf.config.yaml import parse_yaml
from rayrlhf.errors import UserError
from rayrlhf.evaluation.statistics import (
    bootstrap_interval,
    difference_interval,
    mann_whitney_greater,
    mann_whitney_less,
    probability_of_improvement,
)
from rayrlhf.files import write_atomically
from rayrlhf.plotting import Method, draw, draw_profiles
from rayrlhf.plotting.style import save
from rayrlhf.seeding import generator
from rayrlhf.tracking import RunDirectory
from rayrlhf.tuning.options import Dimension, SearchConfig, SearcherOptions, load_search
from rayrlhf.tuning.search import begun, search
from rayrlhf.tuning.space import FIXED

NOT_RUN = "not run"
SIGNIFICANT = 0.05


class MetaworldBench(Options):
    """Options of `bench metaworld`."""

    suite: str = "published"
    """One of those there are, or a YAML file."""
    tasks: tuple[str, ...] | None = None
    """Of the suite's; none: all."""
    methods: tuple[str, ...] | None = None
    seeds: tuple[NonNegative, ...] | None = None
    results: str = "benchmarks/results"
    """Folder of the results, in which each suite has its own."""
    storage: str = "runs/bench"
    """Folder of the runs."""
    concurrent: Count | None = None
    """Runs at a time; none: as many as there is room for."""
    overrides: tuple[str, ...] = ()
    """Of all runs, what changes no result: `overrides=[resources.gpus_per_learner=0.2]`."""
    draw: bool = False
    """Run nothing."""


def run(**given: Any) -> dict[str, Any]:
    """Runs what is missing, and sums up what is there."""
    options = options_from(MetaworldBench, given, "metaworld")
    suite = suites.load(options.suite)
    planned = suites.plan(suite, options.tasks, options.methods, options.seeds)
    name = Path(options.suite).stem
    folder = Path(options.results) / name
    _collect(planned, Path(options.storage), name, folder)  # what had ended when the command was killed
    if not options.draw:
        try:
            _run_missing(planned, options, Path(options.storage).absolute(), name, folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; what has ended is kept, and the same command goes on") from None
        finally:
            _collect(planned, Path(options.storage), name, folder)
    return _summary(suite, suites.plan(suite, None, None, None), name, folder)


def _missing(planned: Sequence[Planned], folder: Path) -> list[Planned]:
    return [run for run in planned if results.read(folder, run) is None]


def _run_missing(planned: list[Planned], options: MetaworldBench, storage: Path, name: str, folder: Path) -> None:
    """Goes on with sweeps that were cut off while they have something that is wanted, then begins one with the rest."""
    number, tried = 1, set[tuple[str, int]]()
    for place in _sweeps(storage, name):
        number = max(number, int(place.name.rpartition("-")[2]) + 1)
        before = load_search(place)
        inside = {(digest_of(config), config.seed) for config in _configs_of(before)}
        if not begun(before) or not any((run.digest, run.seed) in inside for run in _missing(planned, folder)):
            continue
        _require_same_overrides(before, options)
        _say(f"going on with {place}, whole: it has {len(inside)} runs")
        search(before.model_copy(update={"concurrent": options.concurrent}), resume=True, say=_say)
        _collect(planned, storage, name, folder)
        tried |= inside
    missing = [run for run in _missing(planned, folder) if (run.digest, run.seed) not in tried]
    if missing:
        search(_sweep(missing, options, storage, f"{name}-{number}"), say=_say)


def _require_same_overrides(sweep: SearchConfig, options: MetaworldBench) -> None:
    changes = _changes(options)
    if any(overridden(config, changes) != config for config in _configs_of(sweep)):
        raise UserError(
            f"{sweep.folder} was begun with other overrides: give the same ones, or begin anew in another storage"
        )


def _sweeps(storage: Path, name: str) -> list[Path]:
    found = [place for place in storage.glob(f"{name}-*") if place.name.rpartition("-")[2].isdigit() and place.is_dir()]
    return sorted((place for place in found if (place / "search.yaml").is_file()), key=lambda place: place.name)


def _sweep(missing: Sequence[Planned], options: MetaworldBench, storage: Path, name: str) -> SearchConfig:
    """A search over nothing but a list: each entry sets what differs between the runs."""
    configs = [overridden(run.config, _changes(options)) for run in missing]
    for run, config in zip(missing, configs, strict=True):
        if (digest_of(config), config.seed) != (run.digest, run.seed):
            raise UserError(f"overrides={list(options.overrides)} would change results, not only how they are computed")
    flats = [flattened(config.model_dump(mode="json", by_alias=True)) for config in configs]
    differing = [key for key in flats[0] if key not in FIXED and any(flat[key] != flats[0][key] for flat in flats)]
    values = tuple({key: flat[key] for key in differing or ["seed"]} for flat in flats)
    return SearchConfig(
        name=name,
        storage=str(storage),
        run=configs[0],
        search={"runs": Dimension(grid=values)},
        searcher=SearcherOptions(name="grid"),
        concurrent=options.concurrent,
    )


def _changes(options: MetaworldBench) -> dict[str, Any]:
    return dict(_assignment(text) for text in options.overrides)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"overrides: {text!r} is no `option=value`")
    return key, parse_yaml(value, "overrides")


def _configs_of(sweep: SearchConfig) -> list[Any]:
    return [overridden(sweep.run, dict(value)) for value in sweep.search["runs"].values or ()]


def _collect(planned: Sequence[Planned], storage: Path, name: str, folder: Path) -> None:
    """Stores the results of runs that have ended since."""
    wanted = {(run.digest, run.seed): run for run in _missing(planned, folder)}
    for sweep in _sweeps(storage, name):
        for place in sorted(sweep.glob("trial-*")):
            done = RunDirectory(place)
            if done.summary() is None:
                continue
            config = done.config()
            found = wanted.pop((digest_of(config), config.seed), None)
            if found is not None:
                results.store(folder, found, done)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- what is there ---


def _summary(suite: Suite, planned: Sequence[Planned], name: str, folder: Path) -> dict[str, Any]:
    there = [(run, results.read(folder, run)) for run in planned]
    found = [result for _, result in there if result is not None]
    report = Report("metaworld")
    report.notes["suite"] = name
    report.notes["not_run"] = [f"{run.task} {run.method} {run.seed}" for run, result in there if result is None]
    columns, rows = _table(suite, planned, found)
    report.notes["protocol"] = _protocols(found)
    if suite.compare is not None:
        report.notes["compared"] = _compared(suite, suite.compare, found)
    report.notes["pictures"] = [str(path) for path in _draw(suite, found, folder)]
    if found:
        write_atomically(folder / "README.md", _page(suite, name, columns, rows, found))
    return report.as_dict() | {"table": {"columns": columns, "rows": rows}}


def _table(suite: Suite, planned: Sequence[Planned], found: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Success in per cent, mean and standard deviation over seeds; how many of them ran where not all did."""
    published = suite.published
    others = list(published.columns) if published else []
    rows = []
    for task in suite.tasks:
        configs = [run.config for run in planned if run.task == task]
        cells = [_cell([r.success for r in found if (r.task, r.method) == (task, m)], suite) for m in suite.methods]
        theirs = [str(value) for value in published.rows.get(task, ())] if published else []
        labels = _each(config.queries.budget if config.mode == "preferences" else 0 for config in configs)
        rows.append(
            [task, labels, _each(config.total_steps for config in configs), *cells, *(theirs or [""] * len(others))]
        )
    overall = [_overall([r for r in found if r.method == method], suite) for method in suite.methods]
    rows.append(["all, IQM (95%)", "", "", *overall, *[""] * len(others)])
    return ["task", "labels", "steps", *suite.methods, *(f"{name} (published)" for name in others)], rows


def _each(numbers: Iterable[int]) -> str:
    """The number, or those of the methods in their order where they differ."""
    return " / ".join(f"{number:,}" for number in dict.fromkeys(numbers))


def _cell(scores: list[float], suite: Suite) -> str:
    if not scores:
        return NOT_RUN
    per_cent = 100 * np.array(scores)
    spread = f" ± {per_cent.std(ddof=1):.1f}" if len(scores) > 1 else ""
    missing = "" if len(scores) >= len(suite.seeds) else f" ({len(scores)} of {len(suite.seeds)})"
    return f"{per_cent.mean():.1f}{spread}{missing}"


def _overall(found: Sequence[Result], suite: Suite) -> str:
    """The interquartile mean over all runs that there are, and of how many; its interval where two of a task differ."""
    scores = [np.array([100 * r.success for r in found if r.task == task]) for task in suite.tasks]
    strata = [of_task for of_task in scores if len(of_task)]
    if not strata:
        return NOT_RUN
    over = bootstrap_interval(strata, generator(0, "bench"))
    several = all(len(of_task) > 1 for of_task in strata)
    interval = f" ({float(over.low):.1f} to {float(over.high):.1f})" if several else ""
    tasks = "" if len(strata) == len(suite.tasks) else f" of {len(strata)} of {len(suite.tasks)} tasks"
    return f"{float(over.value):.1f}{interval}, {len(found)} run{'s' * (len(found) > 1)}{tasks}"


# --- one method against another ---


def _compared(suite: Suite, compare: Comparison, found: Sequence[Result]) -> list[dict[str, Any]]:
    """Each method that has two runs of every task against the one, by all their runs."""

    def strata(method: str) -> list[NDArray[np.float64]]:
        own = [result for result in found if result.method == method]
        return [
            np.array([result.score(compare.measure) for result in own if result.task == task]) for task in suite.tasks
        ]

    base, rows = strata(compare.against), []
    for method in suite.methods:
        scores = strata(method)
        if method == compare.against or any(len(of_task) < 2 for of_task in (*base, *scores)):
            continue
        rng, ours, theirs = generator(0, "bench", method), np.concatenate(scores), np.concatenate(base)
        over = difference_interval(scores, base, rng)
        better, worse = mann_whitney_greater(ours, theirs, rng), mann_whitney_less(ours, theirs, rng)
        row: dict[str, Any] = {"method": method, "runs": len(ours), "of_the_other": len(theirs)}
        row |= {"improvement": probability_of_improvement(ours, theirs), "p_better": better, "p_worse": worse}
        row |= {"difference": float(over.value), "low": float(over.low), "high": float(over.high)}
        row["verdict"] = _verdict(row, compare.equal_within)
        rows.append(row)
    return rows


def _verdict(row: dict[str, Any], within: float) -> str:
    if row["p_better"] < SIGNIFICANT:
        return "beats it"
    if row["p_worse"] < SIGNIFICANT:
        return "is beaten"
    return "equals it" if -within <= row["low"] and row["high"] <= within else "neither is shown"


def _comparison(compare: Comparison, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What stands on the page; of each method all its runs count."""
    head = f"against {compare.against}, by {compare.measure.replace('_', ' ')}"
    lines = [
        "",
        f"| {head} | runs | probability of improvement | p (better) | difference of IQMs, 90% | |",
        f"|{'---|' * 6}",
    ]
    for row in rows:
        p = f"{row['p_better']:.4f}" if row["p_better"] >= 0.0001 else "< 0.0001"
        numbers = f"{row['improvement']:.2f} | {p}"
        over = f"{row['difference']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        lines.append(f"| {row['method']} | {row['runs']} | {numbers} | {over} | {row['verdict']} |")
    return [
        *lines,
        "",
        f"Better: one-sided Mann-Whitney, p < {SIGNIFICANT:g}. Equal: the interval is within {compare.equal_within:g}.",
    ]


def _draw(suite: Suite, found: Sequence[Result], folder: Path) -> list[Path]:
    pictures: list[Path] = []
    for task in suite.tasks:
        methods = _methods(suite, [result for result in found if result.task == task])
        if methods:
            pictures += save(draw(task, methods), folder / f"curves-{task}", (".png",))
    whole = _methods(suite, found)
    if any(len(method.curves) > 1 for method in whole):
        pictures += save(draw_profiles(whole), folder / "profiles", (".png",))
    return pictures


def _methods(suite: Suite, found: Sequence[Result]) -> list[Method]:
    curves = {name: tuple(result.curve for result in found if result.method == name) for name in suite.methods}
    return [Method(name, own) for name, own in curves.items() if own]


def _protocols(found: Sequence[Result]) -> list[str]:
    """A line for each protocol that results were made under, with their seeds."""
    seeds: dict[str, set[int]] = {}
    for result in found:
        line = f"Protocol: {protocol(result.curve.config)}, success over {result.facts['episodes']} episodes at the end"
        seeds.setdefault(line, set()).add(result.seed)
    return [f"{line}, seeds {', '.join(map(str, sorted(own)))}." for line, own in seeds.items()]


def _page(
    suite: Suite, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], found: Sequence[Result]
) -> str:
    """The table as it is committed beside the results."""
    lines = [f"# Suite {name}: success in per cent", ""]
    lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    lines += ["", *_protocols(found)]
    if suite.published is not None:
        lines.append(f"Published: {suite.published.source}.")
    lines.append(
        "Mean and standard deviation over seeds; the last row is the interquartile mean over all runs with its 95% "
        "bootstrap interval, stratified by task, where each task has two runs or more."
    )
    if suite.compare is not None:
        lines += _comparison(suite.compare, _compared(suite, suite.compare, found))
    lines += ["", "| method | task | seed | success | minutes | computed on | date | command |", f"|{'---|' * 8}"]
    for result in found:
        facts = result.facts
        cells = (result.method, result.task, result.seed, f"{result.success:.0%}", f"{facts['wall_seconds'] / 60:.1f}")
        lines.append(f"| {' | '.join(map(str, (*cells, facts['device'], facts['date'])))} | `{facts['command']}` |")
    return "\n".join(lines) + "\n"
