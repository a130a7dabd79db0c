"""A search's file: what it may say, and the one line about each mistake."""

from pathlib import Path

import pytest

from rayrlhf import cli, training
from rayrlhf.errors import UserError
from rayrlhf.placement import placement_of
from rayrlhf.tuning.options import SearchConfig, load_search, save_search
from rayrlhf.tuning.space import check_space, count, misfit, placements_of, run_of, runs_to_check, settings
from rayrlhf.tuning.trial import check_forks

SHIPPED = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))
LR = "search: {sac.actor_lr: {loguniform: [1e-4, 1e-3]}}\n"


def read(folder: Path, text: str) -> SearchConfig:
    file = folder / "mine.yaml"
    file.write_text(text)
    return load_search(file)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_what_is_shipped_is_right(file: Path, tmp_path: Path) -> None:
    search = load_search(file)
    check_space(search)
    check_forks(search)
    assert search.name == file.stem
    for run in runs_to_check(search):
        training.check(run)
        assert placement_of(run).cpus() <= 2.0
    assert misfit(placements_of(search), [{"CPU": 2.0}]) is None
    save_search(search, tmp_path / "again.yaml")
    assert load_search(tmp_path / "again.yaml") == search


def test_a_search_is_named_by_its_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever, though its file says where it is as seen from where it was begun."""
    search = read(tmp_path, f"run: toy\nstorage: runs\n{LR}")
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    save_search(search, folder / "search.yaml")
    monkeypatch.chdir(folder.parent)
    assert load_search(Path("mine")) == search.model_copy(update={"storage": str(folder.parent)})


def test_all_of_them_are_seen() -> None:
    assert [file.stem for file in SHIPPED] == ["benchmark", "pbt", "pebble", "prefppo", "smoke"]


def test_values_are_drawn_by_their_index_and_set_what_they_name(tmp_path: Path) -> None:
    search = read(
        tmp_path,
        "run: {base: toy, seed: 4}\nsearcher: random\nsamples: 2\nsearch:\n"
        "  lr: {options: [sac.actor_lr, sac.critic_lr], loguniform: [1e-4, 1e-3]}\n"
        "  sac.hidden: {choice: [[8], [16, 16]]}\n"
        "  queries.per_session: {randint: [10, 20]}\n"
        "  task: {grid: [{env.horizon: 50, queries.budget: 100}, {env.horizon: 40, queries.budget: 60}]}\n",
    )
    drawn = {"lr": 2e-4, "sac.hidden": 1, "queries.per_session": 12, "task": 1}
    run = run_of(search, drawn)
    assert (run.sac.actor_lr, run.sac.critic_lr, run.sac.alpha_lr) == (2e-4, 2e-4, search.run.sac.alpha_lr)
    assert run.sac.hidden == (16, 16) and run.queries.per_session == 12 and run.seed == 4
    assert (run.env.horizon, run.queries.budget) == (40, 60)
    assert settings(search, {"task": 0}) == {"env.horizon": 50, "queries.budget": 100}
    assert count(search) == 4
    assert len(list(runs_to_check(search))) == 2 * (3 + 2 + 2), "of each task: ends, values, and a point inside"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: toy\nserch: {}\n", "unknown key 'serch'; did you mean 'search'"),
        ("run: tyo\n" + LR, "run: no preset and no file is called 'tyo'; did you mean 'toy'?"),
        ("run: {base: toy, sac: {actor_lrr: 1}}\n" + LR, "unknown key 'sac.actor_lrr'; did you mean 'sac.actor_lr'"),
        ("run: toy\n", "search is missing"),
        ("run: toy\nsearch: {sac.actor_lrr: {grid: [1]}}", "unknown key 'sac.actor_lrr'; did you mean 'sac.actor_lr'"),
        ("run: toy\nsearch: {sac.actor_lr: {gird: [1]}}", "sac.actor_lr.gird'; did you mean 'grid'?"),
        ("run: toy\nsearch: {sac.actor_lr: {grid: [1e-3, -1]}}", "sac.actor_lr is -1, wanted a number above 0"),
        ("run: toy\nsearch: {sac.actor_lr: {uniform: [-1, 1]}}", "sac.actor_lr is -1.0, wanted a number above 0"),
        ("run: toy\nsearch: {sac.gamma: {uniform: [0.9, 1.1]}}", "sac.gamma is 1.1, wanted a number of at least 0"),
        ("run: toy\nsearch: {sac.gamma: {uniform: [0.9, 0.8]}}", "uniform wants its lower end first"),
        ("run: toy\nsearch: {sac.batch_size: {uniform: [32, 64]}}", "sac.batch_size is 44.2"),
        ("run: toy\nsearch: {sac.gamma: {grid: [0.9], choice: [0.8]}}", "wants one of grid, choice"),
        ("run: toy\nsearch: {sac.gamma: {}}", "and has none"),
        ("run: toy\nsearch: {sac.gamma: 3}", "search.sac.gamma is 3, wanted keys, of options, grid"),
        ("run: toy\nsearch: {p: {grid: [{seed: 1}, {sac.gamma: 1}]}}", "must all set the same"),
        ("run: toy\nsearch: {p: {grid: [{seed: 1}]}, seed: {grid: [2]}}", "seed is searched under 'p' already"),
        ("run: toy\nsearch: {name: {grid: [a, b]}}", "name is each trial's own"),
        ("run: toy\nsearch: {total_steps: {grid: [6000, 900]}}", r"total_steps \(900\) leaves nothing"),
        ("run: toy\nsearcher: grid\n" + LR, "search.sac.actor_lr: the searcher grid takes grid, not loguniform"),
        ("run: toy\nsearcher: optuna\nsearch: {seed: {grid: [1]}}", "write choice instead of grid"),
        ("run: toy\nsearcher: optona\n" + LR, "searcher.name is 'optona', wanted one of grid, random, optuna"),
        ("run: toy\nobjective: reward_model\n" + LR, "objective is 'reward_model', wanted one of success_rate"),
        ("run: toy\nsamples: 0\n" + LR, "samples is 0, wanted a whole number above 0"),
        ("run: toy\nscheduler: ashaa\n" + LR, "unknown key 'scheduler.ashaa'; did you mean 'asha'?"),
        ("run: toy\nscheduler: {asha: {grce: 1}}\n" + LR, "scheduler.asha.grce'; did you mean 'grace_steps'?"),
        ("run: toy\nscheduler: {asha: {}, median: {}}\n" + LR, "one scheduler, not asha and median"),
        ("run: toy\nscheduler: {asha: {grace_steps: 6000}}\n" + LR, r"asha.grace_steps \(6000\) must be below"),
        ("run: toy\nscheduler: pbt\n" + LR, "scheduler.pbt.interval_steps is missing"),
        ("run: toy\nscheduler: {pbt: {interval_steps: 1000}}\n" + LR, "raise samples"),
        (
            "run: toy\nsamples: 2\nscheduler: {pbt: {interval_steps: 1000}}\nsearch: {seed: {choice: [1, 2]}}",
            "search.seed: under the scheduler pbt seed cannot be searched",
        ),
        ("run: {base: toy, evaluation: {interval: 6000}}\nscheduler: asha\n" + LR, "leaves no evaluation before"),
        ("run: {base: toy, teacher: human}\n" + LR, "the teacher human answers one run at a time"),
        ("run: {base: toy, mode: oracle}\nobjective: success_per_label\n" + LR, "the mode oracle asks for none"),
        ("run: {base: toy, explore: {save: there}}\n" + LR, "explore.save"),
        ("run: toy\nstorage: s3://bucket/runs\n" + LR, "storage is 's3://bucket/runs': wanted a folder"),
        ("- 3", "wanted `key: value` lines, found list"),
        ("run: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        search = read(tmp_path, text)
        check_space(search)
        check_forks(search)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", ["", "none", "{}"])
def test_a_scheduler_may_be_none(word: str, tmp_path: Path) -> None:
    search = read(tmp_path, f"run: toy\nscheduler: {word}\n{LR}")
    assert search.scheduler.asha is search.scheduler.median is search.scheduler.pbt is None


def test_a_trial_that_fits_no_node_is_refused_with_its_driver(tmp_path: Path) -> None:
    search = read(tmp_path, "run: toy\n" + LR)
    assert misfit(placements_of(search), [{"CPU": 1.2}]) is not None, "1.6 CPUs with the driver"
    assert placement_of(search.run).misfit([{"CPU": 1.2}]) is None
    wide = read(tmp_path, "run: toy\nsearch: {rollout.actors: {grid: [1, 9]}}")
    problem = misfit(placements_of(wide), [{"CPU": 2.0}])
    assert problem is not None and "rollout" in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file"),
        ("run: toy\nscheduler: ashaa\n" + LR, "did you mean 'asha'?"),
        ("run: {base: toy, total_steps: 1200}\n" + LR, "queries.budget=150 takes 6 sessions"),
        ("run: {base: toy, env: {task: pont}}\n" + LR, "unknown task 'pont'"),
    ],
)
def test_the_command_line_says_it_in_one_line_and_makes_nothing(
    text: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    assert cli.main(["tune", str(file), "--storage", str(tmp_path / "runs")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err
    assert not (tmp_path / "runs").exists()
