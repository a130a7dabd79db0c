"""What happens when something dies, breaks or does not fit, with real processes killed."""

import os
import pickle
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError
from support import PREFPPO, Make, advance, build, changed, small, synchronous

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import Damaged, read_json, write_json
from rayrlhf.algorithms.loop import Interrupted
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config.schema import RunConfig
from rayrlhf.envs import EnvironmentBroken
from rayrlhf.errors import HeldUpError, UserError

pytestmark = pytest.mark.usefixtures("ray_session")


def _kill_runner(algorithm: Pebble, runner: int = 1) -> None:
    group = algorithm.env_runner_group
    (pid,) = group.foreach_env_runner(lambda _: os.getpid(), remote_worker_ids=[runner], local_env_runner=False)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("actors", "groups"), [(1, {}), (2, {}), (2, PREFPPO)])
def test_a_killed_rollout_actor_comes_back(
    small_run: RunConfig, make: Make, actors: int, groups: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the only one: stock RLlib then returns NaN counts. No episode's id is used twice."""
    caplog.set_level("INFO", "rayrlhf")
    algorithm = make(changed(changed(small_run, **groups), rollout={"actors": actors}))
    advance(algorithm, 400)
    before = {runner: list(numbers) for runner, numbers in algorithm.rollouts.episodes.items()}
    _kill_runner(algorithm)
    _until_back(algorithm, caplog)
    row = advance(algorithm, algorithm.progress.env_steps + 1000)
    assert np.isfinite(row["critic_loss" if not groups else "value_loss"]) and row["env_steps"] >= 1400
    assert all(now > then for now, then in zip(algorithm.rollouts.episodes[1], before[1], strict=True))


@pytest.mark.parametrize("actors", [1, 2])
def test_a_rollout_actor_killed_during_an_evaluation_collects_again(
    small_run: RunConfig, make: Make, actors: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its fragment was ready and not yet taken: RLlib drops that with the process, so nobody may wait for it."""
    caplog.set_level("INFO", "rayrlhf")
    algorithm = make(changed(small_run, rollout={"actors": actors, "synchronous": False}))
    advance(algorithm, 400)
    assert set(algorithm.rollouts._in_flight) == set(range(1, actors + 1))
    reports, _, _ = algorithm.env_runner_group._worker_manager._filter_calls_by_tag("report")
    ray.wait(reports, num_returns=len(reports))
    _kill_runner(algorithm)
    assert len(algorithm.evaluate(6).episodes) == 6
    assert advance(algorithm, 1400)["env_steps"] >= 1400
    _until_back(algorithm, caplog)
    assert caplog.messages.count("rollout-1 died; Ray starts it again") == 1


def _until_back(algorithm: Pebble, caplog: pytest.LogCaptureFixture, runner: int = 1) -> None:
    while f"rollout-{runner} is back" not in caplog.messages:
        algorithm.train()


@pytest.mark.parametrize("how", ["rollout", "rollout-stopped", "evaluation"])
def test_an_environment_that_hangs_is_started_anew(
    small_run: RunConfig, make: Make, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it for ever."""
    caplog.set_level("INFO", "rayrlhf")
    env: dict[str, Any] = {"suite": "gymnasium", "task": "broken_envs:Hangs-v0", "horizon": 20}
    algorithm = make(changed(small_run, env=env, rollout={"actors": 2, "timeout_seconds": 3.0}))
    advance(algorithm, 100)
    pids = _pids(algorithm)
    ray.get(algorithm.env_runner_group._worker_manager.actors()[2].apply.remote(partial(_hang, how)))
    if how == "evaluation":
        assert len(algorithm.evaluate(4).episodes) == 4
    _until_back(algorithm, caplog, runner=2)
    advance(algorithm, algorithm.progress.env_steps + 100)
    assert _pids(algorithm)[2] != pids[2]


@pytest.mark.parametrize("groups", [{}, PREFPPO])
def test_a_straggler_holds_up_nobody(small_run: RunConfig, make: Make, groups: Any, tmp_path: Path) -> None:
    """What it returns at last, many learner calls old, is learnt from like anything else."""
    algorithm = make(changed(changed(small_run, **groups), total_steps=5000, rollout={"actors": 2}))
    advance(algorithm, 400)
    go_on = tmp_path / "go-on"

    def hold(_: Any) -> None:
        while not go_on.exists():
            time.sleep(0.05)

    algorithm.env_runner_group._worker_manager.actors()[2].apply.remote(hold)
    row = advance(algorithm, 1500)
    asked = algorithm.rollouts._in_flight[2]
    assert algorithm.progress.learner_calls - asked > algorithm.run.rollout.max_staleness
    go_on.touch()
    while algorithm.rollouts._in_flight.get(2) == asked:
        row = algorithm.train()["rayrlhf"]
    assert row["max_staleness"] > algorithm.run.rollout.max_staleness
    assert np.isfinite(row["critic_loss" if not groups else "value_loss"])


def test_the_only_one_that_hangs_comes_back_though_that_is_seen_late(
    small_run: RunConfig, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The time in which it may come back begins when it is ended, not when it was asked."""
    caplog.set_level("INFO", "rayrlhf")
    env: dict[str, Any] = {"suite": "gymnasium", "task": "broken_envs:Hangs-v0", "horizon": 20}
    algorithm = make(changed(small_run, env=env, rollout={"actors": 1}))
    advance(algorithm, 100)
    algorithm.rollouts.timeout_seconds, algorithm.rollouts.lost_after_seconds = 16.0, 15.0
    ray.get(algorithm.env_runner_group._worker_manager.actors()[1].apply.remote(partial(_hang, "rollout")))
    _until_back(algorithm, caplog)


def test_rollout_actors_that_stay_away_hold_training_up(small_run: RunConfig, make: Make) -> None:
    algorithm = make(changed(small_run, rollout={"actors": 1}))
    advance(algorithm, 100)
    rollouts = algorithm.rollouts
    rollouts.lost_after_seconds = 0.5
    rollouts.restore = lambda: None  # nobody comes back
    _kill_runner(algorithm)
    with pytest.raises(HeldUpError, match="none came back in 0 seconds"):
        advance(algorithm, 10_000)
    with pytest.raises(HeldUpError, match="none came back"):
        algorithm.evaluate(2)


def test_a_learner_that_dies_is_a_loss_whatever_the_others_say_first(small_run: RunConfig, make: Make) -> None:
    """What they meet is a connection that broke: an error of theirs, which would end the run."""
    algorithm = make(changed(small_run, resources={"learners": 2}))
    advance(algorithm, 100)
    algorithm.learner_group.foreach_learner(_make_faulty)
    with pytest.raises(RayTaskError, match="Connection reset"):
        algorithm._call_learners([0], "fault")
    with pytest.raises(RayActorError):
        algorithm._call_learners(range(2), "fault")


def _make_faulty(learner: Any) -> None:
    learner.fault = partial(_fault, learner._learner_index)


def _fault(index: int) -> None:
    if index == 0:
        raise RuntimeError("Connection reset by peer")
    time.sleep(1.0)
    os._exit(1)


def _pids(algorithm: Pebble) -> dict[int, int]:
    actors = algorithm.env_runner_group._worker_manager.actors()
    return {runner: ray.get(actor.apply.remote(lambda _: os.getpid())) for runner, actor in actors.items()}


def _hang(how: str, _: Any) -> None:
    os.environ["HANGS"] = how


def test_a_stop_while_waiting_leaves_what_has_come_on_its_way(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """Both fragments are taken at once, or neither: a checkpoint between them would know of one too many."""
    algorithm = make(synchronous(small_run, rollout={"actors": 2}))
    advance(algorithm, 400)
    rollouts, asked = algorithm.rollouts, dict(algorithm.rollouts.numbers)
    go_on = tmp_path / "go-on"

    def hold(_: Any) -> None:
        while not go_on.exists():
            time.sleep(0.05)

    algorithm.env_runner_group._worker_manager.actors()[2].apply.remote(hold)
    algorithm.request_fragments()

    def stop_when_the_first_is_here() -> None:
        if rollouts._reports:
            raise Interrupted

    rollouts.check = stop_when_the_first_is_here
    with pytest.raises(Interrupted):
        rollouts.collect(version=0, max_staleness=1, everything=True)
    assert rollouts.asked() == asked
    rollouts.check = lambda: None
    go_on.touch()
    arrivals = rollouts.collect(version=0, max_staleness=1, everything=True)
    assert [arrival.runner for arrival in arrivals] == [1, 2]


def test_a_broken_environment_is_named_and_never_enters_the_replay(small_run: RunConfig, make: Make) -> None:
    """Environments from outside the package, in rollout actors, that return NaN in their third episode."""
    env: dict[str, Any] = {"suite": "gymnasium", "task": "broken_envs:BreaksLater-v0", "horizon": 20}
    algorithm = make(changed(small_run, env=env, rollout={"actors": 2}))
    with pytest.raises(EnvironmentBroken, match=r"BreaksLater-v0.*episode 2.*step 6"):
        advance(algorithm, 400)
    replay = algorithm.learner_group._learner.replay
    assert 0 < replay.size < 2 * 47
    assert all(column[: replay.size].isfinite().all() for column in replay.columns.values())


@pytest.fixture(scope="module")
def pristine(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    algorithm = build(small(folder), folder / "run")
    advance(algorithm, 350)
    algorithm.save_checkpoint(str(folder / "saved"))
    algorithm.stop()
    return folder / "saved"


@pytest.fixture
def saved(pristine: Path, tmp_path: Path) -> Path:
    """A checkpoint of the small run, after its first session."""
    shutil.copytree(pristine, tmp_path / "saved")
    return tmp_path / "saved"


def test_checkpoints_hold_no_pickle(saved: Path) -> None:
    for file in (path for path in saved.rglob("*") if path.is_file()):
        with (
            pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)),
            file.open("rb") as content,
        ):
            pickle.load(content)  # a pickle would load


def test_a_damaged_checkpoint_is_refused(saved: Path, small_run: RunConfig) -> None:
    victim = saved / "learner.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"learner\.safetensors is damaged"):
        checkpoint.verify(saved, small_run)


def test_a_replacement_cut_off_between_its_renames_is_undone(saved: Path, small_run: RunConfig) -> None:
    """The old checkpoint has been moved aside and the new one is not in its place: the old one serves again."""
    place, old = saved.parent / "step-350", saved.parent / ".step-350.old"
    saved.rename(old)
    checkpoint.put_all_back(saved.parent)
    assert checkpoint.by_age(saved.parent) == [place]
    checkpoint.verify(place, small_run)
    shutil.copytree(place, old)
    (old / "manifest.json").write_text("{}")
    checkpoint.put_all_back(saved.parent)  # a finished replacement stays
    checkpoint.verify(place, small_run)


@pytest.mark.parametrize("missing", ["learner.safetensors", "manifest.json", "feedback/ensemble000.safetensors"])
def test_an_incomplete_checkpoint_is_refused(saved: Path, small_run: RunConfig, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(UserError, match=Path(missing).name):
        checkpoint.verify(saved, small_run)


def test_json_of_another_program_is_no_checkpoint(saved: Path, small_run: RunConfig) -> None:
    for theirs in ({"format": checkpoint.FORMAT, "name": "theirs"}, [], None):
        write_json(saved / "manifest.json", theirs)
        with pytest.raises(UserError, match="is no checkpoint"):
            checkpoint.verify(saved, small_run)


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"env_steps": 351}},
        {"files": {}},
        {"shards": [{}]},
        {"made_for": []},
        {"seal": "0"},
        {"reward_version": 7},
    ],
)
def test_a_manifest_that_is_still_json_but_not_what_was_saved_is_damaged(
    saved: Path, small_run: RunConfig, change: dict[str, Any]
) -> None:
    manifest = read_json(saved / "manifest.json")
    write_json(saved / "manifest.json", manifest | change)
    with pytest.raises(Damaged, match=r"manifest\.json is damaged"):
        checkpoint.verify(saved, small_run)
    write_json(saved / "manifest.json", manifest)
    checkpoint.verify(saved, small_run)


def test_a_checkpoint_of_a_newer_format_is_refused(saved: Path, small_run: RunConfig) -> None:
    manifest = read_json(saved / "manifest.json")
    write_json(saved / "manifest.json", {**manifest, "format": checkpoint.FORMAT + 1})
    with pytest.raises(UserError, match="format"):
        checkpoint.verify(saved, small_run)
    saved.rename(saved.with_name("step-1"))
    with pytest.raises(UserError, match="format"):
        checkpoint.refuse_changes(saved.parent, small_run)


@pytest.mark.parametrize(
    ("group", "named"),
    [
        ({"sac": {"hidden": [32, 32]}}, "sac.hidden"),
        ({"env": {"task": "point-terminating"}}, "env.task"),
        ({"sac": {"layer_norm": True}}, "sac.layer_norm"),
    ],
)
def test_a_foreign_checkpoint_is_refused(saved: Path, small_run: RunConfig, group: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        checkpoint.verify(saved, changed(small_run, **group))


@pytest.mark.parametrize(
    ("group", "key", "other"),
    [("reward", "normalize_rewards", True), ("sac", "layer_norm", True), ("env", "action_repeat", 2)],
)
def test_a_checkpoint_from_before_an_option_fits_a_run_with_its_default(
    saved: Path, small_run: RunConfig, group: str, key: str, other: float
) -> None:
    manifest = read_json(saved / "manifest.json")
    del manifest["made_for"][group][key]
    write_json(saved / "manifest.json", manifest | {"seal": checkpoint.seal(manifest)})
    checkpoint.verify(saved, small_run)
    with pytest.raises(UserError, match=rf"{group}\.{key}"):
        checkpoint.verify(saved, changed(small_run, **{group: {key: other}}))


def test_a_checkpoint_fits_whatever_the_threads(saved: Path, small_run: RunConfig) -> None:
    checkpoint.verify(saved, changed(small_run, env={"threads": 2}, resources={"threads": 2}))


def test_a_checkpoint_after_exploration_is_no_explore_from(saved: Path, small_run: RunConfig, make: Make) -> None:
    with pytest.raises(UserError, match="after the exploration"):
        make(small_run, "other").load_checkpoint(str(saved), exploration_only=True)


def test_a_full_disk_leaves_the_previous_checkpoint(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """A real full file system, where one can be mounted; the second checkpoint does not fit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=1200k tmpfs {disk} 2>/dev/null"):
        pytest.skip("mounting needs root")
    try:
        algorithm = make(small_run)
        advance(algorithm, 350)
        algorithm.save_checkpoint(str(disk / "step-1"), shared_rows=True)
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 40_000))
        advance(algorithm, 500)
        with pytest.raises(UserError, match="No space left"):
            algorithm.save_checkpoint(str(disk / "step-2"), shared_rows=True)
        assert checkpoint.by_age(disk) == [disk / "step-1"]
        checkpoint.verify(disk / "step-1", small_run)
        advance(algorithm, 600)
    finally:
        os.system(f"umount {disk}")


def test_two_learners_share_every_parameter_and_the_temperature(small_run: RunConfig, make: Make) -> None:
    """Stock SAC lets each learner's temperature drift; ours are reduced like all gradients, and shards differ."""
    algorithm = make(changed(small_run, resources={"learners": 2}))
    row = advance(algorithm, 600)
    first, second = algorithm._on_learners("arrays")
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], rtol=1e-6, atol=1e-7, err_msg=name)
    assert float(first["networks/log_alpha"]) != pytest.approx(np.log(small_run.sac.initial_temperature))
    sizes = algorithm._on_learners("replay_size")
    assert sum(sizes) == row["env_steps"] and min(sizes) > 0
