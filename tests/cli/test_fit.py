"""`rayrlhf fit` as a user meets it: what it writes, what it says, and what it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preference_data import dataset

from rayrlhf import cli
from rayrlhf.config.load import load_config, save_config
from rayrlhf.rewards.stored import FILE, RewardModel

SMALL = ("--reward.hidden", "16,16", "--reward.members=2", "--quiet")
COMMAND = (sys.executable, "-m", "rayrlhf", "fit")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty labels of three instructions."""
    where = tmp_path / "data"
    dataset(where, 40, instructions=("open",) * 20 + ("close | it",) * 15 + ("",) * 5)
    return where


def mistake(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert cli.main(["fit", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rayrlhf: ") and err.count("\n") == 1
    return err.removeprefix("rayrlhf: ").strip()


def test_it_needs_no_ray_and_writes_a_model_its_numbers_and_a_page(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    args = ["fit", str(data), "--out", str(out), "--epochs", "5", "--json", *SMALL]
    program = f"import sys; from rayrlhf.cli import main; code = main({args!r}); sys.exit(code or 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "metrics.json", FILE]
    assert found == {"out": str(out), **json.loads((out / "metrics.json").read_text())}
    assert (found["labels"], found["held_out"]["labels"], found["epochs"]) == (40, 8, 5)
    assert found["split"] == "by episode: no episode is on both sides"
    assert set(found["training"]["by_instruction"]) == {"", "close | it", "open"}
    model = RewardModel.load(out / FILE)
    assert (model.options.hidden, model.options.members, model.obs_dim, model.action_dim) == ((16, 16), 2, 4, 2)
    assert model.facts["labels"] == 40
    page = (out / "README.md").read_text()
    assert found["command"] in page and f"`{data}`, 40 labels of 40 questions" in page
    assert f"| held-out | 8 | {found['held_out']['accuracy']:.1%} |" in page and "close \\| it" in page


def test_options_of_a_config_are_the_defaults(data: Path, tmp_path: Path) -> None:
    config = load_config("toy", ["reward.members=4", "reward.unlabelled=2", "reward.crop=1"])
    save_config(config, tmp_path / "mine.yaml")
    out = tmp_path / "model"
    words = [str(data), "--out", str(out), "--config", str(tmp_path / "mine.yaml"), "--reward.members", "2"]
    assert cli.main(["fit", *words, "--epochs=1", "--quiet"]) == 0
    options = RewardModel.load(out / FILE).options
    assert (options.hidden, options.members, options.unlabelled, options.crop) == ((64, 64), 2, 0, 1)


def test_a_model_is_replaced_only_where_that_is_asked_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    words = [str(data), "--out", str(out), "--epochs", "1", *SMALL]
    assert cli.main(["fit", *words]) == 0
    before = (out / FILE).read_bytes()
    capsys.readouterr()
    assert "exists: choose another --out, or replace it with --overwrite" in mistake(capsys, *words)
    assert (out / FILE).read_bytes() == before
    assert cli.main(["fit", *words, "--seed", "1", "--overwrite"]) == 0
    assert (out / FILE).read_bytes() != before
    capsys.readouterr()
    assert "holds no reward model" in mistake(capsys, data, "--out", data, "--overwrite", *SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


def test_ctrl_c_leaves_the_best_so_far(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = ["--out", str(out), "--epochs", "1000000", "--held-out", "0", "--reward.hidden", "16"]
    fit = subprocess.Popen([*COMMAND, str(data), *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert fit.stderr is not None
    assert fit.stderr.readline().startswith("epoch ")
    fit.send_signal(signal.SIGINT)
    _, err = fit.communicate(timeout=60)
    assert fit.returncode == 130
    assert err.splitlines()[-1] == f"rayrlhf: interrupted: stopped; the best so far is in {out}"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["ended"] == "Ctrl-C" and metrics["epochs"] > 1
    RewardModel.load(out / FILE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--held-out", "1"], "--held-out is 1, wanted a share from 0 to below 1"),
        (["--epochs", "0"], "--epochs is 0, wanted 1 or more"),
        (["--seed", "-1"], "--seed is -1, wanted 0 or more"),
        (["--device", "tpu"], "--device is 'tpu', wanted cpu, or cuda where there is a GPU"),
        (["--reward.epochs", "5"], "reward.epochs is for runs: --epochs is how many passes there are at most"),
        (["--reward.from", "x"], "reward.from is for runs: the model starts from nothing"),
        (["--reward.warm_start", "false"], "reward.warm_start is for runs: the model starts from nothing"),
        (["--reward.adaptation", "adam"], "reward.adaptation is for runs"),
        (["--reward.unlabelled_weight", "0.5"], "reward.unlabelled_weight is for runs"),
        (["--reward.unlabelled_confidence", "0.6"], "reward.unlabelled_confidence is for runs"),
        (["--reward.meta_weight", "0.5"], "reward.meta_weight is for runs: there is no critic"),
        (["--reward.lr", "1e38"], "the fit diverged: "),
        (["--reward.membres", "5"], "unknown key 'reward.membres'; did you mean 'reward.members'?"),
        (["--reward.network", "no.such:Thing"], "reward.network 'no.such:Thing'"),
        (["--reward.crop", "6"], "reward.crop (6) leaves nothing of queries.segment_length (6)"),
        (["--split", "episodes", "--held-out", "0.001"], "40 labels cannot be divided"),
        (["--splt", "x"], "see rayrlhf fit --help"),
        (["--config", "tyo"], "did you mean 'toy'?"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in mistake(capsys, data, "--out", tmp_path / "model", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_is_no_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no dataset" in mistake(capsys, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no labels" in mistake(capsys, tmp_path / "empty")


def test_the_page_is_whatever_a_sentence_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, out = tmp_path / "da`ta", tmp_path / "model"
    hostile = "\x1b[2J\r\n```\n# Owned | x"
    dataset(where, 20, instructions=("open",) * 10 + (hostile,) * 10)
    assert cli.main(["fit", str(where), "--out", str(out), "--epochs=1", *SMALL]) == 0
    page = (out / "README.md").read_text()
    assert "\x1b" not in page + capsys.readouterr().out and "\r" not in page
    assert page.count("```") == 4 and "\n# Owned" not in page
    assert "An instruction is not read" in page


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, rayrlhf.cli; code = rayrlhf.cli.main(['fit', '--help']);"
        "sys.exit(code or any(name in sys.modules for name in ('ray', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--held-out" in done.stdout


def test_a_model_reads_instructions_only_where_each_question_has_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [data, "--out", tmp_path / "model", "--encoder", "hashing", *SMALL]
    assert mistake(capsys, *words) == f"{data} has questions without an instruction, and the reward model is told one"
    assert "--instruction_width is 0" in mistake(capsys, *words, "--instruction_width", "0")
    assert not (tmp_path / "model").exists()
