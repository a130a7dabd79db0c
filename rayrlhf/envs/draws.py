"""Which draw an episode starts from: a function of seed, environment and episode, and of nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayrlhf import seeding


@dataclass(frozen=True)
class Draws:
    """Seeds of resets.

    seed: the run's
    stream: `environment` for training, `evaluation` for evaluation
    indices: global index of each of the `N` environments
    fixed_start: every episode of the run starts from the same draw, in every environment and in evaluation
    """

    seed: int
    stream: str
    indices: Sequence[int]
    fixed_start: bool = False

    def seed_of(self, i: int, episode: int) -> int:
        """The 31-bit seed of episode `episode` in the `i`-th environment."""
        if self.fixed_start:
            return seeding.integer_seed(self.seed, "start")
        return seeding.integer_seed(self.seed, self.stream, self.indices[i], "episode", episode)
