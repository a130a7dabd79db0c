"""From answers alone to a policy, by the commands: a run's answers, a model fitted to them, a run trained by that."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayrlhf.rewards.stored import FILE

TOY = (
    "toy",
    "--rollout.actors",
    "0",
    "--rollout.synchronous",
    "--evaluation.final_episodes",
    "10",
    "--quiet",
    "--json",
)


def told(folder: Path, *words: str) -> dict[str, Any]:
    """What a command says as its last line."""
    command = [sys.executable, "-m", "rayrlhf", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_policy_from_answers_alone(tmp_path: Path) -> None:
    """What was learnt from answers through a pickle orders segments as the true reward does, in another run."""
    told(tmp_path, "train", *TOY, "--name", "asked", "--total_steps", "4000", "--queries.per_session", "40")
    told(tmp_path, "dataset", "export", "runs/asked", "answers.pickle", "--json")
    assert told(tmp_path, "dataset", "import", "mine", "answers.pickle", "--json")["new_answers"] >= 120
    fitted = told(tmp_path, "fit", "mine", "--config", "toy", "--quiet", "--json")
    assert fitted["held_out"]["accuracy"] > 0.8
    steps = ("--name", "fixed", "--total_steps", "4000", "--seed", "5")
    summary = told(tmp_path, "train", *TOY, *steps, "--reward.from", "reward_models/mine")
    assert (summary["labels"], summary["reward_model"]) == (0, "reward_models/mine")
    assert summary["reward_model_accuracy"] > 0.75
    nothing = told(
        tmp_path, "train", *TOY, *steps, "--teacher", "silent", "--queries.budget", "50", "--name", "nothing"
    )
    assert summary["true_return_mean"] > nothing["true_return_mean"]
    assert (tmp_path / "runs" / "fixed" / FILE).read_bytes() == (
        tmp_path / "reward_models" / "mine" / FILE
    ).read_bytes()
