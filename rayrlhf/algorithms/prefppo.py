"""PrefPPO (Christiano et al. 2017, arXiv 1706.03741; B-Pref, 2111.03026): it learns from fresh steps only."""

from ray.rllib.algorithms.ppo import PPO

from rayrlhf.algorithms.config import PrefPpoConfig
from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.algorithms.roles import Ref
from rayrlhf.algorithms.rollouts import Arrival


class PrefPPO(PreferenceAlgorithm, PPO):
    """Unsupervised exploration, questions, a reward fitted to the answers, and PPO on what it says of new steps."""

    config: PrefPpoConfig

    @classmethod
    def get_default_config(cls) -> PrefPpoConfig:
        """RLlib's options for this class."""
        return PrefPpoConfig(cls)

    def training_step(self) -> None:
        """One iteration; in the asynchronous mode the next one's steps are collected while it learns from its own."""
        self._stop_if_interrupted()
        if self.plan.exploration_over(self.progress):
            self.end_exploration()
        elif not self.progress.exploring:
            self.hold_session()
        ppo = self.run.ppo
        epochs = ppo.explore_epochs if self.progress.exploring else ppo.epochs
        arrivals, rows = self.gather()
        clip = self.plan.clip(self.progress)
        for arrival in arrivals:
            self._count(arrival)
        if not self.run.rollout.synchronous:
            self.request_fragments()
        batches = rows // (ppo.batch_size // self.learners)
        if not self._rewarded:
            epochs = 0
        self.progress.updates += epochs * batches
        self._learn_and_publish(epochs, batches, clip, self.progress.env_steps)

    @property
    def _rewarded(self) -> bool:
        """Whether anything is better than anything else: until somebody has answered the policy stays as it is."""
        return self.progress.exploring or self.feedback is None or self.feedback.version > 0

    def gather(self) -> tuple[list[Arrival], int]:
        """Fragments of an iteration, handed over as they come, and the steps that every learner has at least.

        Each goes to the learner that has the fewest steps, until all have their share of those that the environments
        make in one fragment. They are not counted here: an iteration that is interrupted on the way has not begun.
        """
        wanted = self.run.rollout.round_steps // self.learners
        rows, arrivals = [0] * self.learners, list[Arrival]()
        while min(rows) < wanted:
            self.request_fragments()
            shares: list[list[Ref]] = [[] for _ in rows]
            for arrival in self.collect():
                poorest = rows.index(min(rows))
                rows[poorest] += arrival.report.num_transitions
                shares[poorest].append(arrival.fragment)
                arrivals.append(arrival)
            self._hand_over(shares)  # at once: a fragment may lie on a node that vanishes
        return arrivals, min(rows)

    def _standardising_policy(self) -> Ref | None:
        shared = self.run.ppo.normalize_observations and self.run.reward.normalize_inputs
        return self._policy if shared else None
