"""Configs load, save and round-trip; every mistake is one line that says what to do."""

from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rayrlhf.config import RunConfig
from rayrlhf.config.fields import groups, keys
from rayrlhf.config.load import load_config, preset_names, preset_summary, save_config
from rayrlhf.errors import UserError


def complaint(name: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(name, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert load_config(str(tmp_path)) == config, "a run's folder stands for its config"
    assert preset_summary(name).endswith((".", ")"))


def test_pebble_metaworld_writes_out_the_defaults() -> None:
    assert load_config("pebble_metaworld") == RunConfig()


def test_oracle_differs_from_pebble_in_the_mode_alone() -> None:
    assert load_config("sac_oracle") == load_config("pebble_metaworld", ["mode=oracle"])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**40),
    lr=st.floats(1e-12, 1e3, exclude_min=True),
    hidden=st.lists(st.integers(1, 4096), min_size=1, max_size=4),
    task=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
    horizon=st.none() | st.integers(50, 10**6),
)
@example(seed=0, lr=1e-5, hidden=[1], task="1e5", horizon=None)
@example(seed=0, lr=1e22, hidden=[1], task="none", horizon=None)
@example(seed=0, lr=1.0, hidden=[1], task="1_000", horizon=None)
def test_round_trip_holds_for_any_value(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lr: float, hidden: list[int], task: str, horizon: int | None
) -> None:
    assume(all(part.strip() for part in task.split(",")))  # commas lie between tasks
    config = RunConfig.model_validate(
        {
            "seed": seed,
            "name": task,
            "sac": {"actor_lr": lr, "hidden": hidden},
            "env": {"task": task, "horizon": horizon},
        }
    )
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    save_config(config, path)
    assert load_config(str(path)) == config


@pytest.mark.parametrize(
    "words",
    [["--queries.budget", "70"], ["--queries.budget=70"], ["queries.budget=70"], ["--queries.budget", "7_0"]],
)
def test_the_ways_to_write_an_override(words: list[str]) -> None:
    assert load_config("toy", words).queries.budget == 70


def test_overrides_are_read_by_the_options_type() -> None:
    words = "--rollout.synchronous --sac.actor-lr 1e-4 --sac.hidden 32,16 --name 2024"
    more = "--explore.from runs/a --env.horizon none"
    config = load_config("pebble_metaworld", [*words.split(), *more.split()])
    assert config.rollout.synchronous is True
    assert config.sac.actor_lr == 1e-4
    assert config.sac.hidden == (32, 16)
    assert config.name == "2024"
    assert config.explore.from_ == "runs/a"
    assert config.env.horizon is None
    for text in ("@scratch/runs", "[x", "*x:Y", "a: b", "'"):
        assert load_config("toy", ["--storage_path", text]).storage_path == text
    assert load_config("toy", ["--tracking.wandb", "off"]).tracking.wandb == "off"
    assert load_config("toy", ["--sac.hidden", "[8, 8]"]).sac.hidden == (8, 8)
    assert load_config("toy", ["--sac.hidden", "64"]).sac.hidden == (64,)


def test_the_last_override_wins() -> None:
    assert load_config("toy", ["--seed", "1", "--seed", "2"]).seed == 2


def test_unknown_keys_offer_the_nearest() -> None:
    assert complaint("toy", "--queries.budgte", "5") == "unknown key 'queries.budgte'; did you mean 'queries.budget'?"
    for group in ("sac", "ppo", "reward"):
        assert f"'{group}.batch_size'" in complaint("toy", "batch_size=3")
    assert "'explore.from'" in complaint("toy", "explore.form=x")
    assert "see rayrlhf train --help" in complaint("toy", "zzzzqqq=1")
    assert "group of options" in complaint("toy", "sac=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("queries.budget=many", "queries.budget is 'many', wanted a whole number above 0"),
        ("queries.budget=-5", "queries.budget is -5, wanted a whole number above 0"),
        ("queries.budget=0", "queries.budget is 0, wanted a whole number above 0"),
        ("total_steps=0", "total_steps is 0, wanted a whole number above 0"),
        ("queries.budget=2.5", "queries.budget is 2.5, wanted a whole number above 0"),
        (
            "sac.adam_betas=1,0.999",
            "sac.adam_betas is 1, wanted a list of 2 values, each a number of at least 0 and below 1",
        ),
        ("sac.gamma=1.5", "sac.gamma is 1.5, wanted a number of at least 0 and of at most 1"),
        ("sac.actor_lr=0", "sac.actor_lr is 0, wanted a number above 0"),
        ("sac.actor_lr=.nan", "sac.actor_lr is nan, wanted a number above 0"),
        ("sac.hidden=64,x", "sac.hidden is 'x', wanted a list, each a whole number above 0"),
        ("env.random_start=maybe", "env.random_start is 'maybe', wanted true or false"),
        ("env.horizon=-1", "env.horizon is -1, wanted a whole number above 0 or none"),
        (
            "queries.schedule=linaer",
            "queries.schedule is 'linaer', wanted one of constant, linear, exponential, hyperbolic; "
            "did you mean 'linear'?",
        ),
    ],
)
def test_wrong_values_name_key_given_and_wanted(override: str, message: str) -> None:
    assert complaint("toy", override) == message


def test_true_is_no_number() -> None:
    assert "seed is true, wanted a whole number" in complaint("toy", "seed=true")


def test_options_that_contradict_each_other() -> None:
    assert "no segment would fit an episode" in complaint("toy", "queries.segment_length=60")
    assert "leaves nothing" in complaint("toy", "total_steps=900")
    assert "choose a multiple" in complaint("toy", "resources.learners=3", "sac.batch_size=64")
    assert "log_std_min" in complaint("toy", "sac.log_std_min=2")
    assert "too small for exploration" in complaint("toy", "sac.replay_capacity=100")
    assert "equal parts" in complaint("toy", "resources.gradient_parts=3")
    for learners, wrong in ((3, "ppo.batch_size=99"), (2, "rollout.actors=3"), (2, "ppo.batch_size=99")):
        assert "choose a multiple" in complaint("toy_ppo", f"resources.learners={learners}", wrong)
    assert "one learner at a time" in complaint("toy_ppo", "resources.learners=2", "rollout.actors=0")
    assert "wants one width" in complaint("toy", "sac.critic_blocks=1", "sac.hidden=[]")
    assert "wants one width" in complaint("toy", "sac.critic_blocks=1", "sac.critic_hidden=[8,16]")
    assert "cannot share a GPU" in complaint("toy", "resources.learners=2", "resources.gpus_per_learner=0.5")
    assert "ppo.batch_size (500) is more than the 400 steps" in complaint("toy_ppo", "ppo.batch_size=500")
    assert "leaves nothing after explore.unsupervised_steps (2000)" in complaint("toy_ppo", "total_steps=900")


def test_overrides_without_a_value() -> None:
    assert complaint("toy", "--seed") == "--seed has no value; wanted a whole number of at least 0"
    assert complaint("toy", "--seed", "--name", "x").startswith("--seed has no value")
    assert "unexpected argument 'stray'" in complaint("toy", "stray")


def test_unknown_preset_and_missing_file(tmp_path: Path) -> None:
    assert "did you mean 'quickstart'" in complaint("quikstart")
    assert "presets: " in complaint("zzz")
    missing = tmp_path / "none.yaml"
    assert complaint(str(missing)) == f"cannot read config {str(missing)!r}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [1, 2", "line 1"),
        ("seed: 1\nseed: 2\n", "line 2, column 1: not valid YAML: key 'seed' is given twice"),
        ("- a\n- b\n", "wanted `key: value` lines, found list"),
        ("env:\n  tsak: x\n", "unknown key 'env.tsak'; did you mean 'env.task'?"),
        ("env: 3\n", "'env' is a group of options"),
        ("seed: {}\n", "seed is {}, wanted a whole number"),
        ("base: quikstart\n", "did you mean 'quickstart'"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in complaint(str(path))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "not a text file" in complaint(str(tmp_path / "mine.yaml"))


def test_base_is_overridden_by_the_file_and_the_file_by_overrides(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("base: toy\nseed: 5\nsac:\n  gamma: 0.5\n")
    (tmp_path / "child.yaml").write_text("base: parent.yaml\nsac.gamma: 0.6\ncheckpoint:\n  # nothing set\n")
    config = load_config(str(tmp_path / "child.yaml"), ["seed=6"])
    assert (config.env.suite, config.sac.gamma, config.seed) == ("toy", 0.6, 6)


def test_bases_that_go_round_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert "leads back to itself" in complaint(str(tmp_path / "a.yaml"))


def test_every_key_is_listed_with_its_group() -> None:
    assert keys()["explore.from"].help.startswith("Folder to start from")
    assert {name.rpartition(".")[0] for name in keys()} == set(groups())


def test_a_group_with_a_name_is_set_by_it() -> None:
    """`--teacher human --teacher.wait`, and `teacher: human` in a file."""
    config = load_config("toy", ["--teacher", "human", "--teacher.wait"])
    assert (config.teacher.name, config.teacher.wait, config.asks_people) == ("human", True, True)
    assert not load_config("toy", ["--teacher", "human", "--mode", "oracle"]).asks_people
    assert load_config("toy", ["--teacher", "a_plugin"]).teacher.name == "a_plugin", "which may be installed elsewhere"
