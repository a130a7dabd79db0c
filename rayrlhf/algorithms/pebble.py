"""PEBBLE (Lee et al. 2021, arXiv 2106.05091): off-policy, so that all experience is relabelled with each new reward."""

from typing import Any

import numpy as np
from ray.rllib.algorithms.sac import SAC

from rayrlhf.algorithms.config import PebbleConfig
from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.algorithms.roles import Feedback


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
            self._step_reward_by_critic()
        if not self.run.rollout.synchronous:
            self.request_fragments()
        if not reset:
            self.learn(self.plan.updates_due(self.progress))

    def end_exploration(self) -> None:
        """The reward comes into play, also in what was collected before; a few updates make the fresh critic usable."""
        super().end_exploration()
        updates = self.run.explore.critic_reset_updates
        self.progress.reset_updates += updates
        self._learn_and_publish(updates, self.progress.env_steps)

    def _warm_up_reward(self, feedback: Feedback) -> None:
        """RIME's warm start: the ensemble learns the reward of exploration."""
        if self.run.reward.pretrain_epochs:
            feedback.pretrain(self._on_learners("explored"))

    def learn(self, updates: int) -> None:
        """`updates` updates on every learner, then the newest policy is published."""
        if updates and self._can_learn():
            self.progress.updates += updates
            to_come = self.progress.sessions > 0 and self.progress.labels < self.run.queries.budget
            self._learn_and_publish(updates, self.progress.env_steps, to_come)

    def _step_reward_by_critic(self) -> None:
        """MRN's outer step, where one is due: of the ensemble's gradients the mean over the learners, each on its rows.

        Steps that fell due while a session ran are left out.
        """
        due = self.plan.meta_steps_due(self.progress)
        if self.feedback is None or self._session_running or due <= self.progress.meta_steps or not self._can_learn():
            return
        self.progress.meta_steps = due
        labels = self.feedback.newest_labels(self.run.queries.per_session)
        found = self._on_learners("outer_gradients", labels)
        names = found[0][0]
        self.feedback.step({name: np.mean([own[name] for own, _ in found], axis=0) for name in names})
        self._metrics["meta_loss"] = float(np.mean([loss for _, loss in found]))
        self._reward_with("ensemble", self.feedback.weights(), self.feedback.version)

    def _can_learn(self) -> bool:
        """Every learner has rows: one that had none would leave the others waiting for its gradients."""
        if not self._learners_have_rows:
            self._learners_have_rows = all(self._on_learners("replay_size"))
        return self._learners_have_rows
