"""A search from its file to its best config: what `rayrlhf tune` does."""

import importlib.util
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import Stopper

from rayrlhf import training
from rayrlhf.cluster import awaited, nodes, ray_session, require_cluster
from rayrlhf.config import RunConfig
from rayrlhf.config.load import overridden
from rayrlhf.config.yaml import dump_yaml
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.files import write_atomically
from rayrlhf.placement import Placement, placement_of
from rayrlhf.tracking import RunDirectory, native_stderr_to, note_stop
from rayrlhf.tuning.options import SAVED, SearchConfig, load_search, save_search
from rayrlhf.tuning.results import FINISHED, OBJECTIVE, STEPS, Result, folder_name
from rayrlhf.tuning.schedulers import domain, scheduler_of
from rayrlhf.tuning.space import check_space, count, misfit, placements_of, run_of, runs_to_check, settings
from rayrlhf.tuning.trial import check_forks, run_trial

Say = Callable[[str], None]
STATE = ".tune"
"""Folder of what Tune keeps, in the search's."""
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a run writes its own
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # seconds between two states a killed search goes on from
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in options mean the folder the search was begun in
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one trial.

    status: `finished`; `stopped` by the scheduler or by a rule of the search; `failed`; `unfinished`
    result: its last evaluation; none before the first   complete: it came as far as it was to
    """

    name: str
    values: dict[str, Any]
    status: str
    result: Result | None
    complete: bool
    error: str | None = None


def search(config: SearchConfig, *, resume: bool = False, say: Say = lambda line: None) -> list[Outcome]:
    """Carries out the search, or goes on with it; the outcomes, best first. The best config goes to `best.yaml`.

    Raises `UserError` for what cannot be, before a trial begins, and KeyboardInterrupt on Ctrl-C or SIGTERM: then the
    search can be resumed.
    """
    _check(config)
    require_cluster()
    _claim(config, resume)
    folder = RunDirectory(config.folder.absolute())
    absolute = config.model_copy(update={"storage": str(config.folder.absolute().parent)})
    started = resume
    with folder.held(), native_stderr_to(folder.path / "ray.log"):
        save_search(config, folder.path / SAVED)
        try:
            with ray_session(os.cpu_count() or 1):
                _require_room(config, say)
                started = True
                say(f"{count(config)} trials in {config.folder}")
                trials, interrupted = _tune(absolute, say, resume)
        except UserError:
            if not started:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
    outcomes = sorted((_outcome(absolute, trial) for trial in trials), key=_rank, reverse=True)
    if outcomes and outcomes[0].result is not None:
        _save_best(config, outcomes[0])
    if interrupted:
        raise KeyboardInterrupt(f"stopped; go on with: rayrlhf tune {config.folder} --resume")
    return outcomes


def _check(config: SearchConfig) -> None:
    """Refuses what can be told to be wrong without Ray's processes."""
    check_space(config)
    check_forks(config)
    if config.searcher.name == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("the searcher optuna needs the package optuna: pip install 'rayrlhf[tune]'")
    for run in runs_to_check(config):
        training.check(run)


def _require_room(config: SearchConfig, say: Say) -> None:
    """Refuses a search of which a trial fits nowhere, alone on the cluster: Tune would wait for room for ever.

    Nodes that are still to come are waited for as long as the trial's run says.
    """
    trials = placements_of(config)
    largest = max(trials, key=Placement.cpus)
    wait = 60 * config.run.resources.wait_minutes
    problem = awaited(lambda: misfit(trials, nodes()), largest.bundles(), wait, say)
    if problem is not None:
        raise UserError(f"a trial does not fit the cluster, {problem}: lower run.resources or rollout.actors")


_BEFORE_IT_BEGINS = {".lock", "ray.log"}
"""Files of a search that was killed before it was saved: there is nothing to go on with."""


def begun(config: SearchConfig) -> bool:
    """Whether there is something to go on with."""
    return _saved(config).is_file()


def _saved(config: SearchConfig) -> Path:
    return config.folder / SAVED


def _claim(config: SearchConfig, resume: bool) -> None:
    """Makes the folder of a new search, or refuses to resume what is none or another."""
    place, saved = config.folder, _saved(config)
    if not resume:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {str(place)!r}: {error.strerror}") from error
        if {path.name for path in place.iterdir()} - _BEFORE_IT_BEGINS:
            raise UserError(f"{str(place)!r} exists: go on with it by --resume, or choose another --name")
        return
    if not saved.is_file():
        raise UserError(f"there is no search to resume in {str(place)!r}")
    before = load_search(saved).model_dump(mode="json", exclude={"concurrent", "storage"})
    now = config.model_dump(mode="json", exclude={"concurrent", "storage"})
    changed = [key for key, value in now.items() if before[key] != value]
    if changed:
        raise UserError(
            f"{str(place)!r} was begun with another `{changed[0]}`: only `concurrent` may change; go on with what it "
            f"was begun with, {saved}, or choose another --name"
        )


def _tune(config: SearchConfig, say: Say, resume: bool) -> tuple[list[Trial], bool]:
    """Tune's trials, and whether the search was interrupted. `storage` is absolute: trials run anywhere."""
    command = list(sys.argv)

    def trial(drawn: dict[str, Any]) -> None:
        run_trial(drawn, search=config, command=command)

    def bundles(drawn: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(placement_of(run_of(config, drawn)).bundles())

    for logger in ("ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    lines = _Lines(config, say)
    with _environment(), lines.signals(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tune's advice to whoever writes a trainable
        analysis = tune.run(
            tune.with_resources(trial, bundles),
            name=STATE,
            storage_path=str(config.folder),
            config={name: domain(entry) for name, entry in config.search.items()},
            num_samples=config.samples,
            metric=OBJECTIVE,
            mode="max",
            search_alg=_searcher(config),
            scheduler=scheduler_of(config),
            stop=_Rules(config),
            time_budget_s=60 * config.stop.minutes if config.stop.minutes else None,
            trial_dirname_creator=_state_of,
            callbacks=[lines],
            # trials that failed are tried once more; without a state the search was killed before its first trial
            resume="AUTO+ERRORED" if resume and any((config.folder / STATE).glob("experiment_state-*")) else False,
            raise_on_failed_trial=False,
            verbose=0,
        )
    return list(analysis.trials or ()), lines.interrupted


def _state_of(trial: Trial) -> str:
    return folder_name(trial.trial_id)


def _searcher(config: SearchConfig) -> SearchAlgorithm | Searcher:
    if config.searcher.name == "optuna":
        optuna = OptunaSearch(metric=OBJECTIVE, mode="max", seed=config.searcher.seed)
        return _Limiter(optuna, config.concurrent) if config.concurrent else optuna
    return _Variants(random_state=config.searcher.seed, max_concurrent=config.concurrent or 0)


class _Variants(BasicVariantGenerator):
    """Tune's, but a search that goes on has as many trials at a time as it says now."""

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "max_concurrent": self.max_concurrent})  # type: ignore[no-untyped-call]


class _Limiter(ConcurrencyLimiter):
    """The same for a searcher."""

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "max_concurrent": self.max_concurrent})


@contextmanager
def _environment() -> Iterator[None]:
    """Tune's settings that are environment variables, for the time of a search."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def reached(config: SearchConfig, result: Result) -> bool:
    """Whether a rule of the search's ends a trial with this result."""
    stop = config.stop
    return (stop.steps is not None and result[STEPS] >= stop.steps) or (
        stop.success is not None and result["success_rate"] >= stop.success
    )


class _Rules(Stopper):
    """Ends trials by the search's rules, and those that are over: no scheduler is asked about these any more."""

    def __init__(self, config: SearchConfig) -> None:
        self._config = config

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result.get(FINISHED)) or reached(self._config, result)

    def stop_all(self) -> bool:
        return False


class _Lines(tune.Callback):
    """A line for each thing that happens; Ctrl-C and SIGTERM end the search in order."""

    def __init__(self, config: SearchConfig, say: Say) -> None:
        self._config, self._say = config, say
        self._best = 0.0
        self.interrupted = False

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Gives back the handlers that were there, Tune's among what is replaced."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def setup(self, *args: Any, **info: Any) -> None:
        """Comes after Tune has set its own handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """The first time Tune is asked to end; the second time the process ends at once."""
        self.interrupted = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGUSR1)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._say(f"{folder_name(trial.trial_id)}  begins: {in_words(settings(self._config, trial.config))}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._best = max(self._best, result[OBJECTIVE])
        self._say(
            f"{folder_name(trial.trial_id)}  {result[STEPS]:,.0f} steps  {result['labels']:.0f} labels  "
            f"success {result['success_rate']:.0%}  {OBJECTIVE} {result[OBJECTIVE]:.3g}, best {self._best:.3g}"
        )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        ended = "finished" if (trial.last_result or {}).get(FINISHED) else "stopped"
        run = RunDirectory(self._config.folder / folder_name(trial.trial_id))
        if ended == "stopped" and run.path.is_dir():
            note_stop(run, "by the scheduler, or a rule of the search")
        over = sum(other is trial or other.status in (Trial.TERMINATED, Trial.ERROR) for other in trials)
        self._say(f"{folder_name(trial.trial_id)}  {ended}; {over} of {count(self._config)} trials are over")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._say(f"{folder_name(trial.trial_id)}  failed: {_reason(trial)}")


def in_words(values: dict[str, Any]) -> str:
    """Options and their values on one line."""
    return ", ".join(f"{key} {written(value)}" for key, value in values.items())


def written(value: Any) -> str:
    """A value as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcome(config: SearchConfig, trial: Trial) -> Outcome:
    name = folder_name(trial.trial_id)
    last = dict(trial.last_result or {})
    result = (
        {key: last[key] for key in (STEPS, "success_rate", "true_return", "labels", "minutes", OBJECTIVE)}
        if (OBJECTIVE in last)
        else None
    )
    finished = bool(last.get(FINISHED))
    if trial.status == Trial.ERROR:
        status = "failed"
    elif trial.status == Trial.TERMINATED:
        status = "finished" if finished else "stopped"
    else:
        status = "unfinished"
    complete = finished or (result is not None and reached(config, result))
    error = _reason(trial) if status == "failed" else None
    return Outcome(name, settings(config, trial.config), status, result, complete, error)


def _reason(trial: Trial) -> str:
    """Why a trial failed, in one line."""
    error: BaseException | None = trial.get_pickled_error()
    cause = getattr(error, "cause", None) or error
    if cause is None:
        return "unknown"
    return str(cause) if isinstance(cause, UserError) else in_one_line(cause)


def _rank(outcome: Outcome) -> tuple[float, ...]:
    """Those that came to their end first: a final evaluation has more episodes, and an early success may be luck."""
    if outcome.result is None:
        return (-1.0,)
    result = outcome.result
    return float(outcome.complete), result[OBJECTIVE], -result["labels"], result[STEPS]


def best_config(config: SearchConfig, best: Outcome) -> RunConfig:
    """The config of the best trial as one of its own."""
    return overridden(config.run, best.values)


def _save_best(config: SearchConfig, best: Outcome) -> None:
    tree = best_config(config, best).model_dump(mode="json", by_alias=True)
    head = f"# The best trial of the search {config.name}: {best.name}, {in_words(best.values)}\n"
    write_atomically(best_file(config), head + dump_yaml(tree))


def best_file(config: SearchConfig) -> Path:
    """Where the best config is."""
    return config.folder / "best.yaml"
