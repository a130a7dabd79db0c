"""Observations that end with what the robot is told to do."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rayrlhf.envs.draws import Draws
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.interface import EnvSpec, Step, VectorEnv
from rayrlhf.preferences.fragments import Floats


def instructed(spec: EnvSpec, width: int) -> EnvSpec:
    """The environment with `width` more numbers in its observations."""
    return replace(spec, obs_dim=spec.obs_dim + width)


class InstructedEnv:
    """A `VectorEnv` around another one: each observation `[O]` is followed by the episode's instruction `[D]`."""

    def __init__(self, env: VectorEnv, draws: Draws, instructions: Instructions) -> None:
        self.plain = env
        self.spec = instructed(env.spec, instructions.width)
        self.num_envs = env.num_envs
        self._draws, self._instructions = draws, instructions
        self._episode = np.zeros(env.num_envs, np.int64)
        self._said = np.zeros((env.num_envs, instructions.width), np.float32)

    def reset(self, episodes: Sequence[int]) -> Floats:
        obs = self.plain.reset(episodes)
        self._episode[:] = episodes
        for i in range(self.num_envs):
            self._say(i)
        return self._followed(obs)

    def step(self, action: Floats) -> Step:
        step = self.plain.step(action)
        next_obs = obs = self._followed(step.next_obs)
        ended = step.terminated | step.truncated
        if ended.any():
            for i in np.flatnonzero(ended):
                self._episode[i] += 1
                self._say(int(i))
            obs = self._followed(step.obs)
        return replace(step, next_obs=next_obs, obs=obs)

    def render(self, index: int = 0, *, width: int = 480, height: int = 480) -> NDArray[np.uint8]:
        return self.plain.render(index, width=width, height=height)

    def moments(self) -> Floats:
        return self.plain.moments()

    def recall(self, index: int, seed: int, moment: Floats) -> None:
        self.plain.recall(index, seed, moment)

    def close(self) -> None:
        self.plain.close()

    def _say(self, i: int) -> None:
        self._said[i] = self._instructions.of(self._draws, i, int(self._episode[i]))[1]

    def _followed(self, obs: Floats) -> Floats:
        return np.concatenate([obs, self._said], axis=1)
