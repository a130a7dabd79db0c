"""Checkpoints of runs that went back, changed their size, or start from another run's exploration."""

from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Make, advance, build, changed, everything, small, synchronous

from rayrlhf.algorithms import checkpoint, shards
from rayrlhf.algorithms.collector import EPISODE_BITS, environment_of
from rayrlhf.algorithms.files import OnDisk
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.algorithms.progress import Plan, Progress
from rayrlhf.algorithms.replay import COLUMNS, Replay, Rows
from rayrlhf.algorithms.rollouts import Arrival
from rayrlhf.algorithms.shards import load_rows, reward_column, save_rows
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError


def rows(first: int, count: int) -> Rows:
    """Rows that carry their number in every column."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    return Rows(
        number[:, None].repeat(1, 3),
        number[:, None].repeat(1, 2),
        number[:, None].repeat(1, 3) + 0.5,
        number,
        number % 2,
    )


def empty(capacity: int) -> Replay:
    replay = Replay(capacity, 3, 2)
    for column in replay.columns.values():
        column.fill_(torch.nan)  # what was never written shows
    return replay


def insert(replay: Replay, first: int, count: int) -> None:
    for begin in range(first, first + count):
        replay.insert(rows(begin, 1), -torch.ones(1) * begin)


def reloaded(replay: Replay, folder: Path, capacity: int) -> Replay:
    again = empty(capacity)
    load_rows(again, OnDisk(folder), [save_rows(replay, OnDisk(folder), 0)], [reward_column(replay)], slice(None))
    return again


def numbers(replay: Replay) -> list[int]:
    """The rows' numbers in the order of insertion; every column must tell the same."""
    slots = torch.arange(replay.inserted - replay.size, replay.inserted) % replay.capacity
    found = replay.columns["true_reward"][slots]
    for name in ("obs", "action"):
        torch.testing.assert_close(replay.columns[name][slots], found[:, None].expand_as(replay.columns[name][slots]))
    torch.testing.assert_close(replay.columns["next_obs"][slots, 0], found + 0.5)
    torch.testing.assert_close(replay.reward[slots], -found)
    return [int(number) for number in found]


def test_chunks_of_another_time_line_are_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved at 15 and 35 rows; back to 15, and other rows up to 35 are saved to the same folder."""
    monkeypatch.setattr(shards, "CHUNK", 10)
    first = empty(100)
    insert(first, 0, 15)
    back = reloaded(first, tmp_path, 100)
    insert(first, 15, 20)
    late = save_rows(first, OnDisk(tmp_path), 0)
    insert(back, 1015, 20)
    assert numbers(reloaded(back, tmp_path, 100)) == [*range(15), *range(1015, 1035)]
    of_first = empty(100)
    load_rows(of_first, OnDisk(tmp_path), [late], [reward_column(first)], slice(None))
    assert numbers(of_first) == list(range(35))


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(0, 70), st.integers(4, 70), st.integers(0, 30))
def test_another_capacity_keeps_the_newest_rows_and_makes_none_up(
    tmp_path_factory: pytest.TempPathFactory, before: int, count: int, after: int, more: int
) -> None:
    """Before and after the ring is full, into a larger and a smaller one, and on from there through a second save."""
    folder = tmp_path_factory.mktemp("rows")
    chunk, shards.CHUNK = shards.CHUNK, 10
    try:
        replay = empty(before)
        insert(replay, 0, count)
        again = reloaded(replay, folder, after)
        assert numbers(again) == numbers(replay)[-after:]
        kept = numbers(again)
        insert(again, count, more)
        assert numbers(again) == [*kept, *range(count, count + more)][-after:]
        assert numbers(reloaded(again, folder, after)) == numbers(again)
    finally:
        shards.CHUNK = chunk


def oracle(run: RunConfig) -> RunConfig:
    """Without roles around the reward and without rollout actors: no process but this one."""
    return synchronous(run, mode="oracle", rollout={"actors": 0})


@pytest.mark.usefixtures("ray_session")
def test_a_replay_saved_after_going_back_is_the_one_that_comes_back(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    """The whole loop: the second time line learns faster, so its rows differ under the same numbers."""
    run, folder = oracle(small_run), tmp_path / "checkpoints"
    first = make(run)
    advance(first, 350)
    first.save_checkpoint(str(folder / "step-350"), shared_rows=True)
    advance(first, 450)
    first.save_checkpoint(str(folder / "step-450"), shared_rows=True)
    second = make(changed(run, sac={"actor_lr": 0.01}))
    second.load_checkpoint(str(folder / "step-350"))
    advance(second, 450)
    second.save_checkpoint(str(folder / "step-450"), shared_rows=True)
    expected = everything(second)
    assert not np.array_equal(expected["replay/obs"], everything(first)["replay/obs"])
    third = make(run)
    third.load_checkpoint(str(folder / "step-450"))
    for name, array in everything(third).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    checkpoint.prune(folder, keep=1)
    checkpoint.verify(folder / "step-450", run)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("before", "after"), [(600, 900), (900, 600)])
def test_a_run_is_resumed_with_another_length_and_replay(
    small_run: RunConfig, make: Make, tmp_path: Path, before: int, after: int
) -> None:
    """The replay holds 400 rows at first and as many as `total_steps` asks for later, or the reverse."""
    run = oracle(changed(small_run, explore={"unsupervised_steps": 100}))
    sizes = {600: 400, 900: 800}
    first = make(changed(run, total_steps=before, sac={"replay_capacity": sizes[before]}))
    advance(first, 600)
    first.save_checkpoint(str(tmp_path / "saved"))
    second = make(changed(run, total_steps=after, sac={"replay_capacity": sizes[after]}))
    second.load_checkpoint(str(tmp_path / "saved"))
    old, new = (algorithm.learner_group._learner.replay for algorithm in (first, second))
    assert new.size == min(old.size, sizes[after])

    def ordered(replay: Replay, name: str) -> np.ndarray:
        slots = torch.arange(replay.inserted - replay.size, replay.inserted) % replay.capacity
        column = replay.reward if name == "reward" else replay.columns[name]
        return column[slots].numpy()[-new.size :]

    for name in (*COLUMNS, "reward"):
        np.testing.assert_array_equal(ordered(new, name), ordered(old, name), err_msg=name)
    row = advance(second, 650)
    assert np.isfinite(row["critic_loss"])


@pytest.fixture(scope="module")
def explored(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with one environment in the driver found in 200 steps of exploration."""
    folder = tmp_path_factory.mktemp("explored")
    run = oracle(changed(small(folder), explore={"seed_steps": 100, "unsupervised_steps": 100}))
    algorithm = build(changed(run, explore={"save": str(folder / "saved")}), folder / "run")
    advance(algorithm, 210)
    algorithm.stop()
    return folder / "saved"


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("unsupervised", [0, 250])
def test_exploration_serves_a_run_of_another_shape_and_owes_no_burst_of_updates(
    explored: Path, small_run: RunConfig, make: Make, unsupervised: int
) -> None:
    """Another number of actors, environments and steps of exploration, also when there are more still to come."""
    explore = {"unsupervised_steps": unsupervised, "critic_reset_updates": 0}
    rollout = {"actors": 1, "envs_per_actor": 2}
    run = changed(small_run, mode="oracle", explore=explore, rollout=rollout, sac={"updates_per_step": 3.0})
    algorithm = make(run)
    algorithm.load_checkpoint(str(explored), exploration_only=True)
    before = algorithm.progress.env_steps
    learner = algorithm.learner_group._learner
    assert before == learner.replay.size == 200
    assert algorithm.plan.updates_due(algorithm.progress) == 0
    learnt = learner.updates
    while algorithm.progress.env_steps < 400:
        algorithm.train()
        assert learner.updates - learnt <= 3 * (algorithm.progress.env_steps - before)
    assert learner.updates > learnt and not algorithm.progress.exploring


def stored_episodes(algorithm: Pebble, steps: int) -> set[int]:
    """Trains to `steps`; ids of the episodes that came in."""
    found: set[int] = set()
    collect = algorithm.collect

    def noted() -> list[Arrival]:
        arrivals = collect()
        for arrival in arrivals:
            found.update(ray.get(arrival.fragment).episode.ravel().tolist())
        return arrivals

    algorithm.collect = noted  # type: ignore[method-assign]
    advance(algorithm, steps)
    return found


@pytest.mark.usefixtures("ray_session")
def test_episodes_keep_their_ids_over_any_number_of_actors(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """The driver steps the environments of the first actor; one more actor goes on where it was left off."""
    run, seen = changed(small_run, mode="oracle"), set[int]()
    for stage, actors in enumerate((1, 0, 2, 1, 2, 0)):
        algorithm = make(changed(run, rollout={"actors": actors}))
        if stage:
            algorithm.load_checkpoint(str(tmp_path / f"{stage - 1}"))
        new = stored_episodes(algorithm, algorithm.progress.env_steps + 120)
        assert new and not new & seen
        assert {environment_of(episode) for episode in new} == set(range(max(1, actors)))
        seen |= new
        algorithm.save_checkpoint(str(tmp_path / f"{stage}"))
        algorithm.stop()
    # no environment skips more than what each of its stages may have lost in flight
    for env in range(2):
        own = [episode & (2**EPISODE_BITS - 1) for episode in seen if environment_of(episode) == env]
        assert max(own) <= len(own) + 3 * 6


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("before", "after"), [((1, 1), (1, 2)), ((1, 3), (0, 1)), ((1, 3), (2, 2)), ((0, 2), (1, 1))])
def test_an_exploration_by_environments_of_another_number_is_gone_on_from(
    small_run: RunConfig, make: Make, tmp_path: Path, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """(actors, environments each); no episode of the exploration is stored again under the same id."""
    run = changed(small_run, mode="oracle", explore={"seed_steps": 100, "unsupervised_steps": 300})
    first, second = (
        make(changed(run, rollout=dict(zip(("actors", "envs_per_actor"), shape, strict=True))))
        for shape in (before, after)
    )
    old = stored_episodes(first, 250)
    first.save_checkpoint(str(tmp_path / "saved"))
    second.load_checkpoint(str(tmp_path / "saved"), exploration_only=True)
    new = stored_episodes(second, 600)
    assert old and new and not old & new
    assert {environment_of(episode) for episode in new} == set(range(max(1, after[0]) * after[1]))


def test_sessions_after_a_longer_exploration_of_another_run_keep_their_pace() -> None:
    run = load_config(
        "toy", ["total_steps=20000", "queries.budget=50", "queries.per_session=10", "queries.interval=500"]
    )
    plan, progress = Plan(run), Progress(env_steps=8000, borrowed=8000)
    held = []
    while progress.sessions < 5:
        if questions := plan.questions_due(progress):
            held.append((progress.env_steps, questions))
            progress.sessions, progress.labels = progress.sessions + 1, progress.labels + questions
        progress.env_steps += 10
    assert held == [(8000 + 500 * session, 10) for session in range(5)]


@pytest.mark.usefixtures("ray_session")
def test_random_steps_alone_serve_a_run_that_explores(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    run = oracle(small_run)
    first = make(changed(run, explore={"unsupervised_steps": 0, "save": str(tmp_path / "saved")}))
    advance(first, 110)
    second = make(run)
    second.load_checkpoint(str(tmp_path / "saved"), exploration_only=True)
    assert len(second.learner_group._learner.entropy) == second.learner_group._learner.replay.size == 100
    advance(second, 150)


@pytest.mark.usefixtures("ray_session")
def test_more_exploration_than_the_run_is_long_is_refused(explored: Path, small_run: RunConfig, make: Make) -> None:
    explore = {"seed_steps": 50, "unsupervised_steps": 50}
    algorithm = make(oracle(changed(small_run, total_steps=200, explore=explore)))
    with pytest.raises(UserError, match="raise total_steps"):
        algorithm.load_checkpoint(str(explored), exploration_only=True)


def test_a_replay_too_small_for_exploration_is_refused() -> None:
    with pytest.raises(UserError, match="replay_capacity"):
        load_config("toy", ["--sac.replay_capacity=100"])
