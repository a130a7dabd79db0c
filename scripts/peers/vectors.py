"""How Stable-Baselines3 steps several environments: in one process, or in one for each, whichever is faster here."""

import time

import numpy as np
from environment import ACTION_DIM, HORIZON, HandlePressSide
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

EPISODES = 5
"""Of each environment, to see which is faster."""


def make(count: int, seed: int, name: str | None) -> tuple[VecEnv, str]:
    """`count` environments, and how they are stepped: as `name` says or, without one, as takes less time."""
    if name is None:
        name = min(("dummy", "subproc"), key=lambda tried: _seconds(count, tried))
    return _made(count, seed, name), name


def _made(count: int, seed: int, name: str) -> VecEnv:
    if name == "dummy":
        return make_vec_env(HandlePressSide, count, seed=seed, vec_env_cls=DummyVecEnv)
    fork = {"start_method": "fork"}  # the others import torch anew in every process: minutes for ten on two cores
    return make_vec_env(HandlePressSide, count, seed=seed, vec_env_cls=SubprocVecEnv, vec_env_kwargs=fork)


def _seconds(count: int, name: str) -> float:
    """For some episodes with random actions, from the second one on."""
    envs, rng = _made(count, 0, name), np.random.default_rng(0)
    envs.reset()
    begin = 0.0
    for step in range((1 + EPISODES) * HORIZON):
        if step == HORIZON:
            begin = time.monotonic()
        envs.step(rng.uniform(-1.0, 1.0, (count, ACTION_DIM)).astype(np.float32))
    seconds = time.monotonic() - begin
    envs.close()
    return seconds
