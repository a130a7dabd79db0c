"""What benchmarks run on: MetaWorld's shapes, real fragments of it, and the run's own learner as RLlib builds it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayrlhf.algorithms.collector import Collector
from rayrlhf.algorithms.env_runner import spaces_of
from rayrlhf.algorithms.learner import PreferenceLearner
from rayrlhf.algorithms.make import algorithm_config
from rayrlhf.bench.reference_sac import TensorReplay
from rayrlhf.cluster import start_ray
from rayrlhf.config import ExploreOptions, ResourceOptions, RunConfig, SacOptions
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.preferences.trajectories import TrajectoryStore

OBS_DIM, ACTION_DIM = 39, 4
"""MetaWorld's."""


@contextmanager
def ray_session(cpus: int = 16) -> Iterator[None]:
    """Ray on this machine for the time of a benchmark, unless it runs already.

    It is told of more CPUs than there are: sides wait for each other and are alive at the same time.
    """
    mine = not ray.is_initialized()
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    if mine:
        start_ray(cpus)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def random_fragment(
    rows: int, *, seed: int = 0, obs_dim: int = OBS_DIM, action_dim: int = ACTION_DIM, episode: int = 500
) -> Fragment:
    """`rows` made-up transitions of one environment, `[rows, 1, ...]`, in episodes of `episode` steps."""
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((rows + 1, 1, obs_dim), dtype=np.float32)
    flags = np.zeros((3, rows, 1), dtype=bool)
    step = np.arange(rows, dtype=np.int64)[:, None]
    return Fragment(
        obs=obs[:-1],
        action=rng.uniform(-1, 1, (rows, 1, action_dim)).astype(np.float32),
        next_obs=obs[1:],
        reward=rng.uniform(0, 1, (rows, 1)).astype(np.float32),
        terminated=flags[0],
        truncated=step % episode == episode - 1,
        success=flags[2],
        episode=step // episode,
        step=step % episode,
    )


def real_fragment(run: RunConfig, rows: int, *, envs: int = 4) -> Fragment:
    """At least `rows` transitions of the run's environments under random actions, `[T, envs, ...]`."""
    collector = Collector(
        run.model_copy(update={"rollout": run.rollout.model_copy(update={"envs_per_actor": envs})}), 0
    )
    try:
        fragment, _ = collector.collect(-(-rows // envs), "random", fragment=0, version=0)
    finally:
        collector.env.close()
    return fragment


def store_of(fragment: Fragment) -> TrajectoryStore:
    """A trajectory store that holds all of `fragment`."""
    store = TrajectoryStore(10_000, obs_dim=fragment.obs.shape[2], action_dim=fragment.action.shape[2])
    store.add(fragment)
    return store


def learner_of(run: RunConfig, *, device: str = "cpu") -> Any:
    """The run's learner as the algorithm builds it, in this process."""
    gpus = 1.0 if device == "cuda" else 0.0
    run = run.model_copy(update={"resources": run.resources.model_copy(update={"gpus_per_learner": gpus})})
    config = algorithm_config(run).of(run)
    config.debugging(log_level="ERROR")
    group = config.build_learner_group(spaces={DEFAULT_MODULE_ID: spaces_of(OBS_DIM, ACTION_DIM)})
    learner: PreferenceLearner = next(iter(group.foreach_learner(lambda learner: learner))).get()
    return learner


def filled_learner(fragment: Fragment, sac: SacOptions, *, threads: int, device: str, **options: Any) -> Any:
    """A learner of PEBBLE whose replay holds `fragment` and no more; `options` are others of the run."""
    rows = fragment.num_transitions
    run = RunConfig(
        sac=sac.model_copy(update={"replay_capacity": rows}),
        total_steps=max(rows, 2),
        resources=ResourceOptions(threads=threads),
        **{"explore": ExploreOptions(seed_steps=0, unsupervised_steps=0), **options},
    )
    learner = learner_of(run, device=device)
    learner.reward_with("true")
    learner.insert([fragment])
    return learner


def as_replay(fragment: Fragment, device: str = "cpu") -> TensorReplay:
    """The fragment's transitions for the plain loop."""

    def flat(column: Any) -> torch.Tensor:
        merged = column.reshape(-1, *column.shape[2:]).astype(np.float32)
        return torch.from_numpy(merged).to(device)

    columns = (fragment.obs, fragment.action, fragment.reward, fragment.next_obs, fragment.terminated)
    return TensorReplay(*(flat(column) for column in columns))
