"""Searches of the toy on Ray: trials that are runs, schedulers that act, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SMALL

from rayrlhf import cli, evaluating, training
from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import read_json
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.plotting import plot_runs
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory
from rayrlhf.tuning.options import SearchConfig, save_search
from rayrlhf.tuning.search import Outcome, _searcher, best_file, search

pytestmark = pytest.mark.timeout(580)

EVALUATED = ("evaluation.interval=300", "evaluation.episodes=5", "evaluation.final_episodes=2", "checkpoint.keep=9")


def made(folder: Path, *overrides: str, name: str = "search", **options: Any) -> SearchConfig:
    """A search among runs of the toy that take seconds; evaluations after 300, 600 and 900 of 1000 steps."""
    run = load_config("toy", [*SMALL, *EVALUATED, *overrides])
    given = {
        "name": name,
        "storage": str(folder / "runs"),
        "run": run.model_dump(mode="json", by_alias=True),
        **options,
    }
    return SearchConfig.model_validate(given)


def saved_as(config: SearchConfig, folder: Path) -> Path:
    """The file that says what `config` does."""
    file = folder / "mine.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return file


def run_of(config: SearchConfig, outcome: Outcome) -> RunDirectory:
    return RunDirectory.open(config.folder / outcome.name)


def last_progress(run: RunDirectory) -> dict[str, Any]:
    progress: dict[str, Any] = read_json(checkpoint.by_age(run.checkpoints)[0] / "manifest.json")["progress"]
    return progress


def tune(*args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rayrlhf", "tune", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def halved(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchConfig, list[Outcome], list[str]]:
    """ASHA among two trials, one after the other: in the second no episode is long enough to reach the goal."""
    config = made(
        tmp_path_factory.mktemp("halved"),
        "queries.segment_length=5",
        "queries.budget=8",
        "evaluation.episodes=60",
        "total_steps=700",
        search={"p": {"grid": [{"env.horizon": 100, "sac.actor_lr": 1e-3}, {"env.horizon": 5, "sac.actor_lr": 1e-4}]}},
        searcher="grid",
        scheduler={"asha": {"factor": 2}},
        concurrent=1,
    )
    said: list[str] = []
    return config, search(config, say=said.append), said


def test_asha_stops_a_trial_that_leaves_a_checkpoint(
    halved: tuple[SearchConfig, list[Outcome], list[str]],
) -> None:
    config, (best, worse), said = halved
    assert (best.status, best.complete, best.name) == ("finished", True, "trial-00000")
    assert (worse.status, worse.complete, worse.name) == ("stopped", False, "trial-00001")
    assert worse.result is not None and worse.result["env_steps"] == 300
    stopped, finished = run_of(config, worse), run_of(config, best)
    assert stopped.summary() is None and finished.summary() is not None
    assert last_progress(stopped)["env_steps"] == 300
    assert last_progress(finished)["env_steps"] == 700
    checkpoint.verify(checkpoint.by_age(stopped.checkpoints)[0], stopped.config())
    assert any("trial-00001  stopped" in line for line in said)
    assert json.loads(stopped.events_file.read_text().splitlines()[-1])["event"] == "stopped"


def test_a_trial_is_a_run(halved: tuple[SearchConfig, list[Outcome], list[str]], tmp_path: Path) -> None:
    config, (best, worse), _ = halved
    for outcome in (best, worse):
        run = run_of(config, outcome)
        evaluated = [row["env_steps"] for row in run.metrics() if "success_rate" in row]
        assert evaluated == ([300, 600, 700] if outcome is best else [300])
        assert read_json(run.manifest_file)["command"][1:] == sys.argv[1:], "the search's, not a Ray process's"
    assert len(plot_runs([run_of(config, best).path, run_of(config, worse).path], out=tmp_path)) == 1
    assert evaluating.evaluate(run_of(config, worse).path, episodes=1)["env_steps"] == 300
    assert (
        cli.main(["export", str(run_of(config, best).path), "--format=torchscript", f"--to={tmp_path / 'p.pt'}"]) == 0
    )


def test_the_best_config_is_one_of_its_own(halved: tuple[SearchConfig, list[Outcome], list[str]]) -> None:
    config, (best, _), _ = halved
    found = load_config(str(best_file(config)))
    assert (found.env.horizon, found.sac.actor_lr) == (100, 1e-3)
    assert found.model_copy(update={"env": config.run.env, "sac": config.run.sac}) == config.run
    assert best.values == {"env.horizon": 100, "sac.actor_lr": 1e-3}


def test_a_search_that_is_over_is_not_repeated(halved: tuple[SearchConfig, list[Outcome], list[str]]) -> None:
    config, before, _ = halved
    files = {path: path.stat().st_mtime_ns for path in config.folder.glob("trial-*/checkpoints/**/*")}
    again = search(config, resume=True)
    assert [(o.name, o.status, o.result) for o in again] == [(o.name, o.status, o.result) for o in before]
    assert files == {path: path.stat().st_mtime_ns for path in config.folder.glob("trial-*/checkpoints/**/*")}


def test_what_cannot_be_resumed_is_refused(
    halved: tuple[SearchConfig, list[Outcome], list[str]], tmp_path: Path
) -> None:
    config, _, _ = halved
    with pytest.raises(UserError, match="exists: go on with it by --resume"):
        search(config)
    with pytest.raises(UserError, match="was begun with another `samples`"):
        search(config.model_copy(update={"samples": 2}), resume=True)
    with pytest.raises(UserError, match="there is no search to resume"):
        search(made(tmp_path, search={"seed": {"choice": [1]}}), resume=True)


def test_more_cpus_than_any_node_has_are_refused_before_a_trial_begins(ray_session: None, tmp_path: Path) -> None:
    config = made(tmp_path, "resources.rollout_cpus=99", search={"seed": {"choice": [1]}})
    with pytest.raises(UserError, match="a trial does not fit the cluster, no node has the 99 CPUs that rollout wants"):
        search(config)
    assert not config.folder.exists()


def test_a_trial_that_fails_is_told_and_the_others_go_on(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate at which the networks become infinite at once."""
    config = made(
        tmp_path,
        "total_steps=400",
        "queries.budget=4",
        "evaluation.interval=1000",
        search={"sac.critic_lr": {"grid": [1e38, 1e-3]}},
        searcher="grid",
    )
    assert cli.main(["tune", str(saved_as(config, tmp_path)), "--json"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])
    assert [trial["status"] for trial in told["trials"]] == ["finished", "failed"]
    assert "not finite" in told["trials"][1]["error"] and "trial-00000 failed:" in out
    assert load_config(told["best"]).sac.critic_lr == 1e-3
    assert all(Path(plot).is_file() for plot in told["plots"]) and told["plots"]


def test_a_search_that_was_killed_before_its_first_trial_begins_and_one_without_a_result_has_failed(
    ray_session: None, tmp_path: Path
) -> None:
    overrides = ["total_steps=400", "queries.budget=4", "evaluation.interval=1000"]
    config = made(tmp_path, *overrides, search={"sac.critic_lr": {"grid": [1e38]}}, searcher="grid")
    config.folder.mkdir(parents=True)
    save_search(config, config.folder / "search.yaml")
    assert cli.main(["tune", str(saved_as(config, tmp_path)), "--resume"]) == 1
    assert (config.folder / "trial-00000").is_dir()


def test_what_failed_is_tried_once_more(ray_session: None, tmp_path: Path) -> None:
    overrides = ["total_steps=400", "queries.budget=4", "evaluation.interval=1000"]
    config = made(tmp_path, *overrides, search={"sac.actor_lr": {"grid": [1e-3, 1e-4]}}, searcher="grid")
    config.folder.mkdir(parents=True)
    save_search(config, config.folder / "search.yaml")
    in_the_way = config.folder / "trial-00001"
    in_the_way.write_text("no folder")
    first = {outcome.name: outcome.status for outcome in search(config, resume=True)}
    assert first == {"trial-00000": "finished", "trial-00001": "failed"}
    in_the_way.unlink()
    assert [outcome.status for outcome in search(config, resume=True)] == ["finished"] * 2


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_a_search_that_goes_on_has_as_many_trials_at_a_time_as_it_says_now(name: str, tmp_path: Path) -> None:
    drawn = {"sac.actor_lr": {"loguniform": [1e-4, 1e-3]}}
    before, now = (
        _searcher(made(tmp_path, name=f"at-once-{number}", search=drawn, searcher=name, samples=3, concurrent=number))
        for number in (1, 2)
    )
    now.set_state(before.get_state())
    assert now.max_concurrent == 2


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    config = made(tmp_path, search={"sac.actor_lr": {"grid": [1e-3, 1e-4, 1e-5]}}, searcher="grid", concurrent=1)
    file, folder = saved_as(config, tmp_path), config.folder
    process = tune(file)
    wait_for((folder / "trial-00000" / "summary.json").exists, process)
    second = RunDirectory(folder / "trial-00001")
    wait_for(lambda: bool(checkpoint.by_age(second.checkpoints)), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    at = max(int(place.name.removeprefix("step-")) for place in checkpoint.by_age(second.checkpoints))
    assert 0 < at < 1000
    asked = {path.name: path.read_bytes() for path in second.preferences.iterdir() if path.suffix == ".parquet"}
    first = (folder / "trial-00000" / "manifest.json").read_bytes()

    again = tune(file, "--resume", "--json")
    out = again.communicate()[0]
    assert again.returncode == 0, out
    told = json.loads(out.splitlines()[-1])
    assert sorted((trial["name"], trial["status"]) for trial in told["trials"]) == [
        (f"trial-{number:05d}", "finished") for number in range(3)
    ]
    assert (folder / "trial-00000" / "manifest.json").read_bytes() == first, "a trial that had ended is not repeated"
    assert [resume["env_steps"] >= at for resume in read_json(second.manifest_file)["resumes"]] == [True]
    there = {path.name: path.read_bytes() for path in second.preferences.iterdir()}
    assert asked.items() <= there.items()
    for number in range(3):
        run = RunDirectory.open(folder / f"trial-{number:05d}")
        ids = [key for queries, _ in PreferenceDataset(run.preferences).read() for key in queries.ids]
        assert len(ids) == len(set(ids)) == 12 == last_progress(run)["labels"], "nothing is asked twice"
        steps = [row["env_steps"] for row in run.metrics()]
        assert steps == sorted(steps) and steps[-1] == 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_smoke_search_that_was_killed_ends_with_a_config_to_train(tmp_path: Path) -> None:
    """As it is shipped, on two cores."""
    smoke = Path(__file__).parents[2] / "tune_configs" / "smoke.yaml"
    process = tune(smoke, f"--storage={tmp_path}")
    folder = tmp_path / "smoke"
    wait_for(lambda: bool(list(folder.glob("trial-*/summary.json"))), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = tune(folder, "--resume", "--json")
    out = again.communicate()[0]
    assert again.returncode == 0, out
    told = json.loads(out.splitlines()[-1])
    states = [trial["status"] for trial in told["trials"]]
    assert len(states) == 6 and set(states) == {"finished", "stopped"}, "ASHA stops some"
    assert load_config(told["best"]).total_steps == 3000 and (folder / "trials.png").is_file()


@pytest.mark.slow
def test_ctrl_c_leaves_a_search_that_can_be_resumed(tmp_path: Path) -> None:
    config = made(tmp_path, search={"sac.actor_lr": {"choice": [1e-3, 1e-4]}}, samples=2, concurrent=1)
    file, folder = saved_as(config, tmp_path), config.folder
    process = tune(file)
    wait_for(lambda: bool(checkpoint.by_age(folder / "trial-00000" / "checkpoints")), process)
    process.send_signal(signal.SIGINT)
    out = process.communicate()[0]
    assert process.returncode == 130, out
    assert out.splitlines()[-1] == (f"rayrlhf: interrupted: stopped; go on with: rayrlhf tune {folder} --resume")
    assert "Traceback" not in out
    again = tune(folder, "--resume", "--json")
    out = again.communicate()[0]
    assert again.returncode == 0, out
    assert [trial["status"] for trial in json.loads(out.splitlines()[-1])["trials"]] == ["finished"] * 2
    assert read_json(folder / "trial-00000" / "manifest.json")["resumes"][0]["env_steps"] >= 300


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_median_rule_stops_and_optuna_draws(tmp_path: Path) -> None:
    config = made(
        tmp_path,
        "queries.segment_length=5",
        "queries.budget=8",
        "evaluation.episodes=60",
        "total_steps=700",
        search={"p": {"grid": [{"env.horizon": 100}, {"env.horizon": 99}, {"env.horizon": 5}]}},
        searcher="grid",
        scheduler={"median": {"min_trials": 2}},
        concurrent=1,
    )
    outcomes = search(config)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished", "stopped"]
    drawn = made(
        tmp_path,
        "total_steps=400",
        "queries.budget=4",
        name="drawn",
        search={"sac.actor_lr": {"loguniform": [1e-4, 1e-3]}, "sac.hidden": {"choice": [[8], [16, 16]]}},
        searcher="optuna",
        samples=3,
        stop={"success": 1.0},
    )
    outcomes = search(drawn)
    assert len(outcomes) == 3 and all(outcome.complete for outcome in outcomes)
    assert all(1e-4 <= run_of(drawn, outcome).config().sac.actor_lr <= 1e-3 for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_population_goes_on_from_its_best(tmp_path: Path) -> None:
    """Its trials take turns; those that go on from another carry its labels, and their own learning rates."""
    config = made(
        tmp_path,
        "total_steps=1200",
        "checkpoint.keep=2",
        search={
            "sac.actor_lr": {"loguniform": [1e-5, 3e-3]},
            "sac.batch_size": {"choice": [16, 32, 64]},
        },
        samples=4,
        scheduler={"pbt": {"interval_steps": 300, "quantile": 0.5, "resample": 0.25}},
    )
    outcomes = search(config)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4
    forked = [run for run in (run_of(config, outcome) for outcome in outcomes) if run.forks()]
    assert forked
    for run in forked:
        before = load_config(str(run.path / "former" / "000" / "config.yaml"))
        assert run.config() != before
        assert 1e-5 <= run.config().sac.actor_lr <= 3e-3
        fork, progress = run.forks()[-1], last_progress(run)
        assert progress["env_steps"] == 1200 > fork["env_steps"] >= 300
        ids = [key for queries, _ in PreferenceDataset(run.preferences).read() for key in queries.ids]
        assert len(ids) == len(set(ids)) == progress["labels"] == 12
        steps = [row["env_steps"] for row in run.metrics()]
        assert steps == sorted(steps)
    assert {path.name for path in config.folder.glob(".trial*")} == set()
    assert training.check(load_config(str(best_file(config)))) is not None
