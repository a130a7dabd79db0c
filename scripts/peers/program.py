"""What every peer's program shares: its options, its clock, the final evaluation, and the file that it writes.

Import it first: the clock of the whole program starts here, and torch has to find one thread.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

BEGUN = time.monotonic()
os.environ["OMP_NUM_THREADS"] = "1"

from environment import EVALUATION, Array, HandlePressSide  # noqa: E402


class Score(NamedTuple):
    """Of the final evaluation: the share of episodes that were solved, and the mean return by the true reward."""

    success: float
    true_return: float


class Program:
    """One training by one peer, from its options to its file."""

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--steps", type=int, required=True, help="environment steps of the agent")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--episodes", type=int, default=20, help="of the final evaluation")
        parser.add_argument("--labels", type=int, default=0, help="answers, where the program learns from any")
        parser.add_argument("--vector", choices=("dummy", "subproc"), help="another way to step several environments")
        parser.add_argument("--out", type=Path, required=True, help="the file for the result")
        options = parser.parse_args()
        self.steps: int = options.steps
        self.seed: int = options.seed
        self.episodes: int = options.episodes
        self.labels: int = options.labels
        self.vector: str | None = options.vector
        self._out: Path = options.out
        self._training = 0.0

    @contextmanager
    def training(self) -> Any:
        """Around what counts as training."""
        begin = time.monotonic()
        yield
        self._training = time.monotonic() - begin

    def score(self, act: Callable[[Array], Array]) -> Score:
        """Of `act`, from an observation `[39]` to an action `[4]`, in episodes of their own."""
        env = HandlePressSide()
        solved, total = 0, 0.0
        for episode in range(self.episodes):
            obs, _ = env.reset(seed=EVALUATION + 1000 * self.seed + episode)
            success, over = False, False
            while not over:
                obs, reward, _, over, info = env.step(act(obs))
                success, total = success or info["success"], total + reward
            solved += success
        return Score(solved / self.episodes, total / self.episodes)

    def write(
        self, score: Score, *, steps: int, labels: int, packages: tuple[str, ...], vector: str | None = None
    ) -> None:
        """The result: `steps` and `labels` are what there really was, `vector` how environments were stepped."""
        result = {
            "steps": steps,
            "labels": labels,
            "seconds_training": self._training,
            "seconds_total": time.monotonic() - BEGUN,
            **score._asdict(),
            "vector": vector,
            "versions": {name: version(name) for name in (*packages, "torch", "gymnasium", "metaworld", "mujoco")},
        }
        self._out.parent.mkdir(parents=True, exist_ok=True)
        aside = self._out.with_suffix(".part")
        aside.write_text(json.dumps(result, indent=1) + "\n")
        aside.replace(self._out)
