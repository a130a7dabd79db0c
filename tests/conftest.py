"""What tests of several rooms share: one Ray for the session, and small runs."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from support import Make, build, small

from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config.schema import RunConfig
from rayrlhf.training import LOCAL, set_ray_defaults

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

logging.getLogger("ray.rllib").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray on this machine with more logical CPUs than cores, so that nothing waits for a place."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    set_ray_defaults()
    # what lies beside the tests, such as environments that break, is there in Ray's processes too
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    ray.init(LOCAL, num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def small_run(tmp_path: Path) -> RunConfig:
    """A small run of the toy under `tmp_path`."""
    return small(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Builds algorithms with a folder each, and ends them."""
    made: list[Pebble] = []

    def one_more(run: RunConfig, name: str = "run", **kwargs: Any) -> Pebble:
        made.append(build(run, tmp_path / name, **kwargs))
        return made[-1]

    yield one_more
    for algorithm in made:
        algorithm.stop()
