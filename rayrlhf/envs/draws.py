"""Which task, wording and draw an episode has: functions of seed, environment and episode, and of nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayrlhf import seeding


@dataclass(frozen=True)
class Draws:
    """What episodes begin with.

    seed: the run's
    stream: `environment` for training, `evaluation` for evaluation
    indices: global index of each of the `N` environments
    fixed_start: every episode of the run starts from the same draw, in every environment and in evaluation
    tasks: how many there are
    """

    seed: int
    stream: str
    indices: Sequence[int]
    fixed_start: bool = False
    tasks: int = 1

    def task_of(self, i: int, episode: int) -> int:
        """The number of the task of episode `episode` in the `i`-th environment: each has them in turn."""
        return (self.indices[i] + episode) % self.tasks

    def wording_of(self, i: int, episode: int, wordings: int) -> int:
        """Which of so many ways to say it the instruction has."""
        return seeding.integer_seed(self.seed, self.stream, self.indices[i], "wording", episode) % wordings

    def seed_of(self, i: int, episode: int) -> int:
        """The 31-bit seed of episode `episode` in the `i`-th environment."""
        if self.fixed_start:
            return seeding.integer_seed(self.seed, "start")
        return seeding.integer_seed(self.seed, self.stream, self.indices[i], "episode", episode)
