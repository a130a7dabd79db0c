"""Whether the environment gives what MetaWorld's own goal-observable class does, in the packages that are here.

It is stepped beside that class from the same places with the same actions; the first difference ends the program.
"""

from typing import Any

import gymnasium
import numpy as np
from environment import ACTION_REPEAT, HORIZON, NAME, Array, HandlePressSide
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

SEEDS = range(5)


def compare(seed: int) -> bool:
    """One episode, with actions that reach for the handle and press, and some noise; whether it was solved."""
    env, rng = HandlePressSide(), np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    observable: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{NAME}-goal-observable"]
    plain = observable(seed=seed)
    plain._last_rand_vec = env._env._last_rand_vec
    wanted, _ = plain.reset()
    np.testing.assert_array_equal(obs, wanted.astype(np.float32))
    solved = False
    for step in range(HORIZON):
        action = _towards(obs, rng)
        obs, reward, terminated, truncated, info = env.step(action)
        outcomes = [plain.step(action) for _ in range(ACTION_REPEAT)]
        np.testing.assert_array_equal(obs, outcomes[-1][0].astype(np.float32))
        assert reward == sum(float(outcome[1]) for outcome in outcomes)
        assert info["success"] == any(outcome[4]["success"] for outcome in outcomes)
        assert not terminated and truncated == (step == HORIZON - 1)
        solved = solved or info["success"]
    return solved


def _towards(obs: Array, rng: np.random.Generator) -> Array:
    """Above the handle first, then down."""
    way = obs[4:7] - obs[:3]
    if np.linalg.norm(way[:2]) > 0.03:
        way[2] = max(0.0, way[2] + 0.1)
    else:
        way[2] = -1.0
    action = np.append(20.0 * way, 0.0) + 0.1 * rng.standard_normal(4)
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def main() -> None:
    solved = sum(map(compare, SEEDS))
    assert solved, "no success was seen, so none was compared"
    print(f"equal in {len(SEEDS)} episodes, {solved} solved; Gymnasium {gymnasium.__version__}")


if __name__ == "__main__":
    main()
