"""The reward model of a run that asks nobody: fitted before, and the same from the first step to the last."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from rayrlhf.algorithms.checkpoint import ensemble_file, read_ensemble
from rayrlhf.algorithms.files import Arrays, write_arrays
from rayrlhf.algorithms.roles import Ref, SessionOutcome
from rayrlhf.config import RunConfig
from rayrlhf.preferences.wire import Doing
from rayrlhf.rewards.stored import FILE, RewardModel, scoring_part

_NEVER = "a fixed reward model asks nobody and is never fitted"


class FixedReward:
    """Implements `algorithms.roles.Feedback` without sessions, labels, trajectories or actors.

    The model comes from the run's own folder, where a copy of `reward.from` lies, and from a checkpoint after a resume.
    """

    labels, answers, version = 0, 0, 1
    open_questions, unlearnt = 0, False

    def __init__(self, run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> None:
        model = RewardModel.load(Path(folder) / FILE)
        model.require_fit(run.reward, obs_dim, action_dim)
        self.logged: Callable[[], None] = lambda: None
        self._hold(scoring_part(model.weights))

    def _hold(self, weights: Arrays) -> None:
        self._own = weights
        self._weights: Ref = ray.put(weights)

    def weights(self) -> Ref:
        """Reference to the weights."""
        return self._weights

    def save(self, folder: Path) -> None:
        """Writes the weights: a checkpoint stands alone."""
        write_arrays(ensemble_file(folder, 0), self._own)

    def load(self, folder: Path, *, sessions: int, labels: int, version: int, trajectories_only: bool = False) -> None:
        """Takes a checkpoint's weights; an exploration of another run has none for it."""
        if not trajectories_only:
            self._hold(scoring_part(read_ensemble(folder)))

    def begin_session(self, session: int, count: int, policy: Ref | None = None) -> None:
        """Never due."""
        raise RuntimeError(_NEVER)

    def finish_session(self) -> SessionOutcome | None:
        """None ever runs."""
        return None

    def abandon_session(self) -> SessionOutcome | None:
        """None ever runs."""
        return None

    def pretrain(self, explored: list[Ref]) -> None:
        """Refused with the options that ask for it."""
        raise RuntimeError(_NEVER)

    def newest_labels(self, count: int) -> Ref:
        """There are none."""
        raise RuntimeError(_NEVER)

    def step(self, gradients: dict[str, Any]) -> None:
        """Refused with the options that ask for it."""
        raise RuntimeError(_NEVER)

    def remember(self, fragments: list[Ref]) -> None:
        """No questions are made of them."""

    def collect(self) -> None:
        """Nothing was asked."""

    def tell(self, doing: Doing) -> None:
        """Nobody waits."""

    def close_episodes(self, environments: list[int] | None) -> None:
        """None are kept."""

    def close(self) -> None:
        """There are no actors."""
