"""The one interface behind which all environments stand: `N` environments stepped as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rayrlhf.preferences.fragments import Bools, Floats


@dataclass(frozen=True)
class EnvSpec:
    """What a policy must know of an environment.

    obs_dim, action_dim: widths `O` and `A`; actions are always in [-1, 1], the environment scales them
    horizon: steps until truncation
    caveat:  what whoever trains on it should be told, or nothing
    recalls: whether recorded moments can be drawn again
    low, high: bounds of the simulator's own actions `[A]`, to which they are scaled; none: -1 and 1
    """

    name: str
    obs_dim: int
    action_dim: int
    horizon: int
    caveat: str = ""
    recalls: bool = False
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def bounds(self) -> tuple[Floats, Floats]:
        """Lowest and highest action `[A]` of the simulator itself."""
        low = np.full(self.action_dim, -1.0, np.float32) if self.low is None else np.array(self.low, np.float32)
        high = np.full(self.action_dim, 1.0, np.float32) if self.high is None else np.array(self.high, np.float32)
        return low, high


def scaling(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Middle and half width of bounds: `middle + half * action` brings actions from [-1, 1] into them."""
    wide = low.astype(np.float64), high.astype(np.float64)
    return ((wide[1] + wide[0]) / 2).astype(np.float32), ((wide[1] - wide[0]) / 2).astype(np.float32)


@dataclass(frozen=True)
class Step:
    """One step of `N` environments.

    next_obs: `[N, O]` the successor, also where the episode ended
    obs:      `[N, O]` what to act on next: equal to `next_obs`, but after a reset where the episode ended
    reward, terminated, truncated, success: `[N]`
    """

    next_obs: Floats
    obs: Floats
    reward: Floats
    terminated: Bools
    truncated: Bools
    success: Bools


class VectorEnv(Protocol):
    """`N` environments that reset themselves in the step their episode ends.

    Environment `i`'s episode `k` is drawn from `seeding.integer_seed(seed, stream, indices[i], "episode", k)`, so it
    does not depend on how environments are spread over processes. (EnvPool draws its own way and says so.) The arrays
    of a `Step` are new in every step: whoever holds them finds them unchanged.
    """

    spec: EnvSpec
    num_envs: int

    def reset(self, episodes: Sequence[int]) -> Floats:
        """Starts episode `episodes[i]` in environment `i`; observations `[N, O]`."""
        ...

    def step(self, action: Floats) -> Step:
        """Executes actions `[N, A]` in [-1, 1]. Raises `EnvironmentBroken` where one fails or an action is NaN."""
        ...

    def render(self, index: int = 0, *, width: int = 480, height: int = 480) -> NDArray[np.uint8]:
        """A frame `[H, W, 3]` of environment `index`, upright."""
        ...

    def moments(self) -> Floats:
        """`[N, M]`: what it takes, beside the episode's start, to draw each environment as it is now.

        Raises `UserError` where `spec.recalls` is false; so does `recall`.
        """
        ...

    def recall(self, index: int, seed: int, moment: Floats) -> None:
        """Has environment `index` look as in `moment` `[M]` of the episode whose start `seed` drew; for `render` alone.

        It must be `reset` before it is stepped again.
        """
        ...

    def close(self) -> None:
        """Frees the simulators."""
        ...
