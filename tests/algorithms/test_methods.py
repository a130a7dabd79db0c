"""What the methods of label efficiency do to what is learnt from, in the learner and in the whole loop on the toy."""

from typing import Any

import numpy as np
import pytest
import ray
import torch
from support import PREFPPO, Make, advance, changed, synchronous

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, filled_learner, random_fragment
from rayrlhf.config import EnvOptions, ExploreOptions, QueryOptions, RewardOptions, RunConfig, SacOptions
from rayrlhf.policies import Batch
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.teachers import Teacher

SAC = SacOptions(hidden=(8,), batch_size=64)
REWARD = RewardOptions(hidden=(8,))
TWO_TASKS: dict[str, Any] = {"env": {"task": "point,point-away"}}


def _batches_of(learner: Any) -> list[Batch]:
    """Every batch that it learns from, from now on."""
    seen, gather = list[Batch](), learner.replay.gather

    def watched(index: torch.Tensor, reward: torch.Tensor | None = None) -> Batch:
        seen.append(gather(index, reward))
        return seen[-1]

    learner.replay.gather = watched
    return seen


def test_rune_rewards_disagreement_less_and_less() -> None:
    """Equation 5: the members' mean, and their deviation by the weight of the step."""
    explore = ExploreOptions(seed_steps=0, unsupervised_steps=0, spread_weight=0.5, spread_decay=1e-3)
    learner = filled_learner(random_fragment(400), SAC, threads=1, device="cpu", reward=REWARD, explore=explore)
    weights = RewardEnsemble(REWARD, OBS_DIM, ACTION_DIM, seed=3).weights()
    seen = _batches_of(learner)
    learner.reward_with("ensemble", weights, 1)
    for steps in (0, 1000):
        learner.learn(1, steps)
        batch = seen[-1]
        members = learner.scorer.member_scores(batch.obs, batch.action).numpy()
        wanted = members.mean(0) + 0.5 * (1 - 1e-3) ** steps * members.std(0)
        np.testing.assert_allclose(batch.reward, wanted, rtol=1e-4, atol=1e-5)
        assert members.std(0).max() > 0.01


@pytest.mark.parametrize(("to_come", "share"), [(True, 0.5), (False, 0.1)])
def test_qpa_draws_half_of_a_batch_from_the_newest_episodes(to_come: bool, share: float) -> None:
    """As long as there are labels to come; a tenth of these rows are of the newest two of twenty episodes."""
    sac = SAC.model_copy(update={"recent_share": 0.5})
    queries = QueryOptions(recent_episodes=2, segment_length=5)
    fragment = random_fragment(400, episode=20)
    learner = filled_learner(
        fragment, sac, threads=1, device="cpu", queries=queries, env=EnvOptions(horizon=20), reward=REWARD
    )
    learner.replay.columns["obs"][:400, 0] = torch.arange(400.0)
    seen = _batches_of(learner)
    learner.learn(60, 0, to_come)
    newest = np.array([(batch.obs[:, 0] >= 360).float().mean() for batch in seen])
    wanted = 0.5 + 0.5 * 0.1 if to_come else share
    assert abs(newest.mean() - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / (60 * 64))
    if to_come:
        assert all((batch.obs[:32, 0] >= 360).all() for batch in seen)


class _Watching(Teacher):
    """Says left, and remembers what it was asked."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.asked = teacher, list[Any]()

    def ask(self, queries: Any) -> None:
        self.asked.append(queries)
        self.teacher.ask(queries)

    def collect(self) -> Any:
        return self.teacher.collect()


def test_a_teacher_is_asked_about_segments_without_their_context(small_run: RunConfig, make: Make) -> None:
    run = synchronous(small_run, reward={"crop": 3, "unlabelled": 2}, queries={"segment_length": 12})
    algorithm = make(run)
    algorithm.feedback._teacher = watching = _Watching(algorithm.feedback._teacher)
    row = advance(algorithm, 1000)
    assert {queries.left.length for queries in watching.asked} == {12}
    assert {queries.right.margin for queries in watching.asked} == {3}
    assert 0.0 <= row["reward_pseudo_labels"] <= 1.0
    labels = ray.get(algorithm.feedback._ensemble[0]("newest_labels", 5))
    assert len(labels) == 5 and labels.left.margin == 3


def test_mrn_moves_the_ensemble_between_sessions(small_run: RunConfig, make: Make) -> None:
    """And the replay has the rewards of the one that came out of it; when all labels are there it stays."""
    run = changed(small_run, queries={"budget": 12, "per_session": 4, "interval": 200}, reward={"meta_interval": 60})
    algorithm = make(synchronous(run))
    advance(algorithm, 420)
    before, sessions = algorithm.feedback.version, algorithm.progress.sessions
    row = advance(algorithm, 490)
    assert algorithm.progress.sessions == sessions and algorithm.feedback.version == before + 1
    assert row["meta_loss"] > 0
    learner = algorithm.learner_group._learner
    weights = ray.get(algorithm.feedback.weights())
    learner.scorer.load({name: array.copy() for name, array in weights.items()})
    rows = slice(0, learner.replay.size)
    scored = learner.scorer.score(learner.replay.columns["obs"][rows], learner.replay.columns["action"][rows])
    torch.testing.assert_close(learner.replay.reward[rows], scored, rtol=1e-4, atol=1e-5)
    advance(algorithm, 760)
    assert algorithm.progress.labels == 12
    spent = algorithm.feedback.version
    advance(algorithm, 1000)
    assert algorithm.feedback.version == spent


def test_rime_learns_what_was_worth_exploring_before_the_first_label(small_run: RunConfig, make: Make) -> None:
    """And the critic of the exploration stays."""
    kept = {"reset_critic": False, "critic_reset_updates": 0}
    run = synchronous(
        small_run, explore=kept, reward={"pretrain_epochs": 200, "denoise": True}, teacher={"name": "silent"}
    )
    algorithm = make(run)
    advance(algorithm, 290)
    learner = algorithm.learner_group._learner
    explored = ray.get(learner.explored())
    critic = {name: array.copy() for name, array in learner.arrays().items() if "networks/critic" in name}
    algorithm.end_exploration()
    assert -1.0 <= explored["target"].min() < 0.0 < explored["target"].max() <= 1.0
    assert abs(explored["target"].mean()) < 1e-5
    learner.scorer.load({name: array.copy() for name, array in ray.get(algorithm.feedback.weights()).items()})
    found = learner.scorer.score(explored["obs"], explored["action"]).numpy()
    assert np.corrcoef(found, explored["target"])[0, 1] > 0.5
    for name, array in critic.items():
        np.testing.assert_array_equal(learner.arrays()[name], array, err_msg=name)


def test_rime_sifts_labels_in_the_loop(small_run: RunConfig, make: Make) -> None:
    run = synchronous(small_run, reward={"denoise": True}, teacher={"mistake": 0.3}, resources={"reward_actors": 2})
    row = advance(make(run), 1000)
    assert 0 < row["reward_labels_kept"] <= row["labels"] == 12


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"reward": {"crop": 50}}, "leaves nothing"),
        ({"reward": {"crop": 5, "unlabelled": 4}, "queries": {"segment_length": 45}}, "lower one of the two"),
        ({"reward": {"meta_interval": 10}, "sac": {"n_step": 3}}, "wants sac.n_step 1"),
        ({**PREFPPO, "reward": {"meta_interval": 10}}, "wants the algorithm pebble"),
        ({**TWO_TASKS, "reward": {"unlabelled": 2}}, "reward.unlabelled wants one task"),
        ({**TWO_TASKS, "teacher": {"name": "human"}}, "several tasks wants env.encoder"),
        ({**TWO_TASKS, "teacher": {"name": "own:Teacher", "clips": True}}, "several tasks wants env.encoder"),
        (
            {"env": {"encoder": "hashing"}, "teacher": {"name": "human"}, "people": {"sentence": "Go."}},
            "people.sentence is one for all questions",
        ),
        ({**PREFPPO, "reward": {"pretrain_epochs": 1}}, "wants the algorithm pebble"),
        ({"mode": "oracle", "reward": {"pretrain_epochs": 1}}, "nothing to learn"),
        ({"sac": {"recent_share": 0.5}, "env": {"horizon": None}}, "set that"),
    ],
)
def test_what_does_not_go_together_is_refused(small_run: RunConfig, groups: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changed(small_run, **groups)


@pytest.mark.parametrize("groups", [{}, {"rollout": {"actors": 2, "envs_per_actor": 2, **PREFPPO["rollout"]}}])
def test_prefppo_takes_what_is_not_of_the_replay(small_run: RunConfig, make: Make, groups: Any) -> None:
    """SURF, RUNE and RIME's sieve."""
    reward = {"crop": 2, "unlabelled": 2, "denoise": True}
    run = synchronous(small_run, **{**PREFPPO, **groups}, reward=reward, explore={"spread_weight": 0.5})
    row = advance(make(changed(run, queries={"segment_length": 12})), 1000)
    assert row["labels"] == 12 and np.isfinite(row["value_loss"])
