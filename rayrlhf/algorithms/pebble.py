"""PEBBLE (Lee et al. 2021, arXiv 2106.05091): off-policy, so that all experience is relabelled with each new reward."""

from typing import Any

from ray.rllib.algorithms.sac import SAC

from rayrlhf.algorithms.config import PebbleConfig
from rayrlhf.algorithms.loop import PreferenceAlgorithm


class Pebble(PreferenceAlgorithm, SAC):
    """Unsupervised exploration, questions, a reward fitted to the answers, and SAC on the relabelled replay."""

    config: PebbleConfig

    @classmethod
    def get_default_config(cls) -> PebbleConfig:
        """RLlib's options for this class."""
        return PebbleConfig(cls)

    def setup(self, config: PebbleConfig) -> None:
        """All roles."""
        super().setup(config)
        self._learners_have_rows = False

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """None: the replay lives with the learners."""

    def training_step(self) -> None:
        """One round of the paper's algorithm 2; in the asynchronous mode collecting goes on while learning."""
        self._stop_if_interrupted()
        arrivals = self.collect()
        self.insert(arrivals)
        # one call of the learners a round, or what is on its way would grow staler than allowed
        reset = self.plan.exploration_over(self.progress) and self._can_learn()
        if reset:
            self.end_exploration()
        elif not self.progress.exploring:
            self.hold_session()
        if not self.run.rollout.synchronous:
            self.request_fragments()
        if not reset:
            self.learn(self.plan.updates_due(self.progress))

    def end_exploration(self) -> None:
        """The reward comes into play, also in what was collected before; a few updates make the fresh critic usable."""
        super().end_exploration()
        updates = self.run.explore.critic_reset_updates
        self.progress.reset_updates += updates
        self._learn_and_publish(updates)

    def learn(self, updates: int) -> None:
        """`updates` updates on every learner, then the newest policy is published."""
        if updates and self._can_learn():
            self.progress.updates += updates
            self._learn_and_publish(updates)

    def _can_learn(self) -> bool:
        """Every learner has rows: one that had none would leave the others waiting for its gradients."""
        if not self._learners_have_rows:
            self._learners_have_rows = all(self._on_learners("replay_size"))
        return self._learners_have_rows
