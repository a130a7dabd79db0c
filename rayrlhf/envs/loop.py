"""`N` single environments stepped one after the other in this process, behind the vector interface."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayrlhf.envs.broken import EnvironmentBroken, bounded_actions, require_finite
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.interface import EnvSpec, Step
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.fragments import Floats

if TYPE_CHECKING:  # it imports MuJoCo, which not every environment has
    from rayrlhf.envs.scene import View

Outcome = tuple[NDArray[Any], float, bool, bool, bool]
"""Observation `[O]`, reward, terminated, truncated, success of one step."""


class SingleEnv(Protocol):
    """One environment of a simulator's, without horizon, action repeat and automatic resets: the loop adds these."""

    @property
    def view(self) -> "View | None":
        """From where a window looks at first; none: as the model has it."""
        ...

    def reset(self, seed: int) -> NDArray[Any]:
        """Starts the episode that `seed` names, whatever ran before; the first observation `[O]`."""
        ...

    def step(self, action: Floats) -> Outcome:
        """Executes action `[A]` in [-1, 1]; the observation may be overwritten by the next step."""
        ...

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        """A frame `[height, width, 3]`, upright."""
        ...

    def moment(self) -> NDArray[Any]:
        """What it takes, beside the episode's seed, to draw the environment as it is now `[M]`; where `recalls`."""
        ...

    def recall(self, moment: Floats) -> None:
        """Has it look as in `moment`, after a `reset` to the episode's seed."""
        ...

    def mujoco(self) -> tuple[Any, Any] | None:
        """MuJoCo's model and data, for a window on them; none if it has no such thing."""
        ...

    def close(self) -> None:
        """Frees the simulator."""
        ...


class LoopEnv:
    """A `VectorEnv` over single environments; rewards are summed and successes joined over repeated actions."""

    def __init__(
        self,
        spec: EnvSpec,
        envs: Sequence[SingleEnv],
        draws: Draws,
        *,
        action_repeat: int = 1,
        make: Callable[[int], SingleEnv] | None = None,
        moment_width: int | None = None,
    ) -> None:
        """envs: each environment as its episode 0 has it; `make` makes that of another task, by its number.

        moment_width: to so many numbers moments are filled up with zeros, where those of tasks differ
        """
        self.spec = spec
        self.num_envs = len(envs)
        self.envs = list(envs)
        self._make, self._moment_width = make, moment_width
        self._made = [{draws.task_of(i, 0): env} for i, env in enumerate(envs)]
        self._draws = draws
        self._repeat = action_repeat
        self._episode = [0] * self.num_envs
        self._step = [0] * self.num_envs
        self._recalled: dict[int, int] = {}

    def reset(self, episodes: Sequence[int]) -> Floats:
        if len(episodes) != self.num_envs:
            raise ValueError(f"{len(episodes)} episodes for {self.num_envs} environments")
        obs = np.empty((self.num_envs, self.spec.obs_dim), np.float32)
        for i, episode in enumerate(episodes):
            self._start(i, int(episode), obs)
        return obs

    def step(self, action: Floats) -> Step:
        name, indices, width = self.spec.name, self._draws.indices, self.spec.action_dim
        actions = bounded_actions(name, indices, self._episode, self._step, action, width)
        # New arrays each step: whoever holds the last observation to store it beside this one must find it unchanged.
        next_obs = np.empty((self.num_envs, self.spec.obs_dim), np.float32)
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated, success = np.zeros((3, self.num_envs), np.bool_)
        for i in range(self.num_envs):
            try:
                next_obs[i], reward[i], terminated[i], truncated[i], success[i] = self._advance(i, actions[i])
            except Exception as error:
                raise self._broken(i, in_one_line(error)) from error
        require_finite(self.spec.name, self._draws.indices, self._episode, self._step, next_obs, reward)
        return Step(next_obs, self._restart(next_obs, terminated, truncated), reward, terminated, truncated, success)

    def render(self, index: int = 0, *, width: int = 480, height: int = 480) -> NDArray[np.uint8]:
        return self.envs[index].render(width, height)

    def moments(self) -> Floats:
        self._require_recall()
        moments = [env.moment() for env in self.envs]
        wide = np.zeros((self.num_envs, self._moment_width or max(map(len, moments))), np.float32)
        for row, moment in zip(wide, moments, strict=True):
            row[: len(moment)] = moment
        return wide

    def recall(self, index: int, seed: int, moment: Floats) -> None:
        self._require_recall()
        if self._recalled.get(index) != seed:
            self.envs[index].reset(seed)
            self._recalled[index] = seed
        self.envs[index].recall(moment)

    def _require_recall(self) -> None:
        if not self.spec.recalls:
            raise UserError(f"{self.spec.name} cannot show a moment of the past again: no clips can be made of it")

    def close(self) -> None:
        for made in self._made:
            for env in made.values():
                env.close()

    def _advance(self, i: int, action: Floats) -> Outcome:
        """One step of the agent in environment `i`."""
        env = self.envs[i]
        obs, reward, terminated, truncated, success = env.step(action)
        for _ in range(1, self._repeat):
            if terminated or truncated:
                break
            obs, more, terminated, truncated, again = env.step(action)
            reward += more
            success = success or again
        over = truncated or self._step[i] + 1 >= self.spec.horizon
        return obs, reward, terminated, over and not terminated, success

    def _restart(self, next_obs: Floats, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> Floats:
        """What to act on next `[N, O]`: the first observation of a new episode where the old one ended."""
        ended = np.flatnonzero(terminated | truncated)
        obs = next_obs.copy() if ended.size else next_obs
        for i in range(self.num_envs):
            self._step[i] += 1
        for i in map(int, ended):
            self._start(i, self._episode[i] + 1, obs)
        return obs

    def _start(self, i: int, episode: int, obs: Floats) -> None:
        """Starts `episode` in environment `i` and writes its first observation into `obs[i]`."""
        self._episode[i], self._step[i] = episode, 0
        self._recalled.pop(i, None)
        try:
            self._take_up(i, self._draws.task_of(i, episode))
            obs[i] = self.envs[i].reset(self._draws.seed_of(i, episode))
        except Exception as error:
            raise self._broken(i, f"reset: {in_one_line(error)}") from error
        if not np.isfinite(obs[i]).all():
            raise self._broken(i, "its first observation is not finite")

    def _take_up(self, i: int, task: int) -> None:
        """Has environment `i` be the task with this number; a simulator once made stays."""
        made = self._made[i]
        if task not in made:
            if self._make is None:
                raise ValueError(f"nothing makes task {task}")
            made[task] = self._make(task)
        self.envs[i] = made[task]

    def _broken(self, i: int, reason: str) -> EnvironmentBroken:
        return EnvironmentBroken(self.spec.name, self._draws.indices[i], self._episode[i], self._step[i], reason)
