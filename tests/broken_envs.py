"""Environments that break, registered with Gymnasium: `broken_envs:NAME-v0`, also in rollout actors."""

import os
import signal
import sys
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

IN_ACTOR = "default_worker" in sys.argv[0]


class Steady(gym.Env[Any, Any]):
    """Nothing happens, for twenty steps."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (2,), np.float32)
    made: ClassVar[int] = 0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        Steady.made += 1
        self.number = Steady.made
        """Among those of this process: an actor makes its training environment first."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.full(3, 0.5, np.float32), 0.0, False, False, {}


class BreaksLater(Steady):
    episodes = steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episodes, self.steps = self.episodes + 1, 0
        return super().reset()

    def step(self, action: Any) -> Any:
        self.steps += 1
        value = np.nan if IN_ACTOR and self.episodes == 3 and self.steps == 7 else 0.5
        return np.full(3, value, np.float32), 0.0, False, False, {}


class BreaksInEvaluation(Steady):
    def step(self, action: Any) -> Any:
        value = np.nan if IN_ACTOR and self.number > 1 else 0.5
        return np.full(3, value, np.float32), 0.0, False, False, {}


class NotMadeForEvaluation(Steady):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        if IN_ACTOR and self.number > 1:
            raise RuntimeError("no second one")


class NeverMade(Steady):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        if IN_ACTOR:
            raise RuntimeError("cannot find its model")


class NeverStarts(Steady):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise RuntimeError("cannot start")


class DiesAtReset(Steady):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        os._exit(1)


class Hangs(Steady):
    """For ever, in processes that were told to (`HANGS`): the process sleeps, or does not run at all."""

    def step(self, action: Any) -> Any:
        how = os.environ.get("HANGS", "")
        if how and ("evaluation" in how) == (self.number > 1):
            os.kill(os.getpid(), signal.SIGSTOP) if "stopped" in how else time.sleep(10_000)
        return super().step(action)


for kind in (BreaksLater, BreaksInEvaluation, NotMadeForEvaluation, NeverMade, NeverStarts, DiesAtReset, Hangs):
    gym.register(f"{kind.__name__}-v0", kind, max_episode_steps=20)
