"""What schedulers know after a resume, and where mutations end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.sample import Float, Integer

from rayrlhf.config.load import load_config
from rayrlhf.tuning.options import SearchConfig
from rayrlhf.tuning.results import OBJECTIVE, STEPS, folder_name, result_of
from rayrlhf.tuning.schedulers import domain, mutation, scheduler_of, within


def made(folder: Path, **options: Any) -> SearchConfig:
    run = load_config("toy").model_dump(mode="json", by_alias=True)
    given = {"name": "search", "storage": str(folder), "run": run, "search": {"seed": {"choice": [0, 1]}}, **options}
    return SearchConfig.model_validate(given)


@dataclass(frozen=True)
class Known:
    """As much of a trial of Tune's as schedulers look at."""

    trial_id: str


def trained(config: SearchConfig, number: int, success: float, until: int = 6000) -> Known:
    """A trial with evaluations in its folder."""
    trial = Known(f"abc_{number:05d}")
    folder = config.folder / folder_name(trial.trial_id)
    folder.mkdir(parents=True)
    rows = [{"env_steps": steps, "success_rate": success, "labels": 5} for steps in range(1000, until + 1, 1000)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return trial


@pytest.mark.parametrize("options", [{"asha": {"factor": 2}}, {"median": {"min_trials": 2}}])
def test_after_a_resume_a_trial_is_compared_with_those_before(options: dict[str, Any], tmp_path: Path) -> None:
    config = made(tmp_path, scheduler=options)
    scheduler = scheduler_of(config)
    scheduler.set_search_properties(OBJECTIVE, "max")
    running = trained(config, 0, 0.9, until=3000)
    ended = [trained(config, 1, 0.8), trained(config, 2, 0.9)]
    bad, better = Known("abc_00003"), Known("abc_00004")
    for trial in (running, *ended, bad, better):
        scheduler.on_trial_add(None, trial)

    def decision(trial: Known, steps: int, success: float) -> str:
        told = result_of(config, {"env_steps": steps, "success_rate": success})
        return str(scheduler.on_trial_result(None, trial, told))

    assert decision(bad, 1000, 0.1) == TrialScheduler.STOP
    assert decision(better, 1000, 0.95) == TrialScheduler.CONTINUE
    assert decision(running, 4000, 0.95) == TrialScheduler.CONTINUE


def test_results_and_objectives(tmp_path: Path) -> None:
    row = {"env_steps": 10.0, "success_rate": 0.5, "labels": 20.0, "wall_seconds": 90.0, "true_return_mean": None}
    plain = result_of(made(tmp_path), row)
    assert (plain[STEPS], plain[OBJECTIVE], plain["minutes"], plain["true_return"]) == (10, 0.5, 1.5, 0)
    per_label = made(tmp_path, objective="success_per_label")
    assert result_of(per_label, row)[OBJECTIVE] == 0.025
    assert result_of(per_label, row | {"labels": 0.0})[OBJECTIVE] == 0, "nothing was spent, and nothing learnt from it"


def test_what_is_drawn(tmp_path: Path) -> None:
    entries = {
        "a": {"options": ["sac.actor_lr"], "loguniform": [1e-4, 1e-3]},
        "b": {"options": ["queries.per_session"], "randint": [3, 5]},
        "c": {"options": ["sac.hidden"], "grid": [[8], [16]]},
        "d": {"options": ["sac.gamma"], "choice": [0.9, 0.99, 0.999]},
    }
    config = made(tmp_path, search=entries)
    a, b, c, d = (domain(entry) for entry in config.search.values())
    assert isinstance(a, Float) and isinstance(b, Integer)
    assert {b.sample() for _ in range(200)} == {3, 4, 5}, "both ends"
    assert c == tune.grid_search([0, 1]) and set(d.categories) == {0, 1, 2}
    assert [mutation(config.search[name]) for name in "cd"] == [[0, 1], [0, 1, 2]]
    kept = within(config)({"a": 1.2e-3, "b": 2, "c": 1, "d": 0})
    assert kept == {"a": 1e-3, "b": 3, "c": 1, "d": 0}
