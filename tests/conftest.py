"""What tests of several rooms share: one Ray for the session, and small runs."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from hypothesis import settings
from postgres import Postgres, running
from queue_server import Server
from support import SMALL, Make, build, small

from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.bench.bucket import KEYS, Storage
from rayrlhf.bench.bucket import running as storage_running
from rayrlhf.cluster import start_ray
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

logging.getLogger("ray.rllib").setLevel(logging.ERROR)
settings.register_profile("tests", deadline=None)  # how long a test takes says something of the machine
settings.load_profile("tests")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray on this machine with more logical CPUs than cores, so that nothing waits for a place."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # what lies beside the tests, such as environments that break, is there in Ray's processes too
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    start_ray(8)
    yield
    ray.shutdown()


@pytest.fixture
def small_run(tmp_path: Path) -> RunConfig:
    """A small run of the toy under `tmp_path`."""
    return small(tmp_path)


@pytest.fixture(scope="session")
def toy_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of the toy that has ended. Its checkpoints: before the first label, in the middle, and the last one."""
    overrides = ["name=toy", "checkpoint.interval=250", "checkpoint.keep=9", "evaluation.final_episodes=2"]
    storage = f"storage_path={tmp_path_factory.mktemp('toy')}"
    config = load_config("toy", [*SMALL, *overrides, "evaluation.interval=500", "evaluation.episodes=2", storage])
    train(config, progress=False)
    return RunDirectory.open(Path(config.storage_path) / "toy")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Builds algorithms with a folder each, and ends them."""
    made: list[PreferenceAlgorithm] = []

    def one_more(run: RunConfig, name: str = "run", **kwargs: Any) -> PreferenceAlgorithm:
        made.append(build(run, tmp_path / name, **kwargs))
        return made[-1]

    yield one_more
    for algorithm in made:
        algorithm.stop()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Builds queues behind HTTP on loopback, and ends them."""
    made: list[Server] = []

    def one_more(**settings: object) -> Server:
        (tmp_path / "clips").mkdir(exist_ok=True)
        paths = {"database": str(tmp_path / "queue.sqlite"), "clips": str(tmp_path / "clips")}
        made.append(Server(QueueSettings(**{"requests_per_second": 1e6, "burst": 10**6, **paths, **settings})))
        return made[-1]

    yield one_more
    for server in made:
        server.stop()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """One of them."""
    return make_server()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Storage]:
    """An S3 server of the tests' own."""
    with storage_running() as storage:
        yield storage


@pytest.fixture
def storage(s3_server: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Storage:
    """It, with its keys in the environment; caches are in the test's folder."""
    for name, value in {**KEYS, "XDG_CACHE_HOME": str(tmp_path / "caches")}.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own."""
    with running() as server:
        yield server
