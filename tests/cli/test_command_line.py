"""The command line as a user meets it: exit codes, one clear line per mistake, help that comes at once."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from rayrlhf import cli
from rayrlhf.cli import doctor
from rayrlhf.cli.report import result_rows
from rayrlhf.cli.train import split_overrides
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.tracking import RunDirectory, Tracker


def rayrlhf(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayrlhf", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def mistake(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """What a mistaken command line says; in this process, as starting one for each would take long."""
    assert cli.main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rayrlhf: ") and err.count("\n") == 1 and err.endswith("\n")
    return err.removeprefix("rayrlhf: ").strip()


def test_help_lists_the_verbs_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, rayrlhf.cli; code = rayrlhf.cli.main(['--help']);"
        "sys.exit(code or any(name in sys.modules for name in ('ray', 'torch', 'numpy', 'pydantic', 'tyro')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)


def test_mistakes_and_help_of_train_do_not_load_ray() -> None:
    program = (
        "import sys, rayrlhf.cli; codes = [rayrlhf.cli.main(['train', 'toy', '--sed', '1']),"
        "rayrlhf.cli.main(['train', '--help'])];"
        "sys.exit(codes != [2, 0] or 'ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_a_mistake_is_one_line_and_exit_code_2() -> None:
    done = rayrlhf("train", "quickstart", "--queries.budgte", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rayrlhf: unknown key 'queries.budgte'; did you mean 'queries.budget'?\n"


def test_debug_shows_the_traceback() -> None:
    done = rayrlhf("train", "nothing-like-it", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "UserError" in done.stderr


def test_version() -> None:
    assert rayrlhf("--version").stdout.startswith("rayrlhf 0.")


def test_no_verb_shows_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: rayrlhf VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian"], "there is no verb 'trian'; did you mean 'train' or 'pretrain'?"),
        (["zzz"], "there are train, "),
        (["train"], "which config? A preset (best, "),
        (["train", "quikstart"], "did you mean 'quickstart'"),
        (["train", "toy", "toy"], "Unrecognized"),
        (["train", "toy", "--seed", "-1"], "seed is -1, wanted a whole number of at least 0"),
        (["train", "toy", "--seed"], "--seed has no value"),
        (["train", "--resume", "no/where"], "there is no run 'no/where'"),
        (["train", "toy", "--resume"], "rayrlhf train --help"),
        (["eval"], "RUN|CHECKPOINT"),
        (["eval", "no/where"], "there is no run or checkpoint 'no/where'"),
        (["eval", ".", "--episodes", "0"], "--episodes is 0, wanted a whole number above 0"),
        (["eval", ".", "--episodes", "many"], "--episodes"),
        (["eval", ".", "--nope"], "--nope"),
        (["plot"], "no runs to draw"),
        (["plot", "no/where"], "there is no run 'no/where'"),
        (["bench"], "NAME"),
        (["bench", "learner", "stray"], "a benchmark's option is written key=value"),
        (["dataset"], "info, export, import, combine or generate"),
        (["dataset", "inof"], "did you mean 'info'?"),
        (["dataset", "info", "no/where"], "there is no dataset 'no/where'"),
        (["doctor", "--nope"], "--nope"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert words in mistake(capsys, *args)


def test_a_window_without_a_display(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "needs a display" in mistake(capsys, "eval", ".", "--render", "human")


def test_a_folder_that_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "not a run's folder" in mistake(capsys, "train", "--resume", tmp_path)
    assert "not a run's folder" in mistake(capsys, "plot", tmp_path)


def test_interrupted_is_130_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(args: list[str]) -> int:
        raise KeyboardInterrupt("go on with: rayrlhf train --resume runs/x")

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "rayrlhf: interrupted: go on with: rayrlhf train --resume runs/x\n"


def test_an_error_of_several_lines_becomes_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(args: list[str]) -> int:
        raise UserError("first\n  second")

    monkeypatch.setattr(cli, "_dispatch", failing)
    assert mistake(capsys, "train") == "first second"


@pytest.mark.parametrize(
    ("line", "own", "overrides"),
    [
        ("toy --seed 3", ["toy"], ["--seed", "3"]),
        ("--queries.budget 5 toy", ["toy"], ["--queries.budget", "5"]),
        ("toy seed=3 --json", ["toy", "--json"], ["seed=3"]),
        ("toy --rollout.synchronous --seed 3", ["toy"], ["--rollout.synchronous", "--seed", "3"]),
        ("--resume runs/a --total_steps=9", ["--resume", "runs/a"], ["--total_steps=9"]),
        ("--resume=runs/a", ["--resume=runs/a"], []),
        ("toy --teacher.beta -1 --quiet", ["toy", "--quiet"], ["--teacher.beta", "-1"]),
    ],
)
def test_words_of_the_verb_and_of_the_run(line: str, own: list[str], overrides: list[str]) -> None:
    assert split_overrides(line.split()) == (own, overrides)


def test_help_of_train_lists_every_option_with_the_presets_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "quickstart", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--explore.from none\n        Folder to start from" in text
    assert f"--queries.budget {load_config('quickstart').queries.budget}" in text
    assert "--env.goal_hidden false" in text


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with two evaluations and one session of answers."""
    made = RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}"]))
    with Tracker(made, made.config().tracking) as tracker:
        tracker.log(1000, {"success_rate": 0.2, "true_return_mean": 1.0, "labels": 0})
        tracker.log(2000, {"success_rate": 0.8, "true_return_mean": 3.0, "labels": 20})
    rng = np.random.default_rng(0)
    left, right = (
        Segments(
            obs=rng.normal(size=(2, 4, 3)).astype(np.float32),
            action=rng.uniform(-1, 1, size=(2, 4, 1)).astype(np.float32),
            reward=rng.normal(size=(2, 4)).astype(np.float32),
            success=np.zeros((2, 4), dtype=np.bool_),
            episode=np.arange(2),
            start=np.zeros(2, dtype=np.int64),
        )
        for _ in range(2)
    )
    queries = Queries(("toy/00000/00000", "toy/00000/00001"), 0, left, right)
    PreferenceDataset(made.preferences).append(queries, [Answer("toy/00000/00000", "left", "oracle")])
    return made


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_plot_writes_where_it_says(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", str(run.path), "--json"]) == 0
    assert last_line(capsys) == {"plots": [str(run.plots / "curves.png")]}
    assert (run.plots / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_dataset_goes_out_and_in(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dataset", "info", str(run.path), "--json"]) == 0
    found = last_line(capsys)
    assert (found["queries"], found["unanswered"], found["annotators"]) == (2, 1, ["oracle"])
    for ending in ("jsonl", "parquet"):
        file, copy = tmp_path / f"answers.{ending}", tmp_path / f"copy-{ending}"
        assert cli.main(["dataset", "export", str(run.path), str(file), "--json"]) == 0
        assert last_line(capsys)["queries"] == 2
        assert cli.main(["dataset", "import", str(copy), str(file), "--json"]) == 0
        assert last_line(capsys)["new_answers"] == 1
        assert cli.main(["dataset", "import", str(copy), str(file), "--json"]) == 0
        assert last_line(capsys)["new_answers"] == 0


def test_export_replaces_nothing_unasked(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("important\n")
    assert "--overwrite" in mistake(capsys, "dataset", "export", run.path, file)
    assert file.read_text() == "important\n"
    assert "--overwrite" in mistake(capsys, "dataset", "export", run.path, f"file://{file}")
    assert file.read_text() == "important\n"
    assert cli.main(["dataset", "export", str(run.path), str(file), "--overwrite"]) == 0
    assert "important" not in file.read_text()


@pytest.mark.parametrize("row", ["[1]", "[]", "7", "null", '{"env_st'])
def test_a_row_of_metrics_that_is_no_object(run: RunDirectory, capsys: pytest.CaptureFixture[str], row: str) -> None:
    run.metrics_file.write_text(f"{row}\n")
    assert "line 1: damaged" in mistake(capsys, "plot", run.path)


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: toy\nsac:\n  gama: 0.9\n")
    assert mistake(capsys, "train", file).startswith(f"{file}: unknown key 'sac.gama'")


@pytest.mark.parametrize("name", ["all.parquet", "more/all.jsonl"])
def test_export_into_the_dataset_itself(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also by a path through a link; nothing is written, and the log reads as before."""
    log = run.path / "preferences"
    before = sorted(log.rglob("*"))
    (run.path / "link").symlink_to(log)
    monkeypatch.chdir(log)
    for file in (str(log / name), name, str(run.path / "link" / name), f"../preferences/{name}"):
        assert cli.main(["dataset", "export", str(run.path), file]) == 2
        assert "must hold nothing else: write it elsewhere" in capsys.readouterr().err
    assert sorted(log.rglob("*")) == before
    assert cli.main(["dataset", "info", str(run.path)]) == 0
    assert cli.main(["dataset", "export", str(run.path), "../preferences.parquet"]) == 0


def test_export_to_an_unknown_format(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must end in .parquet, .jsonl" in mistake(capsys, "dataset", "export", run.path, tmp_path / "answers.npz")


def test_doctor_finds_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    report = last_line(capsys)
    findings = {found["name"]: found for found in report["findings"]}  # type: ignore[attr-defined]
    assert report["ready"] is True
    assert findings["ray"]["detail"].startswith("2.60")
    assert all(found["remedy"] for found in findings.values() if found["state"] != "ok")
    assert "missing" not in {found["state"] for found in findings.values()}
    assert {"numpy", "pydantic", "torch"} <= findings.keys()


WITHOUT_TORCH = """
import sys
from importlib import metadata

real = metadata.version

def version(name):
    if name in ("torch", "envpool", "dm_control", "dm-control"):
        raise metadata.PackageNotFoundError(name)
    return "0.1" if name == "tyro" else real(name)

metadata.version = version
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "ray", "pyarrow", "mujoco"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Nothing())
from rayrlhf.cli import main
sys.exit(main(["doctor", "--json"]))
"""


def test_doctor_works_where_packages_are_missing_or_too_old() -> None:
    """What most else stands on is not there, one is too old, and an extra's and a requirement's extra are missing."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    findings = {found["name"]: found for found in report["findings"]}
    assert report["ready"] is False
    assert findings["torch"]["state"] == findings["tyro"]["state"] == findings["GPU"]["state"] == "missing"
    assert findings["torch"]["remedy"].startswith("pip install 'torch")
    assert findings["tyro"]["detail"] == "0.1, wanted >=0.9"
    assert findings["drawing"]["state"] == "limited"
    assert findings["extra fast"]["state"] == findings["extra dmc"]["state"] == "limited"
    assert findings["extra dev"]["state"] == "ok"


def test_a_requirement_is_installed_with_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "dm_tree":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(doctor, "version", version)
    found = doctor._package(Requirement("ray[rllib,tune]>=2.60"))
    assert found.state == "missing" and "without dm_tree" in found.detail
    assert found.remedy == "pip install 'ray[rllib,tune]>=2.60'"
    monkeypatch.undo()
    assert doctor._package(Requirement("ray[rllib,tune]>=2.60")).state == "ok"


def test_a_benchmark_prints_its_cases(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["rounds=1", "candidates=20", "centres=10", "picks=5", "length=10", "steps=1000"]
    assert cli.main(["bench", "query", *options, "--json"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["bench"] == "query" and result["cases"].keys() == {"k_center", "disagreement"}
    for name, case in result["cases"].items():
        assert case.keys() == {"ours", "reference", "ratio", "unit", "against"}
        assert case["ratio"] == pytest.approx(case["ours"] / case["reference"])
        numbers = [f"{case[key]:,.4g}" for key in ("ours", "reference", "ratio")]
        assert any(line.split()[:4] == [name, *numbers] for line in table)


def test_a_failure_with_json_ends_with_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "quikstart", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == f"rayrlhf: {json.loads(out.splitlines()[-1])['error']}\n" and "quickstart" in err


def test_a_defect_with_json_tells_so_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "--json"])
    assert last_line(capsys) == {"error": "ZeroDivisionError"}


@pytest.mark.parametrize(
    ("suite", "rate", "said"),
    [
        ("dmc", 0.0, "none is defined by this task"),
        ("gymnasium", 0.0, "none is defined by this task"),
        ("gymnasium", 0.5, "50% of 4 episodes"),
        ("metaworld", 0.0, "0% of 4 episodes"),
    ],
)
def test_success_where_tasks_know_none(suite: str, rate: float, said: str) -> None:
    rows = dict(result_rows({"suite": suite, "success_rate": rate, "eval_episodes": 4}, "the protocol"))
    assert rows["success"] == said
