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
        arrivals, ppo = self.gather(), self.run.ppo
        clip = self.plan.clip(self.progress)
        epochs = ppo.explore_epochs if self.progress.exploring else ppo.epochs
        batches = min(self._rows(arrivals)) // (ppo.batch_size // self.learners)
        self.insert(arrivals)
        if not self.run.rollout.synchronous:
            self.request_fragments()
        self.progress.updates += epochs * batches
        self._learn_and_publish(epochs, batches, clip)

    def gather(self) -> list[Arrival]:
        """Fragments of an iteration: as many steps for each learner as all environments make in one fragment.

        Nothing is counted before there are as many: an iteration that is interrupted here has not begun.
        """
        wanted = self.run.rollout.round_steps // self.learners
        arrivals: list[Arrival] = []
        while min(self._rows(arrivals)) < wanted:
            self.request_fragments()
            arrivals += self.collect()
        return arrivals

    def _standardising_policy(self) -> Ref | None:
        shared = self.run.ppo.normalize_observations and self.run.reward.normalize_inputs
        return self._policy if shared else None

    def _rows(self, arrivals: list[Arrival]) -> list[int]:
        """Steps for each learner."""
        rows = [0] * self.learners
        for arrival in arrivals:
            rows[self.learner_of(arrival)] += arrival.report.num_transitions
        return rows
