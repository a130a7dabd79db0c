"""The whole loop on the toy, through real Ray actors and RLlib's learner group."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.numpy import load_file
from support import PREFPPO, Make, advance, assert_identical, changed, everything, synchronous

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import SessionError, UserError
from rayrlhf.preferences.dataset import PreferenceDataset

pytestmark = pytest.mark.usefixtures("ray_session")


def test_rllibs_names_save_and_restore_the_same(small_run: RunConfig, make: Make) -> None:
    run = synchronous(small_run)
    first, second = make(run, "a"), make(run, "b")
    advance(first, 400)
    place = first.save_to_path()
    try:
        second.restore_from_path(place)
        assert_identical(everything(first), everything(second))
    finally:
        shutil.rmtree(place)
    with pytest.raises(UserError, match="does not take filesystem"):
        first.save_to_path(place, filesystem=object())


FOUR: dict[str, Any] = {"rollout": {"actors": 2, "envs_per_actor": 2}}
"""Two actors that step two environments each."""
EARLY_ENDS: dict[str, Any] = {"env": {"task": "point-terminating"}}
"""Episodes end when they will: environments rarely stand at a start together."""
TWO_LEARNERS: dict[str, Any] = {**FOUR, "resources": {"learners": 2}}
"""Two processes with half of the replay each, which average their gradients."""
EXTRAS: dict[str, Any] = {
    "sac": {"n_step": 3, "reset_interval": 150, "critic_hidden": [16], "critic_blocks": 1},
    "reward": {"warm_start": False, "label_smoothing": 0.1},
}
"""What the paper's PEBBLE does not have; the networks are reset before the cut and after it."""
METHODS: dict[str, Any] = {
    "explore": {"spread_weight": 0.5, "reset_critic": False},
    "sac": {"recent_share": 0.5},
    "reward": {"crop": 3, "unlabelled": 2, "denoise": True, "pretrain_epochs": 2, "meta_interval": 50},
    "queries": {"segment_length": 12},
}
"""SURF, RUNE, QPA, RIME and MRN, all at once."""
TOLD: dict[str, Any] = {
    "env": {"task": "point, point-away", "encoder": "hashing", "instruction_width": 5},
    "reward": {"crop": 2},
    "queries": {"segment_length": 12},
}
"""Two tasks, of which each observation says which one it is."""
METAWORLD: dict[str, Any] = {"env": {"suite": "metaworld", "task": "window-close", "horizon": 100}}


@pytest.mark.parametrize(
    "groups",
    [
        FOUR,
        pytest.param({**EARLY_ENDS, "rollout": {"actors": 2}}, marks=pytest.mark.slow),
        pytest.param({**METAWORLD, **FOUR}, marks=pytest.mark.slow),
        TWO_LEARNERS,
        {**TWO_LEARNERS, **METHODS},
    ],
)
def test_two_synchronous_runs_of_one_seed_are_identical(small_run: RunConfig, make: Make, groups: Any) -> None:
    run = synchronous(small_run, **groups)
    first, second = make(run, "a/run"), make(run, "b/run")
    rows = [advance(algorithm, 720) for algorithm in (first, second)]
    assert rows[0]["labels"] == 12
    assert rows[0]["updates"] == 720 - run.explore.seed_steps
    assert_identical(everything(first), everything(second))


def test_another_seed_gives_another_run(small_run: RunConfig, make: Make) -> None:
    first, second = make(synchronous(small_run), "a"), make(synchronous(small_run, seed=1), "b")
    for algorithm in (first, second):
        advance(algorithm, 200)
    assert not np.array_equal(everything(first)["replay/obs"], everything(second)["replay/obs"])


@pytest.mark.parametrize(
    ("cut_at", "groups"),
    [
        (200, {}),
        (400, FOUR),
        pytest.param(400, {**METAWORLD, **FOUR}, marks=pytest.mark.slow),
        pytest.param(520, {**EARLY_ENDS, **FOUR}, marks=pytest.mark.slow),
        (400, TWO_LEARNERS),
        (400, {**EXTRAS, **FOUR}),
        (400, {**METHODS, **FOUR}),
        (400, {**TOLD, **FOUR}),
    ],
)
def test_a_resumed_synchronous_run_equals_an_uninterrupted_one(
    small_run: RunConfig, make: Make, tmp_path: Path, cut_at: int, groups: Any
) -> None:
    """Cut while exploring and while learning; the resumed run shares the answer log, which is newer than the cut.

    Where no common reset comes, one is made in both.
    """
    run = synchronous(small_run, **groups)
    whole = make(run, "run")
    advance(whole, cut_at)
    if groups.get("env") == EARLY_ENDS["env"]:
        assert not whole.can_checkpoint()
        whole.cut()
    assert whole.can_checkpoint()
    whole.save_checkpoint(str(tmp_path / "cut"))
    advance(whole, 900)
    resumed = make(run, "run")
    resumed.load_checkpoint(str(tmp_path / "cut"))
    assert resumed.progress.env_steps == cut_at
    advance(resumed, 900)
    assert resumed.progress.labels == whole.progress.labels == 12
    assert_identical(everything(whole), everything(resumed))


@pytest.mark.parametrize(
    ("before", "after", "cut_at"), [(2, 0, 400), (0, 2, 400), pytest.param(0, 2, 200, marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_another_number_of_learners(
    small_run: RunConfig, make: Make, tmp_path: Path, before: int, after: int, cut_at: int
) -> None:
    """Every row is there once, with its reward; labels and updates come out as planned. Cut while exploring, too."""
    run = synchronous(small_run, **FOUR)
    first = make(changed(run, resources={"learners": before}), "run")
    advance(first, cut_at)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(changed(run, resources={"learners": after}), "run")
    second.load_checkpoint(str(tmp_path / "cut"))
    dealt = [_rows_with_rewards(algorithm) for algorithm in (first, second)]
    np.testing.assert_array_equal(*dealt)
    row = advance(second, 900)
    assert row["labels"] == 12
    assert row["updates"] == row["env_steps"] - run.explore.seed_steps
    assert len(_rows_with_rewards(second)) == row["env_steps"]


def _rows_with_rewards(algorithm: Pebble) -> np.ndarray:
    """Observation, action and reward of all rows in the replay, `[R, O + A + 1]`, in an order of their own."""
    arrays = everything(algorithm)
    shards = sorted({name.removesuffix("replay/obs") for name in arrays if name.endswith("replay/obs")})
    names = ("obs", "action", "reward")
    rows = [np.column_stack([arrays[f"{shard}replay/{name}"] for name in names]) for shard in shards]
    whole = np.concatenate(rows)
    return whole[np.lexsort(whole.T)]


def test_answers_newer_than_the_checkpoint_are_neither_lost_nor_asked_again(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    first = make(small_run)
    advance(first, 320)
    first.save_checkpoint(str(tmp_path / "cut"))
    advance(first, 700)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    before = {answer.query_id: answer.choice for _, answers in log.read() for answer in answers}
    second = make(small_run)
    second.load_checkpoint(str(tmp_path / "cut"))
    advance(second, 1000)
    second.hold_session(wait=True)
    after = {answer.query_id: answer.choice for _, answers in log.read() for answer in answers}
    assert before.items() <= after.items()
    assert second.progress.labels == len(after) == small_run.queries.budget


def test_asynchronous_mode_keeps_its_bounds(small_run: RunConfig, make: Make) -> None:
    """Staleness within its bound, updates per step within 1 % of the config, budget spent exactly."""
    run = changed(small_run, sac={"updates_per_step": 0.5}, total_steps=4000)
    algorithm = make(run)
    row = advance(algorithm, 4000)
    assert 1 <= row["max_staleness"] <= run.rollout.max_staleness
    assert row["updates_per_step"] == pytest.approx(0.5, rel=0.01)
    assert row["labels"] == run.queries.budget


def test_synchronous_mode_keeps_a_fraction_of_an_update_per_step(small_run: RunConfig, make: Make) -> None:
    """Rounded down as a whole, not in each round: its 10 steps are owed 3 or 4 updates."""
    run = synchronous(small_run, sac={"updates_per_step": 0.33}, total_steps=2000)
    row = advance(make(run), 1600)
    assert row["updates"] == int(0.33 * (row["env_steps"] - run.explore.seed_steps))


def test_staleness_bound_of_one_holds(small_run: RunConfig, make: Make) -> None:
    row = advance(make(changed(small_run, rollout={"max_staleness": 1})), 800)
    assert row["max_staleness"] <= 1


def test_learned_reward_is_the_ensembles_and_true_reward_stays_out(small_run: RunConfig, make: Make) -> None:
    algorithm = make(synchronous(small_run))
    advance(algorithm, 600)
    learner = algorithm.learner_group._learner
    rows = slice(0, learner.replay.size)
    obs, action = learner.replay.columns["obs"][rows], learner.replay.columns["action"][rows]
    expected = learner.scorer.score(obs, action)
    torch.testing.assert_close(learner.replay.reward[rows], expected, rtol=1e-5, atol=1e-6)
    assert learner.reward_version == algorithm.feedback.version == 2


def test_before_the_first_label_there_is_no_reward_not_an_untrained_one(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    run = synchronous(small_run, teacher={"name": "silent"})
    algorithm = make(run)
    advance(algorithm, 600)
    assert not algorithm.progress.exploring and algorithm.progress.sessions == 2
    replay = algorithm.learner_group._learner.replay
    assert replay.size >= 600
    assert not replay.reward[: replay.size].any()
    assert len(algorithm.evaluate(2).predicted) == 0, "an untrained model has no accuracy"
    algorithm.save_checkpoint(str(tmp_path / "cut"))
    resumed = make(run)
    resumed.load_checkpoint(str(tmp_path / "cut"))
    advance(resumed, 800)
    replay = resumed.learner_group._learner.replay
    assert replay.size >= 800
    assert not replay.reward[: replay.size].any()


@pytest.mark.parametrize(("teacher", "versions"), [("silent", [0]), ("oracle", [1, 2, 3])])
def test_the_reward_is_sent_once_a_fit(small_run: RunConfig, make: Make, teacher: str, versions: list[int]) -> None:
    """And nothing is relabelled after a session that taught nothing."""
    algorithm = make(synchronous(small_run, teacher={"name": teacher}))
    sent, call = [], algorithm._call_learners

    def watched(chosen: Any, method: str, *args: Any) -> list[Any]:
        if method == "reward_with":
            sent.append(args)
        return call(chosen, method, *args)

    algorithm._call_learners = watched
    assert advance(algorithm, 1000)["sessions"] >= 3
    assert [version for _, _, version in sent] == versions


def test_resets_forget_all_but_the_replay(small_run: RunConfig, make: Make) -> None:
    """The optimisers count the updates since the last one."""
    run = synchronous(small_run, mode="oracle", explore={"seed_steps": 20, "unsupervised_steps": 0})
    algorithm = make(changed(run, sac={"reset_interval": 7}))
    advance(algorithm, 200)
    learner = algorithm.learner_group._learner
    updates, size = learner.updates, learner.replay.size
    learner.learn(7 - updates % 7 + 2)
    arrays = learner.arrays()
    assert {int(value) for name, value in arrays.items() if name.endswith("/step")} == {2}
    assert learner.replay.size == size


@pytest.mark.parametrize("warm_start", [True, False])
def test_a_fit_goes_on_from_the_last_one_or_begins_anew(small_run: RunConfig, make: Make, warm_start: bool) -> None:
    algorithm = make(synchronous(small_run, reward={"warm_start": warm_start, "target_accuracy": 1.0}))
    row = advance(algorithm, 1000)
    [state] = ray.get([role("state") for role in algorithm.feedback._ensemble])
    assert row["labels"] == 12 and row["reward_epochs"] == 5
    assert set(state["adam/step"].tolist()) == {15.0 if warm_start else 5.0}


@pytest.mark.parametrize("groups", [{}, PREFPPO])
def test_a_batch_in_parts_reaches_the_update(small_run: RunConfig, make: Make, groups: Any) -> None:
    learner = make(changed(changed(small_run, **groups), resources={"gradient_parts": 2})).learner_group._learner
    assert learner.update_step._parts == 2


def test_oracle_mode_learns_from_the_true_reward(small_run: RunConfig, make: Make) -> None:
    algorithm = make(changed(small_run, mode="oracle"))
    row = advance(algorithm, 500)
    replay = algorithm.learner_group._learner.replay
    assert row["labels"] == 0
    assert torch.equal(replay.reward[: replay.size], replay.columns["true_reward"][: replay.size])


def test_critic_is_reset_when_exploration_ends_and_the_actor_is_not(small_run: RunConfig, make: Make) -> None:
    run = synchronous(small_run, explore={"critic_reset_updates": 0})
    algorithm = make(run)
    advance(algorithm, 280)
    learner = algorithm.learner_group._learner
    before = {name: array.copy() for name, array in learner.arrays().items()}
    algorithm.end_exploration()
    after = learner.arrays()
    same = {name: np.array_equal(before[name], after[name]) for name in after}
    assert all(same[name] for name in same if name.startswith("networks/actor"))
    assert not any(same[name] for name in same if name.startswith("networks/critic") and name.endswith("weight"))
    assert not any(name.startswith("optimizer/critic") for name in after)
    assert all(same[name] for name in same if name.startswith("optimizer/actor"))


def test_temperature_and_optimisers_come_back_through_rllibs_own_state(small_run: RunConfig, make: Make) -> None:
    """Stock SAC restores log-alpha as 0."""
    first, second = make(small_run, "a"), make(small_run, "b")
    advance(first, 500)
    second.learner_group.set_state(first.learner_group.get_state())
    ours, theirs = (algorithm.learner_group._learner.arrays() for algorithm in (first, second))
    assert float(ours["networks/log_alpha"]) != pytest.approx(np.log(small_run.sac.initial_temperature))
    assert_identical(ours, theirs)


def test_exploration_is_saved_and_serves_another_run(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """Networks, optimisers, replay, statistics and trajectories; not the generator, since seeds differ."""
    saved = tmp_path / "explored"
    run = changed(small_run, explore={"unsupervised_steps": 220})  # ends inside an episode
    first = make(changed(run, explore={"save": str(saved)}), "a")
    advance(first, 400)
    other = changed(run, seed=5, explore={"from": str(saved)}, queries={"selection": "entropy"})
    second = make(other, "b")
    second.load_checkpoint(str(saved), exploration_only=True)
    assert second.progress.exploring and second.progress.env_steps >= 300
    assert_identical(second.learner_group._learner.arrays(), load_file(saved / "learner.safetensors"))
    shard = load_file(saved / "shard000.safetensors")
    ours, theirs = second.learner_group._learner, first.learner_group._learner
    size = ours.replay.size
    assert size == second.progress.env_steps == len(shard["reward"])
    for name, column in ours.replay.columns.items():
        assert torch.equal(column[:size], theirs.replay.columns[name][:size]), name
    np.testing.assert_array_equal(ours.replay.reward[:size], shard["reward"])
    entropy = {name: array for name, array in shard.items() if name.startswith("entropy/")}
    assert len(entropy) > 3
    assert_identical({f"entropy/{name}": array for name, array in ours.entropy.state().items()}, entropy)
    assert not np.array_equal(ours.generator.get_state().numpy(), shard["generator"])
    second.feedback.save(tmp_path / "feedback")
    stored, kept = (
        load_file(place / "trajectories.safetensors") for place in (tmp_path / "feedback", saved / "feedback")
    )
    assert not stored.pop("running").any() and kept.pop("running").any()
    assert_identical(stored, kept)
    row = advance(second, 700)
    assert row["labels"] >= 4


def test_an_oracles_exploration_is_refused_before_anything_is_made(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    saved = tmp_path / "explored"
    advance(make(changed(small_run, mode="oracle", explore={"save": str(saved)})), 400)
    assert checkpoint.explored_steps(saved, changed(small_run, mode="oracle")) >= 300
    with pytest.raises(UserError, match="keeps no trajectories"):
        checkpoint.explored_steps(saved, small_run)


def test_evaluation_is_repeatable_and_does_not_disturb_training(small_run: RunConfig, make: Make) -> None:
    algorithm = make(synchronous(small_run))
    advance(algorithm, 400)
    before = everything(algorithm)
    first, second = (algorithm.evaluate(7) for _ in range(2))
    assert len(first.episodes) == 7
    np.testing.assert_array_equal(first.episodes.true_return, second.episodes.true_return)
    assert len(first.predicted) == len(first.true) == 7 * 50 // small_run.queries.segment_length
    assert_identical(before, everything(algorithm))


def test_more_labels_than_early_ends_leave_segments_for_end_the_run(small_run: RunConfig, make: Make) -> None:
    """Nobody knows before how long episodes last that may end early."""
    queries = {"budget": 30_000, "per_session": 30_000, "segment_length": 25}
    algorithm = make(changed(small_run, **EARLY_ENDS, queries=queries, rollout={"actors": 0}))
    with pytest.raises(SessionError, match="30000 questions are due and the stored episodes hold"):
        advance(algorithm, 700)


def test_environments_in_the_driver_work_too(small_run: RunConfig, make: Make) -> None:
    row = advance(make(changed(small_run, rollout={"actors": 0})), 600)
    assert row["labels"] == 8 and np.isfinite(row["critic_loss"])


ENVPOOL: dict[str, Any] = {"env": {**METAWORLD["env"], "backend": "envpool"}}
CARTPOLE: dict[str, Any] = {"env": {"suite": "dmc", "task": "cartpole-balance", "horizon": 100}}
HOPPER: dict[str, Any] = {"env": {"suite": "gymnasium", "task": "Hopper-v5", "horizon": None}}


@pytest.mark.parametrize(
    ("package", "groups"),
    [
        pytest.param("envpool", ENVPOOL, id="envpool"),
        pytest.param("shimmy", CARTPOLE, id="dmc", marks=pytest.mark.slow),
        pytest.param("mujoco", HOPPER, id="gymnasium", marks=pytest.mark.slow),
    ],
)
def test_the_loop_runs_on_every_kind_of_environment_and_goes_on_after_a_resume(
    small_run: RunConfig, make: Make, tmp_path: Path, package: str, groups: Any
) -> None:
    """The point mass and MetaWorld's package have tests of their own."""
    pytest.importorskip(package)
    run = changed(small_run, **groups, queries={"segment_length": 5}, rollout={"envs_per_actor": 2})
    first = make(run)
    advance(first, 400)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(run)
    second.load_checkpoint(str(tmp_path / "cut"))
    assert_identical(everything(first), everything(second))
    row = advance(second, 800)
    assert row["labels"] == run.queries.budget and np.isfinite(row["critic_loss"])
    result = second.evaluate(2)
    assert len(result.episodes) == 2 and np.isfinite(result.episodes.true_return).all()


def test_members_split_over_actors_give_the_same_ensemble(small_run: RunConfig, make: Make) -> None:
    one = make(synchronous(small_run, reward={"members": 3}), "a/run")
    two = make(synchronous(small_run, reward={"members": 3}, resources={"reward_actors": 2}), "b/run")
    for algorithm in (one, two):
        advance(algorithm, 600)
    assert_identical(everything(one), everything(two))


def test_rllibs_own_counter_goes_on_after_a_resume(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    first = make(small_run, "run")
    advance(first, 400)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(small_run, "run")
    second.load_checkpoint(str(tmp_path / "cut"))
    while second.progress.env_steps <= 400:
        results = second.train()
    assert results["env_runners"]["num_env_steps_sampled_lifetime"] == results["rayrlhf"]["env_steps"] > 400


@pytest.mark.parametrize("actors", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_resume_may_spread_the_members_over_more_or_fewer_actors(
    small_run: RunConfig, make: Make, tmp_path: Path, actors: int
) -> None:
    """Optimisers too: the fits that follow are those of the run that went on."""
    run = synchronous(small_run, reward={"members": 3}, resources={"reward_actors": 2})
    whole = make(run, "run")
    advance(whole, 500)
    whole.save_checkpoint(str(tmp_path / "cut"))
    advance(whole, 800)
    resumed = make(changed(run, resources={"reward_actors": actors}), "run")
    resumed.load_checkpoint(str(tmp_path / "cut"))
    assert resumed.feedback.version == 2
    advance(resumed, 800)
    assert resumed.feedback.version == 3
    assert_identical(everything(whole), everything(resumed))
