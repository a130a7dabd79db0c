"""A point mass in a square: the environment on which the whole loop learns in seconds.

Observed are the way to the goal (2 numbers) and the velocity (2).
`N` points are stepped in one array. The agent pushes a point towards a goal; both are drawn anew at each reset, so
neither a constant nor a random action solves it. The reward is dense, and success is being near the goal at a step.
`point-away` is its contrary, and looks the same: success is being far from the goal.
`point-terminating` has no walls: leaving the square ends the episode, as falling does in locomotion tasks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.broken import bounded_actions, require_finite
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.interface import EnvSpec, Step
from rayrlhf.preferences.fragments import Floats

OBS_DIM, ACTION_DIM, LIMIT = 4, 2, 50
_DRAG, _PUSH = 0.8, 0.03
"""Velocity kept per step, and velocity gained by a full action: at most 0.15 of the square's half side per step."""
_RADIUS = 0.2
"""How near the goal counts as success."""
_FAR = 0.7
"""Least distance of point and goal at a reset."""
_AWAY = 1.4
"""How far from the goal counts as success where the point is to be kept away; in some corner it is farther."""
_WALL = 1.0
_TERMINATING = "point-terminating"
_KEEP_AWAY = "point-away"


def task_names() -> list[str]:
    """All toys; episodes of `point-terminating` end outside the square."""
    return ["point", _KEEP_AWAY, _TERMINATING]


def describe(options: EnvOptions) -> EnvSpec:
    """The way to the goal and the velocity; 50 steps unless told otherwise."""
    horizon = options.horizon or -(-LIMIT // options.action_repeat)
    return EnvSpec(f"toy/{options.task}", OBS_DIM, ACTION_DIM, horizon, recalls=True)


def make(options: EnvOptions, num_envs: int, draws: Draws) -> "PointEnv":
    """`N` points."""
    return PointEnv(options, num_envs, draws)


class PointEnv:
    """A `VectorEnv`; its state `[N, 6]` is position, velocity, goal."""

    def __init__(self, options: EnvOptions, num_envs: int, draws: Draws) -> None:
        self.spec = describe(options)
        self.num_envs = num_envs
        self._draws = draws
        self._repeat = options.action_repeat
        self._tasks = np.array(options.tasks)
        self._task = np.array([draws.task_of(i, 0) for i in range(num_envs)])
        self._state = np.zeros((num_envs, 6), np.float32)
        self._episode = np.zeros(num_envs, np.int64)
        self._step = np.zeros(num_envs, np.int64)

    def reset(self, episodes: Sequence[int]) -> Floats:
        if len(episodes) != self.num_envs:
            raise ValueError(f"{len(episodes)} episodes for {self.num_envs} environments")
        for i, episode in enumerate(episodes):
            self._start(i, int(episode))
        return self._observe()

    def step(self, action: Floats) -> Step:
        name, indices = self.spec.name, self._draws.indices
        push = _PUSH * bounded_actions(name, indices, self._episode, self._step, action, ACTION_DIM)
        reward = np.zeros(self.num_envs, np.float32)
        terminated, success = np.zeros((2, self.num_envs), np.bool_)
        for _ in range(self._repeat):
            self._move(push, reward, terminated, success)
        next_obs = self._observe()
        require_finite(self.spec.name, self._draws.indices, self._episode, self._step, next_obs, reward)
        self._step += 1
        truncated = (self._step >= self.spec.horizon) & ~terminated
        return Step(next_obs, self._restart(next_obs, terminated | truncated), reward, terminated, truncated, success)

    def render(self, index: int = 0, *, width: int = 480, height: int = 480) -> NDArray[np.uint8]:
        """The square from above, y upwards: the goal green, the point blue."""
        state = self._state[index]
        frame = np.full((height, width, 3), 245, np.uint8)
        x = np.linspace(-1.1, 1.1, width)[None, :]
        y = np.linspace(1.1, -1.1, height)[:, None]  # the first row is the top
        frame[(np.abs(x) > _WALL) | (np.abs(y) > _WALL)] = 200
        frame[(x - state[4]) ** 2 + (y - state[5]) ** 2 < _RADIUS**2] = (60, 170, 90)
        frame[(x - state[0]) ** 2 + (y - state[1]) ** 2 < (_RADIUS / 2) ** 2] = (40, 90, 200)
        return frame

    def moments(self) -> Floats:
        return self._state.copy()

    def recall(self, index: int, seed: int, moment: Floats) -> None:
        self._state[index] = moment

    def close(self) -> None:
        """Nothing to free."""

    def _observe(self) -> Floats:
        """Observations `[N, 4]`: the way to the goal, and the velocity."""
        return np.concatenate([self._state[:, 4:] - self._state[:, :2], self._state[:, 2:4]], axis=1)

    def _move(self, push: Floats, reward: Floats, terminated: NDArray[np.bool_], success: NDArray[np.bool_]) -> None:
        """One step of the points that have not left the square; adds to `reward` `[N]`, joins the flags `[N]`."""
        alive = ~terminated
        position, velocity, goal = self._state[:, :2], self._state[:, 2:4], self._state[:, 4:]
        velocity[alive] = _DRAG * velocity[alive] + push[alive]
        position[alive] += velocity[alive]
        outside = np.abs(position) > _WALL
        walls = self._tasks[self._task] != _TERMINATING
        velocity[outside & walls[:, None]] = 0.0
        position[walls] = np.clip(position[walls], -_WALL, _WALL)
        terminated |= outside.any(axis=1) & ~walls
        away = goal - position
        distance = np.sqrt(np.einsum("ni,ni->n", away, away))
        flees = self._tasks[self._task] == _KEEP_AWAY
        reward += np.where(alive, np.where(flees, distance / 2.0, 1.0 - distance / 2.0), 0.0)
        success |= alive & np.where(flees, distance > _AWAY, distance < _RADIUS)

    def _restart(self, next_obs: Floats, ended: NDArray[np.bool_]) -> Floats:
        """What to act on next `[N, O]`; starts the next episode of the environments that ended."""
        if not ended.any():
            return next_obs
        for i in np.flatnonzero(ended):
            self._start(int(i), int(self._episode[i]) + 1)
        return self._observe()

    def _start(self, i: int, episode: int) -> None:
        rng = np.random.default_rng(self._draws.seed_of(i, episode))
        while True:
            position, goal = rng.uniform(-0.9, 0.9, (2, 2))
            if np.hypot(*(goal - position)) > _FAR:
                break
        self._state[i] = (*position, 0.0, 0.0, *goal)
        self._episode[i], self._step[i] = episode, 0
        self._task[i] = self._draws.task_of(i, episode)
