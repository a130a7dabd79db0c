"""What the algorithm needs of the roles that live in actors of a higher layer: it knows this, not them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray

from rayrlhf.config import RunConfig
from rayrlhf.preferences.wire import Doing

Ref = ray.ObjectRef[Any]
"""A reference to something in Ray's object store."""


@dataclass(frozen=True)
class SessionOutcome:
    """What one session brought.

    session: its number
    labels: labels of the run so far, including this session's
    answers: answers of the run so far, skips included
    weights: reference to the ensemble's weights after the fit
    version: of these weights
    metrics: loss and accuracy of the fit, seconds of its parts
    """

    session: int
    labels: int
    answers: int
    weights: Ref
    version: int
    metrics: dict[str, float]


class Feedback(Protocol):
    """Everything between experience and a better reward: trajectory store, ensemble, queries, teacher, answer log."""

    labels: int
    answers: int
    version: int
    logged: Callable[[], None]
    """Called when something is in the answer log, before it is made use of."""

    @property
    def unlearnt(self) -> bool:
        """There are answers that no fit has seen."""
        ...

    def remember(self, fragments: list[Ref]) -> None:
        """Hands fragments to the trajectory store; returns at once."""
        ...

    def begin_session(self, session: int, count: int, policy: Ref | None = None) -> None:
        """Starts selecting, asking, collecting and fitting for up to `count` labels; returns at once.

        The reward model standardises observations as `policy`, an actor's weights, does, if it does.

        With a `count` of 0 nothing is asked: the fit takes in what was answered since the last one.
        """
        ...

    def finish_session(self) -> SessionOutcome | None:
        """The running session's outcome once it is there, else none. Raises what the session raised."""
        ...

    def abandon_session(self) -> SessionOutcome | None:
        """Waits for a fit that has begun, and not for a teacher; the outcome where the session had come to its fit.

        Otherwise nothing has changed, and the session is to be held again.
        """
        ...

    def collect(self) -> None:
        """Takes in what the teacher has answered between two sessions; may be called often, and returns at once."""
        ...

    def tell(self, doing: Doing) -> None:
        """Says what training does, to people who wait for questions; may be called often, and returns at once."""
        ...

    @property
    def open_questions(self) -> int:
        """Questions that were put and may still be answered."""
        ...

    def pretrain(self, explored: list[Ref]) -> None:
        """Lets the ensemble learn `target` `[M]` of `obs` and `action`, before the first label. Waits for it."""
        ...

    def newest_labels(self, count: int) -> Ref:
        """Reference to the last `count` labels that were learnt from."""
        ...

    def step(self, gradients: dict[str, Any]) -> None:
        """One step of the ensemble's optimiser by `gradients`: other weights, a higher version. No session may run."""
        ...

    def weights(self) -> Ref:
        """Reference to the ensemble's present weights."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the roles' state (not the answers: they are in the log already)."""
        ...

    def load(self, folder: Path, *, sessions: int, labels: int, version: int, trajectories_only: bool = False) -> None:
        """Restores the roles' state; the labels of the first `sessions` sessions come from the answer log.

        There may be more of them than the `labels` that the ensemble was fitted to.

        With `trajectories_only`, the ensemble stays as it was made.
        """
        ...

    def close_episodes(self, environments: list[int] | None) -> None:
        """Closes the running episodes of `environments` (none: of all): what comes next belongs to new ones."""
        ...

    def close(self) -> None:
        """Ends the actors."""
        ...


FeedbackFactory = Callable[[RunConfig, int, int, Any], Feedback]
"""Makes the roles from the run, the widths `O` and `A`, and the run's folder."""
