"""`bench cluster`: what it costs a run to be on a Ray cluster that was there before, of one node on this machine.

Ours is `rayrlhf train` that joins the cluster, the reference `rayrlhf train` with a Ray of its own; each round starts
both, one after the other. Counted are the environment steps per second of learning, from the first row of metrics after
exploration to the last one: sessions, relabelling and checkpoints are in it, start, evaluations and end are not.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayrlhf.bench.nodes import Nodes
from rayrlhf.bench.report import Count, Report, options_from
from rayrlhf.bench.timing import Rates
from rayrlhf.config.options import Options
from rayrlhf.errors import UserError
from rayrlhf.tracking import RunDirectory

UNEVALUATED = ["evaluation.interval=100000000", "evaluation.final_episodes=1", "evaluation.videos=0"]


class ClusterBench(Options):
    """Options of `bench cluster`."""

    rounds: Count = 7
    preset: str = "quickstart"
    overrides: tuple[str, ...] = ("total_steps=8000", "queries.budget=20")


def run(**given: Any) -> dict[str, Any]:
    """Trains in turn."""
    options = options_from(ClusterBench, given, "cluster")
    report = Report("cluster")
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    rates: dict[str, list[float]] = {"cluster": [], "alone": []}
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as folder, Nodes(Path(folder)) as nodes:
        nodes.start_head(os.cpu_count() or 1)
        sides = {"cluster": nodes.environment(), "alone": alone}
        for number in range(options.rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                where = [f"storage_path={folder}", f"name={side}-{number}"]
                words = [options.preset, *UNEVALUATED, *options.overrides, *where]
                rates[side].append(_rate(RunDirectory(Path(folder) / f"{side}-{number}"), words, sides[side]))
                print(f"round {number + 1}, {side}: {rates[side][-1]:.1f} steps/s", file=sys.stderr, flush=True)
    against = "rayrlhf train with a Ray of its own"
    report.add("train", Rates(rates), "cluster", "alone", unit="environment steps/s", against=against)
    report.notes = {"rates": rates}
    return report.as_dict()


def _rate(folder: RunDirectory, words: list[str], environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "rayrlhf", "train", *words, "--quiet"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"a run failed: {done.stderr.strip()}")
    rows = [row for row in folder.metrics() if not row["exploring"]]
    steps, seconds = (float(rows[-1][name] or 0) - float(rows[0][name] or 0) for name in ("env_steps", "wall_seconds"))
    return steps / seconds
