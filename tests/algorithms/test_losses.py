"""Processes that die, hang or raise in the middle of a run, and environments that break late or never start."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch
from support import Make, advance, build, changed, small, synchronous

from rayrlhf.algorithms import rollouts
from rayrlhf.algorithms.files import read_arrays
from rayrlhf.algorithms.loop import Interrupted
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.faulty import processes_titled
from rayrlhf.cli.guard import one_line
from rayrlhf.config.schema import RunConfig
from rayrlhf.envs import EnvironmentBroken
from rayrlhf.errors import UserError

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(120)]


def pid_of(algorithm: Pebble, runner: int = 1) -> int:
    group = algorithm.env_runner_group
    (pid,) = group.foreach_env_runner(lambda _: os.getpid(), remote_worker_ids=[runner], local_env_runner=False)
    return int(pid)


# --- rollout actors ---


@pytest.mark.parametrize("killed_at", [20, pytest.param(70, marks=pytest.mark.slow)])
def test_a_rollout_actor_killed_between_rounds_uses_no_episode_twice(
    small_run: RunConfig, make: Make, tmp_path: Path, killed_at: int
) -> None:
    """Inside the first episode, whose number a new process would take for its own, and inside the second."""
    algorithm = make(synchronous(small_run, explore={"seed_steps": 300}))
    advance(algorithm, killed_at)
    os.kill(pid_of(algorithm), signal.SIGKILL)
    advance(algorithm, 250)
    algorithm.feedback.save(tmp_path / "feedback")
    stored = read_arrays(tmp_path / "feedback" / "trajectories.safetensors")
    episodes, lengths = stored["episode"].tolist(), stored["length"].tolist()
    assert len(set(episodes)) == len(episodes), episodes
    assert sum(stored["running"]) <= 1
    cut = episodes.index(killed_at // 50)
    assert lengths[cut] == killed_at % 50 and stored["first"][cut] == 0
    assert sum(lengths) == algorithm.progress.env_steps


def test_a_rollout_actor_that_hangs_while_it_comes_back_is_started_anew(
    small_run: RunConfig, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The process that Ray starts in a dead one's place stands still; the other actor's steps are counted meanwhile."""
    algorithm = make(changed(small_run, mode="oracle", rollout={"actors": 2}))
    advance(algorithm, 20)
    pids = [pid_of(algorithm, runner) for runner in (1, 2)]
    os.kill(pids[1], signal.SIGKILL)
    found: list[int] = []
    while not found:
        found = [pid for pid in processes_titled("ray::RolloutActor", psutil.Process().children(recursive=True))]
        found = [pid for pid in found if pid not in pids]
    os.kill(found[0], signal.SIGSTOP)
    while 2 not in algorithm.rollouts._pings:
        algorithm.train()
    advance(algorithm, algorithm.progress.env_steps + 100)
    assert algorithm.rollouts.runners() == [1]
    algorithm.rollouts._pings[2].overdue = 0.0  # it was asked long ago
    algorithm.train()
    assert "rollout-2 does not return: it is started anew" in caplog.messages
    while algorithm.rollouts.runners() != [1, 2]:
        algorithm.train()
    assert pid_of(algorithm, 2) not in (*pids, *found)


def test_ctrl_c_ends_the_wait_for_a_rollout_actor_that_hangs(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """Stopped by a signal inside an episode of a synchronous run; the checkpoint and the end do not wait for it."""
    algorithm = build(synchronous(small_run), tmp_path / "run")
    advance(algorithm, 20)
    pid = pid_of(algorithm)
    os.kill(pid, signal.SIGSTOP)
    try:
        threading.Timer(1.0, algorithm.interrupted.set).start()
        with pytest.raises(Interrupted):
            algorithm.collect()
        algorithm.cut()
        algorithm.save_checkpoint(str(tmp_path / "saved"))
        algorithm.stop()
    finally:
        os.kill(pid, signal.SIGCONT)
    resumed = make(synchronous(small_run))
    resumed.load_checkpoint(str(tmp_path / "saved"))
    assert resumed.rollouts.numbers == {1: 2}  # the fragment that never came is asked for again
    advance(resumed, 40)
    assert resumed.rollouts.episodes[1] == [1]


def test_what_is_on_its_way_when_the_critic_is_reset_does_not_grow_too_stale(
    small_run: RunConfig, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One actor hangs while the other brings exploration to its end; its fragment is one call old, not two."""
    monkeypatch.setattr(rollouts, "STRAGGLER_SECONDS", 60.0)  # else nobody waits for it
    explore = {"seed_steps": 95, "unsupervised_steps": 0}
    algorithm = make(changed(small_run, mode="oracle", explore=explore, rollout={"actors": 2, "max_staleness": 1}))
    advance(algorithm, 20)
    pid = pid_of(algorithm, 2)
    os.kill(pid, signal.SIGSTOP)
    try:
        while algorithm.progress.exploring:
            algorithm.train()
    finally:
        os.kill(pid, signal.SIGCONT)
    row = advance(algorithm, 300)
    assert row["max_staleness"] == 1


def test_after_the_critics_reset_rollouts_act_with_what_was_learnt_then(small_run: RunConfig, make: Make) -> None:
    explore = {"seed_steps": 100, "unsupervised_steps": 0}
    algorithm = make(synchronous(small_run, mode="oracle", explore=explore, rollout={"actors": 0}))
    before = ray.get(algorithm._policy)
    while algorithm.progress.exploring:
        algorithm.train()
    algorithm.request_fragments()
    acting = algorithm.env_runner_group.local_env_runner.collector.policy.state_dict()
    learnt = algorithm.learner_group._learner.actor_weights()
    for name, value in learnt.items():
        np.testing.assert_array_equal(acting[name].numpy(), value, err_msg=name)
    assert any(not np.array_equal(before[name], value) for name, value in learnt.items())


# --- environments ---


def gym_run(run: RunConfig, name: str, **groups: Any) -> RunConfig:
    env = {"suite": "gymnasium", "task": f"broken_envs:{name}-v0", "horizon": 20}
    return changed(run, mode="oracle", env=env, queries={"segment_length": 20}, **groups)


@pytest.mark.parametrize(
    ("name", "raised", "said"),
    [
        ("BreaksInEvaluation", EnvironmentBroken, "not finite"),
        ("NotMadeForEvaluation", UserError, "no second one"),
    ],
)
def test_an_environment_that_breaks_in_evaluation_ends_the_run(
    small_run: RunConfig, make: Make, name: str, raised: type[Exception], said: str
) -> None:
    algorithm = make(gym_run(small_run, name))
    advance(algorithm, 20)
    with pytest.raises(UserError, match=said), one_line():
        try:
            algorithm.evaluate(2)
        except Exception as error:
            assert isinstance(error, raised)
            raise


@pytest.mark.parametrize(("name", "said"), [("NeverMade", "cannot find its model"), ("NeverStarts", "cannot start")])
def test_an_environment_that_never_runs_says_why(small_run: RunConfig, make: Make, name: str, said: str) -> None:
    algorithm = make(gym_run(small_run, name))
    with pytest.raises(UserError, match=said), one_line():
        algorithm.train()


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_an_environment_that_kills_its_process_every_time_ends_the_run(small_run: RunConfig, make: Make) -> None:
    algorithm = make(gym_run(small_run, "DiesAtReset"))
    with pytest.raises(UserError, match="rollout actors died"):
        advance(algorithm, 20)


# --- learners and the reward model ---


@pytest.fixture(scope="module")
def two_learners(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """Two learners, fed by one rollout actor, without a single step before the reward comes into play."""
    folder = tmp_path_factory.mktemp("learners")
    explore = {"seed_steps": 0, "unsupervised_steps": 0, "critic_reset_updates": 5}
    run = changed(small(folder), mode="oracle", explore=explore, resources={"learners": 2})
    algorithm = build(run, folder / "run")
    yield algorithm
    algorithm.stop()


def test_two_learners_begin_only_when_both_have_rows(two_learners: Pebble) -> None:
    """The first round feeds one: it would wait for the other's gradients for ever."""
    row = advance(two_learners, 60)
    assert np.isfinite(row["critic_loss"]) and row["reset_updates"] == 5
    assert all(two_learners._on_learners("replay_size"))


def test_two_learners_draw_differently(two_learners: Pebble) -> None:
    """RLlib gives all learners one seed: each shard would be drawn from alike."""
    workers = two_learners.learner_group._workers
    seeds = ray.get([worker.apply.remote(lambda learner: learner.generator.initial_seed()) for worker in workers])
    assert len(set(seeds)) == 2


def test_an_error_in_one_of_two_learners_is_raised_at_once(two_learners: Pebble) -> None:
    """In `insert`, and in `learn`, where the healthy one waits for gradients that never come."""

    def poison(learner: Any, attribute: str) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"poisoned {attribute}")

        setattr(learner, attribute, fail)

    def cure(learner: Any, attribute: str) -> None:
        delattr(learner, attribute)

    advance(two_learners, 80)
    workers = two_learners.learner_group._workers
    ray.get(workers[1].apply.remote(lambda learner: poison(learner, "insert")))
    with pytest.raises(RuntimeError, match="poisoned insert"):
        advance(two_learners, 200)
    ray.get(workers[1].apply.remote(lambda learner: cure(learner, "insert")))
    ray.get(workers[1].apply.remote(lambda learner: poison(learner, "_draw_and_update")))
    with pytest.raises(RuntimeError, match="poisoned _draw_and_update"):
        advance(two_learners, 400)


def test_a_learner_that_diverges_is_one_line(small_run: RunConfig, make: Make) -> None:
    algorithm = make(synchronous(small_run, mode="oracle", rollout={"actors": 0}))
    advance(algorithm, 120)
    with torch.no_grad():
        next(algorithm.learner_group._learner.networks.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match=r"diverged.*sac\.\*_lr"), one_line():
        advance(algorithm, 200)


def test_a_killed_reward_host_is_one_line(small_run: RunConfig, make: Make) -> None:
    algorithm = make(changed(small_run, rollout={"actors": 0}))
    advance(algorithm, 50)
    host = algorithm.feedback._trajectories.host
    os.kill(ray.get(host.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    with pytest.raises(UserError, match=r"died.*--resume"), one_line():
        advance(algorithm, 1000)
