"""Tune's schedulers as a search's file asks for them, and what they know after a resume."""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from rayrlhf.tuning.options import Dimension, SearchConfig
from rayrlhf.tuning.results import STEPS, Result, folder_name, past

Past = Callable[[str], list[Result]]
FACTORS = (0.8, 1.2)
"""What a parameter that goes on is multiplied by (Jaderberg et al. 2017)."""


def scheduler_of(search: SearchConfig) -> TrialScheduler:
    """The scheduler of `search`. Time is environment steps."""
    options, first = search.scheduler, search.run.evaluation.interval

    def remembered(name: str) -> list[Result]:
        return past(search, name)

    if options.asha is not None:
        grace = options.asha.grace_steps or first
        # nothing is stopped for having come to its end: its final evaluation follows
        return _Asha(
            remembered,
            time_attr=STEPS,
            max_t=max(search.run.total_steps, grace),
            grace_period=grace,
            reduction_factor=options.asha.factor,
            stop_last_trials=False,
        )
    if options.median is not None:
        grace = options.median.grace_steps or first
        return _Median(
            remembered,
            time_attr=STEPS,
            grace_period=grace,
            min_samples_required=options.median.min_trials,
            min_time_slice=search.run.total_steps,  # steps aside for trials that have not begun, once
        )
    if options.pbt is not None:
        return PopulationBasedTraining(
            time_attr=STEPS,
            perturbation_interval=options.pbt.interval_steps,
            hyperparam_mutations={name: mutation(entry) for name, entry in search.search.items()},
            quantile_fraction=options.pbt.quantile,
            resample_probability=options.pbt.resample,
            perturbation_factors=FACTORS,
            custom_explore_fn=within(search),
            log_config=False,
        )
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def domain(entry: Dimension) -> Any:
    """What Tune draws for an entry: see `space`."""
    if entry.grid is not None:
        return tune.grid_search(list(range(len(entry.grid))))
    return _drawn(entry)


def mutation(entry: Dimension) -> Any:
    """What population based training draws for an entry anew; a list is one whose neighbours it may take."""
    return list(range(len(entry.values))) if entry.values is not None else _drawn(entry)


def within(search: SearchConfig) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Keeps what was multiplied within its range: Tune does not."""

    def keep(drawn: dict[str, Any]) -> dict[str, Any]:
        kept = dict(drawn)
        for name, entry in search.search.items():
            if entry.bounds is not None:
                low, high = entry.bounds
                kept[name] = min(max(kept[name], low), high)
        return kept

    return keep


def _drawn(entry: Dimension) -> Any:
    if entry.choice is not None:
        return tune.choice(list(range(len(entry.choice))))
    if entry.randint is not None:
        return tune.randint(entry.randint[0], entry.randint[1] + 1)
    if entry.loguniform is not None:
        return tune.loguniform(*entry.loguniform)
    assert entry.uniform is not None
    return tune.uniform(*entry.uniform)


class _Remembers(TrialScheduler):
    """Tune saves no scheduler: after a resume one begins anew, and is told what all trials have done before."""

    def __init__(self, past: Past, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._past = past

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        for result in self._past(folder_name(trial.trial_id)):
            self.on_trial_complete(tune_controller, trial, result)
            super().on_trial_add(tune_controller, trial)


class _Asha(_Remembers, AsyncHyperBandScheduler):
    """With a memory."""


class _Median(_Remembers, MedianStoppingRule):
    """With a memory."""
