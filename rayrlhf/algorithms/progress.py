"""Where a run stands: the counters that a checkpoint keeps, and what follows from them alone."""

from dataclasses import dataclass
from typing import Literal

from rayrlhf.config import RunConfig
from rayrlhf.queries.schedules import session_sizes

Phase = Literal["random", "explore", "learn"]


@dataclass
class Progress:
    """Counters of a run.

    env_steps: transitions inserted   borrowed: those of them that another run explored
    updates: of the networks, without those right after the critic's reset
    learner_calls: also the version of the policy's weights   sessions: begun and finished
    meta_steps: that were due, of the ensemble by what the critic makes of it
    labels: answers that became labels   answers: with skips   exploring: until the first session or its equivalent
    """

    env_steps: int = 0
    borrowed: int = 0
    updates: int = 0
    reset_updates: int = 0
    learner_calls: int = 0
    sessions: int = 0
    meta_steps: int = 0
    labels: int = 0
    answers: int = 0
    exploring: bool = True
    max_staleness: int = 0
    wall_seconds: float = 0.0


class Plan:
    """What is due when: a function of the options and the counters, so that a resumed run follows the same plan."""

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        queries = run.queries
        self._sizes = session_sizes(queries.budget, queries.per_session, queries.schedule)

    def phase(self, at: Progress) -> Phase:
        """Random actions, then state entropy, then the reward."""
        if at.env_steps < self._run.random_steps:
            return "random"
        return "explore" if at.exploring else "learn"

    def exploration_over(self, at: Progress) -> bool:
        """The reward should come into play now."""
        return at.exploring and at.env_steps >= self._run.exploration_steps

    def updates_due(self, at: Progress) -> int:
        """Updates that the environment steps so far are owed and have not had."""
        return max(0, int(self.learnable(at) * self._run.sac.updates_per_step) - at.updates)

    def meta_steps_due(self, at: Progress) -> int:
        """How many there should have been so far (MRN: while labels are to come); no more than that: none is due."""
        interval = self._run.reward.meta_interval
        if not interval or at.exploring or not 0 < at.labels < self._run.queries.budget:
            return at.meta_steps
        return self._since_exploration(at) // interval

    def clip(self, at: Progress) -> float:
        """How far PPO's ratio of probabilities may be from 1 (B-Pref: falling linearly to 0 at the last step)."""
        ppo = self._run.ppo
        left = max(0.0, 1.0 - at.env_steps / self._run.total_steps)
        return ppo.clip * left if ppo.clip_decay else ppo.clip

    def learnable(self, at: Progress) -> int:
        """Environment steps that this run owes updates for."""
        return at.env_steps - max(self._run.random_steps, at.borrowed)

    def _since_exploration(self, at: Progress) -> int:
        return at.env_steps - max(self._run.exploration_steps, at.borrowed)

    def questions_due(self, at: Progress) -> int:
        """Labels to ask for in the session that is due now; 0 when none is.

        What earlier sessions did not spend (skips, late answers) is asked for again, in twice as many sessions at most.
        A session that late answers have already filled is passed over.
        """
        queries = self._run.queries
        learning = self._since_exploration(at)
        if not self._run.asks or learning < 0 or at.sessions >= 2 * len(self._sizes):
            return 0
        for number in range(at.sessions, learning // queries.interval + 1):
            if (due := sum(self._sizes[: number + 1]) - at.labels) > 0:
                return min(due, 2 * max(self._sizes))
        return 0

    def next_questions_at(self, at: Progress) -> int | None:
        """Environment steps at which the next questions are due, so far as answers come; none where none are."""
        if not self._run.asks or at.sessions >= 2 * len(self._sizes) or at.labels >= self._run.queries.budget:
            return None
        begin = max(self._run.exploration_steps, at.borrowed)
        due = begin + at.sessions * self._run.queries.interval
        return max(due, at.env_steps) if due < self._run.total_steps else None

    def late_session_due(self, at: Progress) -> int | None:
        """The number of the session that is due after the last one with questions: it fits to what came late."""
        number = self._since_exploration(at) // self._run.queries.interval
        return number if number >= at.sessions >= 2 * len(self._sizes) else None

    def sessions_left(self, at: Progress) -> int:
        """Planned sessions that have not been held, while labels are left."""
        spent = not self._run.asks or at.labels >= self._run.queries.budget
        return 0 if spent else max(0, len(self._sizes) - at.sessions)
