"""Stepping environments in a bare loop: policy, step, and nothing is kept."""

from typing import Any

import numpy as np
import torch
from metaworld.env_dict import ENV_CLS_MAP

from rayrlhf.envs.interface import VectorEnv
from rayrlhf.policies import Actor
from rayrlhf.preferences.fragments import Floats


class BareLoop:
    """Our environments and the run's policy, in this process."""

    def __init__(self, env: VectorEnv, policy: Actor) -> None:
        self._env, self._policy = env, policy
        self._obs = env.reset([0] * env.num_envs)

    def steps(self, count: int) -> float:
        """`count` steps of every environment; transitions made."""
        for _ in range(count):
            self._obs = self._env.step(act(self._policy, self._obs)).obs
        return float(count * self._env.num_envs)


class StockMetaWorld:
    """The `metaworld` package's own environments, stepped one after the other as its documentation shows."""

    def __init__(self, task: str, count: int, policy: Actor, *, horizon: int = 500) -> None:
        self._envs = [self._make(task, seed) for seed in range(count)]
        self._policy, self._horizon, self._step = policy, horizon, 0
        self._reset()

    @staticmethod
    def _make(task: str, seed: int) -> Any:
        env = ENV_CLS_MAP[f"{task}-v3"]()
        env._freeze_rand_vec = False  # a new start at each reset, as the runs have it
        env.seeded_rand_vec = True
        env._set_task_called = True
        env.seed(seed)
        return env

    def _reset(self) -> None:
        self._obs = np.stack([env.reset()[0] for env in self._envs]).astype(np.float32)
        self._step = 0

    def steps(self, count: int) -> float:
        """`count` steps of every environment; transitions made."""
        for _ in range(count):
            actions = act(self._policy, self._obs)
            stepped = [env.step(action) for env, action in zip(self._envs, actions, strict=True)]
            self._obs = np.stack([obs for obs, *_ in stepped]).astype(np.float32)
            self._step += 1
            if self._step == self._horizon:
                self._reset()
        return float(count * len(self._envs))


def act(policy: Actor, obs: Floats) -> Floats:
    """Random actions `[N, A]` of `policy` for `obs` `[N, O]`."""
    with torch.inference_mode():
        mean, log_std = policy(torch.from_numpy(obs))
        action: Floats = torch.tanh(mean + torch.randn_like(mean) * log_std.exp()).numpy()
    return action
