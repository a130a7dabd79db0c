"""`bench serve part=policy`: actions over HTTP, and how much of the time for one is the network's.

Ours is the endpoint as `rayrlhf serve` starts it, one replica, asked by clients in another process; the reference is
the served network's forward pass alone, in a loop, on one thread: the ratio is the share of a busy replica's time that
acting itself takes. Then checkpoints are exchanged under load, and the requests that fail are counted.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.data import ray_session
from rayrlhf.bench.http_load import Clients, Load
from rayrlhf.bench.program import program
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import Side, alternate, confined, torch_threads
from rayrlhf.config import EnvOptions, ExploreOptions, RolloutOptions, RunConfig, SacOptions
from rayrlhf.policies import DeployedPolicy
from rayrlhf.serving.address import free_port
from rayrlhf.serving.apps import policy
from rayrlhf.serving.local import served
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import load_newest

HOST = "127.0.0.1"
WATCH_SECONDS = 0.2
WARM_UP_SECONDS = 1.0


class ServePolicyBench(BenchOptions):
    """Options of `bench serve part=policy`."""

    seconds: float = 5.0
    """Of each load."""
    clients: Count = 16
    """Connections at once under load."""
    batch: Count = 256
    """Observations of a batched request."""
    hidden: tuple[Count, ...] = (256, 256, 256)
    swaps: Count = 8
    """Checkpoints that are exchanged under load."""
    suite: str = "metaworld"
    task: str = "drawer-open"
    gather_seconds: float = 0.0


def run(**given: Any) -> dict[str, Any]:
    """Makes checkpoints of an untrained run, serves them and measures."""
    options = options_from(ServePolicyBench, given, "serve part=policy")
    report = Report("serve_policy")
    with torch_threads(options.threads), tempfile.TemporaryDirectory(prefix="rayrlhf-bench-") as folder:
        run_folder, spare = _checkpoints(options, Path(folder))
        _measure(report, options, run_folder, spare)
        return report.as_dict()


def _checkpoints(options: ServePolicyBench, folder: Path) -> tuple[RunDirectory, list[Path]]:
    """A run's folder with one checkpoint in it, and newer ones that lie elsewhere until they are wanted."""
    config = RunConfig(
        storage_path=str(folder),
        name="run",
        env=EnvOptions.model_validate({"suite": options.suite, "task": options.task, "horizon": 100}),
        sac=SacOptions(hidden=options.hidden, batch_size=32, replay_capacity=50_000),
        explore=ExploreOptions(seed_steps=40_000),
        rollout=RolloutOptions(actors=0, fragment_length=10),
    )
    run = RunDirectory.create(config)
    later = folder / "later"
    later.mkdir()
    with ray_session(), program(config) as algorithm:
        _save(algorithm, run.checkpoints)
        return run, [_save(algorithm, later) for _ in range(options.swaps)]


def _save(algorithm: Pebble, folder: Path) -> Path:
    algorithm.train()
    place = checkpoint.folder_for(folder, algorithm.progress.env_steps)
    algorithm.save_checkpoint(str(place), shared_rows=True)
    return place


def _measure(report: Report, options: ServePolicyBench, run: RunDirectory, spare: list[Path]) -> None:
    settings = PolicySettings(
        models={"policy": str(run.path)},
        watch=True,
        watch_seconds=WATCH_SECONDS,
        gather_seconds=options.gather_seconds,
    )
    forward = load_newest(run.path).deployed()
    port = free_port(HOST, 0)
    one = [0.1] * load_newest(run.path).spec.obs_dim
    bodies = {"single": {"obs": one}, "batched": {"obs": [one] * options.batch}}

    def load(kind: str, clients: int) -> Load:
        body = json.dumps(bodies[kind]).encode()
        return Load(HOST, port, "/v1/act", body, clients, options.seconds)

    with served(policy(settings), HOST, port, name="policy"), Clients() as clients:
        clients.run(Load(HOST, port, "/v1/act", json.dumps(bodies["single"]).encode(), 4, WARM_UP_SECONDS))
        latency = clients.run(load("single", 1))
        single = clients.run(load("single", options.clients))
        batched = clients.run(load("batched", min(4, options.clients)))
        swapped = clients.start(load("single", options.clients))
        versions = _swap(run, spare, options.seconds)
        swap = swapped.result()
    alone = _forward_rates(forward, options, len(one))
    report.cases["single"] = Case(
        single.per_second,
        alone["single"],
        "requests/s",
        f"the forward pass of one observation, {options.clients} clients",
    )
    report.cases["batched"] = Case(
        batched.per_second * options.batch,
        alone["batched"] * options.batch,
        "actions/s",
        f"the forward pass of {options.batch} observations, {min(4, options.clients)} clients",
    )
    report.notes |= {
        "one_client": latency.row(),
        "single": single.row(),
        "batched": batched.row(),
        "swap": {**swap.row(), "checkpoints": versions, "first_failure": swap.first_failure},
        "network_share_of_one_request": 1.0 / alone["single"] / (latency.milliseconds(0.5) / 1000),
    }


def _swap(run: RunDirectory, spare: list[Path], seconds: float) -> int:
    """Has newer checkpoints appear while clients ask, one after another; how many there were."""
    pause = seconds / (len(spare) + 1)
    for place in spare:
        time.sleep(pause)
        place.rename(run.checkpoints / place.name)
    return len(spare)


def _forward_rates(policy: DeployedPolicy, options: ServePolicyBench, width: int) -> dict[str, float]:
    def side(rows: int) -> Side:
        obs = torch.zeros(rows, width)

        def work() -> float:
            with torch.inference_mode():
                for _ in range(100):
                    policy.act(obs, None)
            return 100.0

        return work

    with confined(options.threads):
        rates = alternate({"single": side(1), "batched": side(options.batch)}, rounds=options.rounds)
    return {name: rates.median(name) for name in ("single", "batched")}
