"""The environment that other programs are given in scripts/side_by_side.py: that of MetaWorld, and ours."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayrlhf.config.load import load_config
from rayrlhf.envs.metaworld import MetaWorldEnv

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS / "peers"))
    return importlib.import_module("environment")


def test_the_peers_environment_is_metaworlds(environment: Any) -> None:
    importlib.import_module("check_environment").main()


def test_with_equal_seeds_it_is_the_quickstarts(environment: Any) -> None:
    options = load_config("quickstart", []).env
    assert (options.horizon, options.action_repeat) == (environment.HORIZON, environment.ACTION_REPEAT)
    theirs, ours = environment.HandlePressSide(), MetaWorldEnv(options)
    rng = np.random.default_rng(0)
    for seed in range(3):
        obs, _ = theirs.reset(seed=seed)
        np.testing.assert_array_equal(obs, ours.reset(seed).astype(np.float32))
        for _ in range(environment.HORIZON):
            action = rng.uniform(-1.0, 1.0, 4).astype(np.float32)
            obs, reward, *_, info = theirs.step(action)
            steps = [ours.step(action) for _ in range(environment.ACTION_REPEAT)]
            wanted = [step[0].astype(np.float32) for step in steps[-1:]]
            np.testing.assert_array_equal(obs, wanted[0])
            assert reward == sum(step[1] for step in steps)
            assert info["success"] == any(step[4] for step in steps)


def test_results_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    for name, seconds in (("ours_sac", 24.0), ("sb3_sac", 48.0)):
        place = tmp_path / "results" / name / "seed-0.json"
        place.parent.mkdir(parents=True)
        result = {"steps": 24_000, "labels": 0, "seconds_training": seconds, "seconds_total": 60.0, "success": 0.95}
        place.write_text(json.dumps(result))
        beside_another = result | {"timed": False, "seconds_training": 999.0, "success": 1.0}
        place.with_name("seed-1.json").write_text(json.dumps(beside_another))
    command = [sys.executable, str(SCRIPTS / "side_by_side.py"), "--folder", str(tmp_path), "--seeds", "0", "1"]
    done = subprocess.run([*command, "--only", "ours_sac", "sb3_sac"], capture_output=True, text=True, check=True)
    assert "2.00 ours_sac" in done.stdout
    table = (tmp_path / "results" / "table.md").read_text().splitlines()
    assert table[-1] == "| sb3_sac | 24,000 | 0 | 2.00 | 2.00 ours_sac | 0.8 | 2.00 ours_sac | 19 / 20 |"
