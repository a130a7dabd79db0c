"""Runs that were written by an earlier version, and kept: this one goes on with them.

`tests/data/ALGORITHM-checkpoint-FORMAT.tar.xz` is a small run of the toy, as it lay on disk when it had ended.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("archive", sorted(DATA.glob("*-checkpoint-*.tar.xz")), ids=lambda path: path.name)
def test_a_run_of_an_earlier_version_goes_on(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as written:
        written.extractall(tmp_path, filter="data")
    run = RunDirectory(tmp_path / archive.name.partition("-")[0])
    before = run.summary()
    assert before is not None
    steps = before["env_steps"]
    (old,) = run.checkpoints.glob("step-*/learner.safetensors")
    weights = load_file(old)
    command = [sys.executable, "-m", "rayrlhf", "train", "--resume", str(run.path), f"--total_steps={steps + 400}"]
    done = subprocess.run([*command, "--checkpoint.keep=9"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    after = run.summary()
    assert after is not None and after["env_steps"] >= steps + 400 and after["updates"] > before["updates"]
    answers = sum(len(said) for _, said in PreferenceDataset(run.preferences).read())
    assert after["labels"] == answers == after["budget"] >= before["labels"] > 0
    assert load_file(old).keys() == weights.keys(), "what was written is not touched"
    (new,) = (path for path in run.checkpoints.glob("step-*/learner.safetensors") if path != old)
    found = load_file(new)
    assert found.keys() == weights.keys()
    moved = [
        name for name in weights if name.startswith("networks/") and not np.array_equal(found[name], weights[name])
    ]
    assert moved
