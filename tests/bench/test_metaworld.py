"""The benchmark's sweep on the toy: results accumulate, what is there is not run again, and the table says the rest."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import SMALL

from rayrlhf.bench import run, suites
from rayrlhf.bench.metaworld import _compared, _comparison
from rayrlhf.bench.results import Result
from rayrlhf.bench.suites import Comparison, digest_of
from rayrlhf.config.load import overridden
from rayrlhf.errors import UserError

SUITE = f"""
run: {json.dumps({key.removeprefix("--"): value for key, value in (word.split("=") for word in SMALL)})}
methods:
  PEBBLE: {{base: toy, evaluation.interval: 500, evaluation.final_episodes: 2, evaluation.episodes: 2}}
  silent: {{base: toy, teacher.name: silent, evaluation.interval: 500, evaluation.final_episodes: 2}}
tasks:
  point: {{queries.budget: 8}}
  point-terminating: {{}}
seeds: [0, 1]
published:
  source: nobody
  columns: [theirs]
  rows:
    point: [99.9 ± 0.1]
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace('"[', "[").replace(']"', "]"))
    return path


def command(suite: Path, *words: str) -> list[str]:
    folder = suite.parent
    places = [f"suite={suite}", f"results={folder / 'results'}", f"storage={folder / 'runs'}"]
    return [sys.executable, "-m", "rayrlhf", "bench", "metaworld", *places, *words, "--json"]


def measured(suite: Path, *words: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(command(suite, *words), capture_output=True, text=True, check=False, cwd=suite.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_results_accumulate(suite: Path) -> None:
    """Some runs first, then others, cut off and resumed; nothing is run twice, and a change of options is noticed."""
    found, _ = measured(suite, "methods=[PEBBLE]", "tasks=[point]", "seeds=[0]")
    assert len(found["notes"]["not_run"]) == 7
    [only] = (suite.parent / "results").rglob("*.parquet")
    assert only.relative_to(suite.parent / "results") == Path("tiny/PEBBLE/point/seed-0.parquet")
    stamp = only.stat().st_mtime_ns
    rows = pq.read_table(only).to_pylist()
    assert [row["env_steps"] for row in rows] == [500, 1000] and rows[-1]["labels"] == 8
    row = dict(zip(found["table"]["columns"], found["table"]["rows"][0], strict=True))
    assert row["silent"] == "not run" and row["PEBBLE"].endswith("(1 of 2)")
    assert (row["labels"], row["theirs (published)"]) == ("8", "99.9 ± 0.1")

    cut = subprocess.Popen(command(suite, "tasks=[point]"), stderr=subprocess.PIPE, text=True, cwd=suite.parent)
    assert cut.stderr is not None
    for line in cut.stderr:
        if "finished" in line:
            break
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait()
    cut.stderr.close()
    time.sleep(2)  # Ray's processes end by themselves
    found, _ = measured(suite, "draw=true")
    assert len(found["notes"]["not_run"]) < 7, "what had ended before the kill is there"
    found, said = measured(suite, "tasks=[point]")
    assert len(found["notes"]["not_run"]) == 4 and all("terminating" in run for run in found["notes"]["not_run"])
    assert only.stat().st_mtime_ns == stamp
    assert sorted(path.name for path in (suite.parent / "runs").iterdir()) == ["tiny-1", "tiny-2"]
    page = (suite.parent / "results" / "tiny" / "README.md").read_text()
    assert "| not run |" in page and "Protocol: toy, 50 steps an episode, oracle teacher" in page
    assert "success over 2 episodes at the end, seeds 0, 1." in page and "Published: nobody" in page
    assert (suite.parent / "results" / "tiny" / "curves-point.png").stat().st_size > 10_000

    overall = dict(zip(found["table"]["columns"], found["table"]["rows"][-1], strict=True))["PEBBLE"]
    assert overall.endswith("), 2 runs of 1 of 2 tasks"), overall

    again, said = measured(suite, "tasks=[point]")
    assert "trials in" not in said and again["table"] == found["table"]
    _written_by_an_older_version(only)
    assert measured(suite, "draw=true")[0]["table"] == found["table"]
    suite.write_text(suite.read_text().replace("queries.budget: 8", "queries.budget: 4"))
    other, _ = measured(suite, "draw=true")
    assert len(other["notes"]["not_run"]) == 8, "results of other options are no results of this suite"


def _written_by_an_older_version(file: Path) -> None:
    """Which lacked an option."""
    table = pq.read_table(file)
    facts = json.loads(table.schema.metadata[b"rayrlhf"])
    del facts["config"]["ppo"], facts["config"]["sac"]["n_step"]
    facts["digest"] = "another"
    pq.write_table(table.replace_schema_metadata({"rayrlhf": json.dumps(facts)}), file)


def _results(method: str, scores: list[float]) -> list[Result]:
    return [Result("point", method, seed, None, score, {}) for seed, score in enumerate(scores)]  # type: ignore[arg-type]


def test_methods_are_compared_as_the_suite_says() -> None:
    """Better, worse, equal, and what shows nothing; a method with one run is left out."""
    rng = np.random.default_rng(0)
    suite = suites.load("toy_methods").model_copy(
        update={
            "methods": {name: {} for name in ("base", "better", "worse", "same", "wide", "one")},
            "compare": Comparison(against="base", equal_within=0.1),
        }
    )
    base = rng.normal(0.5, 0.02, 10).tolist()
    found = {
        "base": base,
        "better": [score + 0.3 for score in base],
        "worse": [score - 0.3 for score in base],
        "same": rng.normal(0.5, 0.02, 10).tolist(),
        "wide": [0.0, 1.0, 0.2, 0.8, 0.5, 0.1, 0.9, 0.45, 0.55, 0.5],
        "one": [1.0],
    }
    assert suite.compare is not None
    rows = _compared(suite, suite.compare, [result for name, own in found.items() for result in _results(name, own)])
    verdicts = {row["method"]: row["verdict"] for row in rows}
    assert verdicts == {"better": "beats it", "worse": "is beaten", "same": "equals it", "wide": "neither is shown"}
    better = rows[0]
    assert better["improvement"] == 1.0 and better["difference"] == pytest.approx(0.3)
    assert better["p_better"] == pytest.approx(1 / math.comb(20, 10))
    page = "\n".join(_comparison(suite.compare, rows))
    assert "| better | 10 | 1.00 | < 0.0001 | 0.30 (" in page and "within 0.1." in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"suite": "publisht"}, "did you mean 'published'"),
        ({"tasks": ("window-opn",)}, "did you mean 'window-open'"),
        ({"methods": ("TAMER",)}, "there are PEBBLE"),
        ({"seeds": (99,)}, "there are 0, 1, 2, 3, 4"),
        ({"overrides": ("seed=7",)}, "would change results"),
        ({"overrides": ("sac.gamma=0.5",)}, "would change results"),
        ({"overrides": ("sac.gamma",)}, "is no `option=value`"),
    ],
)
def test_mistakes_are_one_line(words: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run("metaworld", results=str(tmp_path / "results"), storage=str(tmp_path / "runs"), **words)


@pytest.mark.parametrize("name", suites.names())
def test_suites_can_be_run(name: str) -> None:
    """Every run has a config that is right, and no two the same; where it is computed makes no other run."""
    suite = suites.load(name)
    planned = suites.plan(suite, None, None, None)
    assert len(planned) == len(suite.tasks) * len(suite.methods) * len(suite.seeds)
    assert len({(each.digest, each.seed) for each in planned}) == len(planned)
    one = planned[0]
    assert digest_of(overridden(one.config, {"resources.gpus_per_learner": 0.5, "name": "x"})) == one.digest
    assert suite.published is None or set(suite.published.rows) <= set(suite.tasks)
