"""`bench serve part=policy`: actions over HTTP, and how much of the time for one is the network's.

Ours is the endpoint as `rayrlhf serve` starts it, one replica, asked by clients in another process; the reference is
the served network's forward pass alone, in a loop, on one thread: the ratio is the share of a busy replica's time that
acting itself takes. Then checkpoints are exchanged under load, and the requests that fail are counted.
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import uvicorn

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.data import ray_session
from rayrlhf.bench.http_load import Answers, Clients, Load
from rayrlhf.bench.program import program
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import Side, alternate, confined, torch_threads
from rayrlhf.config import EnvOptions, ExploreOptions, RolloutOptions, RunConfig, SacOptions
from rayrlhf.policies import DeployedPolicy
from rayrlhf.serving.address import free_port
from rayrlhf.serving.apps import policy
from rayrlhf.serving.policy import build_app
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.running import serving
from rayrlhf.serving.shelf import Shelf
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
    trained = load_newest(run.path)
    one = [0.1] * trained.spec.obs_dim
    settings = PolicySettings(
        models={"policy": str(run.path)},
        watch=True,
        watch_seconds=WATCH_SECONDS,
        gather_seconds=options.gather_seconds,
    )
    port = free_port(HOST, 0)
    single = Load(HOST, port, "/v1/act", _body(one), options.clients, options.seconds)
    few = min(4, options.clients)
    found: dict[str, Answers] = {}
    with Clients() as clients:
        with ray_session(), serving(policy(settings), "policy", HOST, port):
            clients.run(replace(single, seconds=WARM_UP_SECONDS))
            found["one_client"] = clients.run(replace(single, clients=1))
            found["single"] = clients.run(single)
            found["batched"] = clients.run(replace(single, body=_body([one] * options.batch), clients=few))
            swapped = clients.start(single)
            _swap(run, spare, options.seconds)
            found["swap"] = swapped.result()
        with _without_serve(settings) as plain:
            found["single_without_serve"] = clients.run(replace(single, port=plain))
    alone = _forward_rates(trained.deployed(), options, len(one))
    rate = {name: answers.per_second for name, answers in found.items()}
    many = f"{options.clients} clients"
    report.cases["single"] = Case(rate["single"], alone["single"], "requests/s", f"its forward pass alone; {many}")
    report.cases["batched"] = Case(
        rate["batched"] * options.batch,
        alone["batched"] * options.batch,
        "actions/s",
        f"its forward pass of {options.batch} alone; {few} clients",
    )
    against = f"the same application in one process without Serve; {many}"
    report.cases["single_without_serve"] = Case(rate["single"], rate["single_without_serve"], "requests/s", against)
    report.notes |= {name: dict(answers.row()) for name, answers in found.items()}
    report.notes["swap"] |= {"versions": len(_versions(found["swap"])), "first_failure": found["swap"].first_failure}
    report.notes["network_share_of_one_request"] = 1000 / alone["single"] / found["one_client"].milliseconds(0.5)


def _body(obs: list[Any]) -> bytes:
    return json.dumps({"obs": obs}).encode()


def _versions(answers: Answers) -> set[str]:
    return {json.loads(body)["version"] for body in answers.bodies}


@contextmanager
def _without_serve(settings: PolicySettings) -> Iterator[int]:
    """The application in a thread of this process, at the port that is yielded."""
    port = free_port(HOST, 0)
    shelf = Shelf(settings.models)
    server = uvicorn.Server(uvicorn.Config(build_app(settings, shelf), port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def _swap(run: RunDirectory, spare: list[Path], seconds: float) -> None:
    """Has newer checkpoints appear while clients ask, one after another, the last one well before they end."""
    pause = seconds / (len(spare) + 2)
    for place in spare:
        time.sleep(pause)
        place.rename(run.checkpoints / place.name)


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
