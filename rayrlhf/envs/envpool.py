"""MetaWorld's 50 v3 tasks in C++ through EnvPool: the fast backend, behind the same interface.

It has reward version V2 and random starts only, and it draws no pictures. Draws are EnvPool's own: an environment's
sequence of starts follows from seed, index and the episode given to `reset`, but not from the episode alone as with the
Python backend. Version 1.2.5 differs from MetaWorld 3.1.1 in three tasks (`CAVEATS`, measured in
tests/envs/test_envpool.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.broken import EnvironmentBroken, bounded_actions, require_finite
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.interface import EnvSpec, Step
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.fragments import Floats

try:
    import envpool
    from envpool.mujoco.metaworld.registration import metaworld_task_id, metaworld_v3_envs
except ImportError as error:
    raise UserError("env.backend envpool needs the package envpool: `pip install rayrlhf[fast]`") from error

OBS_DIM, ACTION_DIM, LIMIT = 39, 4, 500
_VERSION = "-v3"
_OTHER_REWARD = "EnvPool rewards {} otherwise than MetaWorld does: for comparable returns choose env.backend python"
CAVEATS = {
    "button-press-topdown-wall": _OTHER_REWARD.format("button-press-topdown-wall"),
    "dial-turn": "EnvPool's dial-turn hardly turns, even for the scripted expert: choose env.backend python",
    "door-lock": _OTHER_REWARD.format("door-lock"),
}
"""By task: what it is told of."""


def task_names() -> list[str]:
    """`assembly` to `window-close`, without the version."""
    return sorted(name.removesuffix(_VERSION) for name in metaworld_v3_envs)


def describe(options: EnvOptions) -> EnvSpec:
    """Raises `UserError` for what EnvPool lacks."""
    if options.reward_version != "v2":
        _refuse(f"env.reward_version {options.reward_version}")
    if not options.random_start:
        _refuse("env.random_start false")
    horizon = options.horizon or -(-LIMIT // options.action_repeat)
    task = options.task.removesuffix(_VERSION)
    return EnvSpec(f"metaworld/{task}", OBS_DIM, ACTION_DIM, horizon, CAVEATS.get(task, ""))


def make(options: EnvOptions, num_envs: int, draws: Draws) -> "PoolEnv":
    """`N` environments of one task in one pool."""
    return PoolEnv(options, num_envs, draws)


class PoolEnv:
    """A `VectorEnv` over one synchronous pool (one batch holds all environments).

    EnvPool by itself resets an environment in the step after its last one. Here those that ended are reset at once, so
    that a step has both the last observation of the old episode and the first of the new.
    """

    def __init__(self, options: EnvOptions, num_envs: int, draws: Draws) -> None:
        self.spec = describe(options)
        self.num_envs = num_envs
        self._options, self._draws = options, draws
        self._pool: Any | None = None
        self._episode = np.zeros(num_envs, np.int64)
        self._step = np.zeros(num_envs, np.int64)

    def reset(self, episodes: Sequence[int]) -> Floats:
        if len(episodes) != self.num_envs:
            raise ValueError(f"{len(episodes)} episodes for {self.num_envs} environments")
        self.close()
        self._episode[:], self._step[:] = episodes, 0
        with self._naming_the_broken():
            self._pool = self._open([self._draws.seed_of(i, int(episode)) for i, episode in enumerate(episodes)])
            obs, _ = self._pool.reset()
        first: Floats = obs.astype(np.float32)
        self._require_finite(first, np.zeros(self.num_envs, np.float32))
        return first

    def step(self, action: Floats) -> Step:
        name, indices, width = self.spec.name, self._draws.indices, self.spec.action_dim
        actions = bounded_actions(name, indices, self._episode, self._step, action, width)
        next_obs, reward, success = self._advance(actions)
        self._require_finite(next_obs, reward)
        self._step += 1
        truncated = self._step >= self.spec.horizon
        obs = self._restart(next_obs, np.flatnonzero(truncated))
        return Step(next_obs, obs, reward, np.zeros(self.num_envs, np.bool_), truncated, success)

    def render(self, index: int = 0, *, width: int = 480, height: int = 480) -> NDArray[np.uint8]:
        _refuse("rendering")

    def moments(self) -> Floats:
        _refuse("recorded moments, of which clips are made")

    def recall(self, index: int, seed: int, moment: Floats) -> None:
        _refuse("recorded moments, of which clips are made")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _open(self, seeds: list[int]) -> Any:
        """A new pool whose environment `i` draws from `seeds[i]`; the time limit is kept out of the way of ours."""
        return envpool.make_gymnasium(
            metaworld_task_id(self._options.task.removesuffix(_VERSION) + _VERSION),
            num_envs=self.num_envs,
            batch_size=self.num_envs,
            num_threads=min(self._options.threads, self.num_envs),
            seed=seeds,
            max_episode_steps=self.spec.horizon * self._options.action_repeat + 1,
            partially_observable=self._options.goal_hidden,
        )

    def _advance(self, action: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Next obs `[N, O]`, summed reward `[N]` and joined success `[N]` over the repeated action."""
        if self._pool is None:
            raise ValueError("reset the environments before stepping them")
        reward = np.zeros(self.num_envs, np.float64)
        success = np.zeros(self.num_envs, np.bool_)
        for _ in range(self._options.action_repeat):
            with self._naming_the_broken():
                obs, more, terminated, truncated, info = self._pool.step(action)
            reward += more
            success |= info["success"] > 0.5
            over = terminated | truncated
            if over.any():  # MetaWorld never terminates and its time limit is beyond ours
                raise self._broken(int(np.argmax(over)), "it ended its episode by itself")
        return obs.astype(np.float32), reward.astype(np.float32), success

    def _restart(self, next_obs: Floats, ended: NDArray[np.intp]) -> Floats:
        """What to act on next `[N, O]`; resets the environments whose numbers are in `ended`."""
        if not ended.size or self._pool is None:
            return next_obs
        self._episode[ended] += 1
        self._step[ended] = 0
        with self._naming_the_broken():
            first, info = self._pool.reset(ended.astype(np.int32))
        who = info["env_id"]
        obs = next_obs.copy()
        obs[who] = first
        self._require_finite(obs, np.zeros(self.num_envs, np.float32))
        return obs

    def _require_finite(self, obs: Floats, reward: Floats) -> None:
        require_finite(self.spec.name, self._draws.indices, self._episode, self._step, obs, reward)

    @contextmanager
    def _naming_the_broken(self) -> Iterator[None]:
        """Names the first environment where the pool raises, which does not tell whose fault it was."""
        try:
            yield
        except Exception as error:
            one_of = f"it or another of its pool of {self.num_envs} failed: " if self.num_envs > 1 else ""
            raise self._broken(0, one_of + in_one_line(error)) from error

    def _broken(self, i: int, reason: str) -> EnvironmentBroken:
        return EnvironmentBroken(
            self.spec.name, self._draws.indices[i], int(self._episode[i]), int(self._step[i]), reason
        )


def _refuse(what: str) -> NoReturn:
    raise UserError(f"the envpool backend cannot do {what}: use env.backend python")
