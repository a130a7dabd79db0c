"""Steps environments with a policy and returns columns. A plain class: the rollout actor is a shell around it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from rayrlhf import seeding
from rayrlhf.config import RunConfig
from rayrlhf.envs import make_env
from rayrlhf.envs.instructions import Instructions
from rayrlhf.policies import GaussianActor, make_actor
from rayrlhf.preferences.fragments import Bools, Floats, Fragment, Integers

Mode = Literal["random", "policy"]
EPISODE_BITS = 32
"""An episode's id is its environment's global index and its number within it, side by side."""


def worker_of(runner: int) -> int:
    """The number, from 0, of whoever RLlib calls `runner`: actors count from 1, and 0 is the driver, which is alone."""
    return max(0, runner - 1)


def environment_of(episode: int) -> int:
    """The global index of the environment that the episode with this id belongs to."""
    return episode >> EPISODE_BITS


def number_of(episode: int) -> int:
    """The number, within its environment, of the episode with this id."""
    return episode & ((1 << EPISODE_BITS) - 1)


@dataclass(frozen=True)
class FinishedEpisode:
    """One training episode that ended: its true return, whether any step succeeded, and its length."""

    true_return: float
    success: bool
    length: int


@dataclass(frozen=True)
class CollectReport:
    """The small half of what a collection returns; the large half is the fragment.

    version:   of the weights acted with
    episodes:  `[N]` number of the running episode in each environment
    at_start:  every environment stands at the start of an episode
    finished:  episodes that ended, in order
    """

    version: int
    num_transitions: int
    episodes: tuple[int, ...]
    at_start: bool
    finished: tuple[FinishedEpisode, ...]


class Collector:
    """`envs_per_actor` environments of one worker, acting with the newest policy it was given."""

    def __init__(self, run: RunConfig, worker: int, instructions: Instructions | None = None) -> None:
        self._run, self._worker = run, worker
        count = run.rollout.envs_per_actor
        self.indices = range(worker * count, (worker + 1) * count)
        self.env = make_env(run.env, count, seed=run.seed, indices=self.indices, instructions=instructions)
        self.policy = make_actor(run, self.env.spec.obs_dim, self.env.spec.action_dim).eval()
        self._true_return = np.zeros(count)
        self._success = np.zeros(count, dtype=bool)
        self.episodes = np.zeros(count, dtype=np.int64)
        self._steps = np.zeros(count, dtype=np.int64)
        self._obs: Floats | None = None

    def restart(self, episodes: list[int]) -> None:
        """Starts episode `episodes[i]` in environment `i`, whatever was running."""
        self.episodes = np.array(episodes, dtype=np.int64)
        self._obs = self.env.reset(episodes)
        self._steps[:] = 0
        self._true_return[:] = 0
        self._success[:] = False

    def collect(self, steps: int, mode: Mode, *, fragment: int, version: int) -> tuple[Fragment, CollectReport]:
        """`steps` transitions of each environment. `fragment` numbers this collection: its noise depends on it."""
        if self._obs is None:
            self.restart(self.episodes.tolist())
        assert self._obs is not None
        spec, envs = self.env.spec, self.env.num_envs
        rng = seeding.generator(self._run.seed, "acting", self._worker, fragment)
        obs = np.empty((steps, envs, spec.obs_dim), np.float32)
        next_obs = np.empty_like(obs)
        action = self._draw(rng, mode, (steps, envs, spec.action_dim))
        reward = np.empty((steps, envs), np.float32)
        terminated, truncated, success = (np.empty((steps, envs), bool) for _ in range(3))
        episode, step = (np.empty((steps, envs), np.int64) for _ in range(2))
        owner = np.array(self.indices, dtype=np.int64) << EPISODE_BITS
        moments: list[Floats] = []
        raw: list[tuple[Floats, Floats]] = []
        finished: list[FinishedEpisode] = []
        for t in range(steps):
            if self._run.shows_clips:
                moments.append(self.env.moments())
            if mode == "policy" and isinstance(self.policy, GaussianActor):
                raw.append(self._sample(self.policy, self._obs, action[t]))
                np.clip(raw[-1][0], -1.0, 1.0, out=action[t])
            elif mode == "policy":
                action[t] = self._act(self._obs, action[t])
            obs[t], episode[t], step[t] = self._obs, owner | self.episodes, self._steps
            result = self.env.step(action[t])
            next_obs[t], reward[t], success[t] = result.next_obs, result.reward, result.success
            terminated[t], truncated[t] = result.terminated, result.truncated
            self._obs = result.obs
            self._count(result.reward, result.success)
            ended = result.terminated | result.truncated
            if ended.any():
                finished += self._finish(np.flatnonzero(ended))
        moment = np.stack(moments) if moments else None
        raw_action, log_prob = (np.stack(column) for column in zip(*raw, strict=True)) if raw else (None, None)
        flags = terminated, truncated, success
        own = moment, raw_action, log_prob, self._standard() if raw else None
        columns = Fragment(obs, action, next_obs, reward, *flags, episode, step, *own)
        at_start = not self._steps.any()
        numbers = tuple(int(number) for number in self.episodes)
        return columns, CollectReport(version, columns.num_transitions, numbers, at_start, tuple(finished))

    def _standard(self) -> Floats | None:
        """What the policy standardises observations by, if it does."""
        if not isinstance(self.policy, GaussianActor) or self.policy.moments is None:
            return None
        return self.policy.standard().numpy()

    def _draw(self, rng: np.random.Generator, mode: Mode, shape: tuple[int, int, int]) -> Floats:
        """Uniform actions, or the standard normal noise that the policy turns into actions."""
        if mode == "random":
            return rng.uniform(-1, 1, shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32)

    def _act(self, obs: Floats, noise: Floats) -> Floats:
        with torch.inference_mode():
            return self.policy.act(torch.from_numpy(obs), torch.from_numpy(noise)).numpy()

    @staticmethod
    def _sample(policy: GaussianActor, obs: Floats, noise: Floats) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            action, log_prob = policy.sample(torch.from_numpy(obs), torch.from_numpy(noise))
        return action.numpy(), log_prob.numpy()

    def _count(self, reward: Floats, success: Bools) -> None:
        self._steps += 1
        self._true_return += reward
        self._success |= success

    def _finish(self, ended: Integers) -> list[FinishedEpisode]:
        episodes = [
            FinishedEpisode(float(self._true_return[i]), bool(self._success[i]), int(self._steps[i])) for i in ended
        ]
        self.episodes[ended] += 1
        self._steps[ended] = 0
        self._true_return[ended] = 0
        self._success[ended] = False
        return episodes
