"""What tests of several rooms share: one Ray for the session, and small runs."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = (
    "--total_steps=1000",
    "--sac.hidden=[16,16]",
    "--sac.batch_size=32",
    "--reward.hidden=[16]",
    "--reward.epochs=5",
    "--explore.seed_steps=100",
    "--explore.unsupervised_steps=200",
    "--queries.budget=12",
    "--queries.per_session=4",
    "--queries.interval=200",
    "--rollout.actors=1",
    "--rollout.fragment_length=10",
    "--tracking.tensorboard=false",
)
"""Overrides that make a run of the toy take seconds."""


logging.getLogger("ray.rllib").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray on this machine with more logical CPUs than cores, so that nothing waits for a place."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def small_run(tmp_path: Path) -> RunConfig:
    """A small run of the toy under `tmp_path`."""
    return load_config("toy", [*SMALL, f"--storage_path={tmp_path / 'runs'}"])
