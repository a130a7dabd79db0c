"""`rayrlhf train` as a user has it: real processes, killed and interrupted, and what they leave behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
import ray
from support import SMALL, changed

from rayrlhf import training
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.algorithms.roles import Feedback
from rayrlhf.config import RunConfig
from rayrlhf.config.load import load_config
from rayrlhf.envs import make_env
from rayrlhf.errors import UserError
from rayrlhf.evaluating import PAUSE_FRAMES
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory, read_metrics
from rayrlhf.training import check_first_session

RAYRLHF = [sys.executable, "-m", "rayrlhf"]


def start(*args: str, program: list[str] = RAYRLHF) -> subprocess.Popen[str]:
    """A `rayrlhf` process of its own group, so that signals reach it alone."""
    return subprocess.Popen(
        [*program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def small(folder: Path, *args: str) -> list[str]:
    return ["train", "toy", *SMALL, "--name=run", f"--storage_path={folder}", "--checkpoint.interval=200", *args]


def wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "checkpoints").glob("step-*"))


def answers(folder: Path) -> dict[str, str]:
    log = PreferenceDataset(str(folder / "run" / "preferences"))
    return {answer.query_id: answer.choice for _, said in log.read() for answer in said}


def test_a_run_leaves_all_it_promises(tmp_path: Path) -> None:
    code, out, err = finish(start(*small(tmp_path, "--json", "--tracking.tensorboard=true", "--evaluation.videos=2")))
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    run = tmp_path / "run"
    assert summary == json.loads((run / "summary.json").read_text())
    promised = "task algorithm seed labels env_steps updates wall_seconds success_rate eval_episodes true_return_mean"
    assert set(promised.split()) | {"reward_model_accuracy"} <= summary.keys()
    assert summary["task"] == "point" and summary["algorithm"] == "pebble"
    assert 0 <= summary["success_rate"] <= 1 and summary["labels"] == len(answers(tmp_path)) == 12
    assert summary["env_steps"] >= 1000
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == sorted(row["env_steps"] for row in rows)
    for pattern in ("config.yaml", "manifest.json", "tensorboard/events*", "plots/*.png"):
        assert list(run.glob(pattern)), pattern
    (video,) = run.glob("videos/*.mp4")
    with av.open(str(video)) as film:
        horizon = make_env(RunDirectory.open(run).config().env, 1, seed=0).spec.horizon
        assert len(list(film.decode(video=0))) == 2 * (horizon + PAUSE_FRAMES)
    said = [line.split(maxsplit=1) for line in out.splitlines()]
    told = [(words[0], Path(words[1])) for words in said if len(words) == 2 and words[0] in ("plot", "video", "run")]
    assert {name for name, _ in told} == {"plot", "video", "run"} and all(place.exists() for _, place in told)
    assert "success" in out and f"{summary['success_rate']:.0%} of {summary['eval_episodes']} episodes" in out
    code, out, err = finish(start("eval", str(run), "--episodes=5", "--json"))
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["eval_episodes"] == 5


@pytest.mark.parametrize(
    ("role", "learners", "name"),
    [
        ("ray::RewardHost", 0, "reward-0"),
        pytest.param("ray::_WrappedExecutable", 1, "learner", marks=pytest.mark.slow),
        pytest.param("ray::_WrappedExecutable", 2, "learner", marks=pytest.mark.slow),
    ],
)
def test_a_reward_actor_or_a_learner_that_dies_is_built_anew_from_the_checkpoint(
    tmp_path: Path, role: str, learners: int, name: str
) -> None:
    """One of them dies: of two learners the other waits for its gradients."""
    more = [f"--resources.learners={learners}"]
    process = start(*small(tmp_path, "--total_steps=1500", "--json", *more))
    wait_for(lambda: checkpoints(tmp_path), process)
    victims = [one for one in psutil.Process(process.pid).children(recursive=True) if one.name().startswith(role[:12])]
    assert len(victims) == max(1, learners)
    victims[0].kill()
    code, out, err = finish(process)
    assert code == 0, err
    assert "going on from its last checkpoint" in err + out
    told = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [one["who"] for one in told if one["event"] == "lost"] == [name]
    summary = json.loads(out.splitlines()[-1])
    assert summary["env_steps"] >= 1500 and summary["labels"] == 12
    assert len(answers(tmp_path)) == 12


def test_a_learner_that_dies_while_roles_are_started_ends_no_run(
    ray_session: None, small_run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_feedback, killed = Pebble._make_feedback, list[int]()

    def kill_before(algorithm: Pebble) -> Feedback | None:
        if not killed:
            killed.append(ray.get(algorithm.learner_group._workers[0].apply.remote(lambda _: os.getpid())))
            os.kill(killed[0], signal.SIGKILL)
        return make_feedback(algorithm)

    monkeypatch.setattr(Pebble, "_make_feedback", kill_before)
    run = changed(small_run, resources={"learners": 1}, total_steps=600, queries={"budget": 4})
    summary = training.train(run, progress=False)
    assert summary["env_steps"] >= 600 and len(killed) == 1


def untimed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


def test_kill_minus_nine_and_resume_equals_a_run_never_killed(tmp_path: Path) -> None:
    """Synchronous, killed after its second checkpoint: labels, networks, rewards and summary are bit for bit equal."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    code, _, err = finish(start(*small(straight, "--rollout.synchronous=true")))
    assert code == 0, err
    process = start(*small(broken, "--rollout.synchronous=true"))
    wait_for(lambda: len(checkpoints(broken)) >= 2, process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (broken / "run" / "summary.json").exists(), "it had ended before it was killed"
    before = answers(broken)
    code, _, err = finish(start("train", f"--resume={broken / 'run'}"))
    assert code == 0, err
    assert before.items() <= answers(broken).items()
    assert answers(broken) == answers(straight)
    last = [sorted(checkpoints(folder))[-1] for folder in (straight, broken)]
    assert last[0].name == last[1].name
    for file in ("learner.safetensors", "shard000.safetensors", "feedback/ensemble000.safetensors"):
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes(), file
    rows = [untimed(read_metrics(folder / "run" / "metrics.jsonl")) for folder in (straight, broken)]
    assert rows[0] == rows[1]
    finals = [json.loads((folder / "run" / "summary.json").read_text()) for folder in (straight, broken)]
    for name in finals[0].keys() - {"wall_seconds"}:
        assert finals[0][name] == finals[1][name], name


KILLED_WHILE_SAVING = """
import os, signal, sys
from rayrlhf.algorithms import checkpoint
from rayrlhf.cli import main

def write_and_die(algorithm, *args, write=checkpoint._write):
    write(algorithm, *args)
    if algorithm.progress.env_steps >= 500:
        os.killpg(0, signal.SIGKILL)

checkpoint._write = write_and_die
sys.exit(main(sys.argv[1:]))
"""
"""`rayrlhf` that dies when all files of a later checkpoint are written, before it gets its name."""


@pytest.mark.parametrize("saving", [pytest.param(False, marks=pytest.mark.slow), True])
def test_kill_minus_nine_loses_no_answer_and_no_whole_checkpoint(tmp_path: Path, saving: bool) -> None:
    """Asynchronous; before there is a checkpoint, and in the middle of writing one."""
    if saving:
        process = start(*small(tmp_path), program=[sys.executable, "-c", KILLED_WHILE_SAVING])
    else:
        process = start(*small(tmp_path, "--checkpoint.interval=100000", "--total_steps=100000"))
        wait_for(lambda: answers(tmp_path), process)
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    before, saved, run = answers(tmp_path), checkpoints(tmp_path), tmp_path / "run"
    assert before
    assert bool(saved) == bool(list((run / "checkpoints").glob(".step-*.part"))) == saving
    code, _, err = finish(start("train", f"--resume={run}", "--total_steps=1000"))
    assert code == 0, err
    assert before.items() <= answers(tmp_path).items()
    assert json.loads((run / "summary.json").read_text())["labels"] == len(answers(tmp_path)) == 12
    assert not list((run / "checkpoints").glob(".step-*"))
    *steps, final = [row["env_steps"] for row in read_metrics(run / "metrics.jsonl")]
    assert steps == sorted(set(steps)) and final == steps[-1], "each row once, and the final evaluation's"


def test_where_nothing_can_be_drawn_a_run_ends_without_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")
    task = ["--env.suite=metaworld", "--env.task=reach", "--env.horizon=20", "--queries.segment_length=10"]
    evaluation = ["--evaluation.final_episodes=2", "--evaluation.interval=1000", "--evaluation.videos=1"]
    code, out, err = finish(start(*small(tmp_path, *task, *evaluation, "--json")))
    assert code == 0, err
    assert "video   none: " in out and "switched off by MUJOCO_GL=off: unset it" in out
    assert json.loads(out.splitlines()[-1])["labels"] == 12


@pytest.mark.parametrize(
    ("number", "everyone"),
    [(signal.SIGINT, False), pytest.param(signal.SIGINT, True, marks=pytest.mark.slow), (signal.SIGTERM, False)],
)
def test_ctrl_c_and_kill_leave_a_checkpoint_and_say_how_to_go_on(tmp_path: Path, number: int, everyone: bool) -> None:
    process = start(*small(tmp_path, "--total_steps=100000", "--checkpoint.interval=1000000"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 2, process)
    # to Ray's processes too where a terminal sends it; to this one where `kill` or a batch system does
    os.killpg(process.pid, number) if everyone else os.kill(process.pid, number)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    assert f"rayrlhf train --resume {tmp_path / 'run'}" in err
    assert len(checkpoints(tmp_path)) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--env.suite=metaworld", "--env.task=drawer-opn"], "drawer-open"),
        (["--queries.budget=100000", "--queries.per_session=10"], "queries.per_session"),
        (["--queries.budget=100000", "--queries.per_session=100000"], "lower queries.per_session"),
        (["--env.horizon=none", "--queries.segment_length=60"], "longer than an episode of toy/point (50 steps)"),
        (["--explore.from=/nowhere"], "/nowhere"),
        (["--env.suite=gymnasium", "--env.task=Hoper-v5"], "Hopper-v5"),
        (["--teacher.name=os:path"], "is no teacher"),
        (["--reward.network=os:path"], "reward.network"),
        (["--resources.reward_actors=4"], "nothing to compute"),
        (["--rollout.envs_per_actor=50"], "leaves room for 2, one in 500 steps"),
        (["--resources.reward_gpus=1000"], "wants 1000 GPUs, and there are"),
        (["--resources.gpus_per_learner=1000", "--mode=oracle"], "wants 1000 GPUs, and there are"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, args: list[str], said: str) -> None:
    code, _, err = finish(start(*small(tmp_path, *args)))
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1 and said in lines[0], err
    assert not (tmp_path / "run").exists(), "the same name serves the corrected command"


@pytest.mark.parametrize(
    ("args", "token", "said"),
    [
        (
            ["--people.database=postgresql://127.0.0.1:1/none"],
            "",
            "preference store at postgresql+psycopg://127.0.0.1:1/",
        ),
        pytest.param(
            ["--people.database=/proc/none/queue.sqlite"], "", "cannot make /proc/none", marks=pytest.mark.slow
        ),
        (["--people.url=http://127.0.0.1:1"], "a token", "the queue at http://127.0.0.1:1 does not answer"),
        pytest.param(
            ["--people.url=http://127.0.0.1:1"],
            "",
            "the queue at http://127.0.0.1:1 wants a token: set RAYRLHF_TOKEN",
            marks=pytest.mark.slow,
        ),
        pytest.param(["--people.url=nowhere"], "a token", "'nowhere' is no address of a queue", marks=pytest.mark.slow),
    ],
)
def test_people_who_cannot_be_asked_are_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], token: str, said: str
) -> None:
    monkeypatch.setenv("RAYRLHF_TOKEN", token)
    code, _, err = finish(start(*small(tmp_path, "--teacher", "human", "--people.port=0", *args)))
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1 and said in lines[0], err
    assert not (tmp_path / "run").exists(), "the same name serves the corrected command"


def test_a_task_that_is_not_what_it_seems_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("envpool")
    monkeypatch.setattr(training, "ray_session", lambda cpus: nullcontext())
    monkeypatch.setattr(training.ray, "cluster_resources", dict)
    monkeypatch.setattr(training, "_to_the_end", lambda *_: {})
    for backend in ("python", "envpool"):
        task = ["env.task=dial-turn", f"env.backend={backend}", f"name={backend}", f"storage_path={tmp_path}"]
        training.train(load_config("pebble_metaworld", task))
        assert ("dial" in capsys.readouterr().err) == (backend == "envpool")


FAILING = """
from pathlib import Path

from rayrlhf.preferences.answers import Answer


class Failing:
    '''Says left; once it was asked {questions} questions {method} fails, until the file `mended` is there.'''

    def __init__(self, options, seed):
        self.asked, self.open = 0, []

    def broken(self, method):
        return method == "{method}" and self.asked >= {questions} and not Path(__file__).with_name("mended").exists()

    def ask(self, queries):
        if self.broken("ask"):
            raise RuntimeError("the server hung up")
        self.asked += len(queries)
        self.open += queries.ids

    def collect(self):
        if self.broken("collect"):
            raise RuntimeError("the server hung up")
        said, self.open = self.open, []
        return [Answer(key, "left", "failing") for key in said]
"""


@pytest.mark.parametrize(
    ("method", "questions", "logged", "synchronous"),
    [("collect", 1, 0, True), pytest.param("collect", 5, 4, False, marks=pytest.mark.slow), ("ask", 4, 4, False)],
)
def test_a_run_whose_teacher_fails_is_saved_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, questions: int, logged: int, synchronous: bool
) -> None:
    """In the first session, which ends exploration, or the second: one line, a checkpoint, no answer lost."""
    (tmp_path / "failing.py").write_text(FAILING.format(method=method, questions=questions))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    args = ["--teacher.name=failing:Failing", "--checkpoint.interval=100000", f"--rollout.synchronous={synchronous}"]
    code, _, err = finish(start(*small(tmp_path, *args)))
    run = tmp_path / "run"
    assert code == 2 and "Traceback" not in err, err
    assert err.splitlines()[-1].endswith(
        f"the teacher failing:Failing failed in {method}(): RuntimeError: the server hung up (--debug shows where); "
        f"once that is mended, go on with: rayrlhf train --resume {run}"
    )
    (saved,) = checkpoints(tmp_path)
    assert int(saved.name.removeprefix("step-")) >= 200 and len(answers(tmp_path)) == logged
    (tmp_path / "mended").touch()
    code, out, err = finish(start("train", f"--resume={run}", "--json"))
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["labels"] == summary["answers"] == len(answers(tmp_path)) == 12
    assert summary["updates_per_step"] == pytest.approx(load_config("toy", SMALL).sac.updates_per_step, rel=0.01)


SLOW = """
import json
import time
from pathlib import Path

from rayrlhf.preferences.answers import Answer


class Slow:
    '''Answers the first session at once, and the second when the last row of metrics is there.'''

    def __init__(self, options, seed):
        self.open, self.sessions = [], 0

    def ask(self, queries):
        self.open += queries.ids
        self.sessions += 1

    def collect(self):
        while self.open and self.sessions == 2 and not self.over():
            time.sleep(0.05)
        said, self.open = self.open, []
        return [Answer(key, "left", "slow") for key in said]

    def over(self):
        rows = Path(__file__).with_name("run").joinpath("metrics.jsonl").read_text().splitlines()
        return any(json.loads(row)["env_steps"] >= 1000 for row in rows)
"""


def test_labels_that_a_slow_teacher_left_unspent_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second session lasts until training is over; a longer run holds the third."""
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    args = ["--teacher.name=slow:Slow", "--checkpoint.interval=100000", "--rollout.synchronous=false"]
    code, out, err = finish(start(*small(tmp_path, *args), "--json"))
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert (summary["labels"], summary["budget"]) == (8, 12) and "8 of 12" in out
    assert "8 of 12 labels: training was over before 1 sessions could be held" in err
    code, out, err = finish(start("train", f"--resume={tmp_path / 'run'}", "--total_steps=1100", "--json"))
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["labels"] == 12 and "could be held" not in err


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A real small file system, where one can be mounted: one checkpoint fits, the next does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=120k tmpfs {disk} 2>/dev/null"):
        pytest.skip("mounting needs root")
    try:
        code, _, err = finish(start(*small(disk, "--tracking.tensorboard=true")))
        assert code == 2, err
        assert "Traceback" not in err and "No space left" in err.splitlines()[-1]
        assert [place.name for place in checkpoints(disk)] == ["step-000000000200"]
        assert not os.system(f"mount -o remount,size=20m {disk}")
        code, _, err = finish(start("train", f"--resume={disk / 'run'}"))
        assert code == 0, err
        assert json.loads((disk / "run" / "summary.json").read_text())["labels"] == len(answers(disk)) == 12
    finally:
        os.system(f"umount {disk}")


def test_a_cluster_that_cannot_be_joined_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code, _, err = finish(start(*small(tmp_path)))
    assert code == 2, err
    assert "Traceback" not in err and "127.0.0.1:1 cannot be joined" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_session_that_finds_too_few_segments_leaves_a_checkpoint(tmp_path: Path) -> None:
    """Episodes that end early hold fewer than anyone could know before."""
    task = ["--env.task=point-terminating", "--queries.segment_length=25"]
    many = ["--queries.per_session=10000", "--queries.budget=10000", "--checkpoint.interval=100000"]
    code, _, err = finish(start(*small(tmp_path, *task, *many)))
    assert code == 2, err
    last = err.splitlines()[-1]
    assert "10000 questions are due" in last and "lower queries.per_session" in last and "--resume" in last
    assert "Traceback" not in err
    assert len(checkpoints(tmp_path)) == 1
    lower = ["--queries.per_session=4", "--queries.budget=12"]
    code, _, err = finish(start("train", f"--resume={tmp_path / 'run'}", *lower))
    assert code == 0, err
    assert len(answers(tmp_path)) == 12


def test_a_ray_that_runs_beside_it_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node on which `ray start` was called has a file that says so; only RAY_ADDRESS asks to join."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # Ray's sockets want a short path
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    try:
        code, _, err = finish(start(*small(tmp_path, "--mode=oracle", "--total_steps=400")))
    finally:
        shutil.rmtree(folder)
    assert code == 0, err


def test_where_ray_does_not_start_the_name_stays_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, _, err = finish(start(*small(tmp_path)))
    assert code == 2, err
    assert "Traceback" not in err and "Ray does not start here" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


PREFPPO_220 = ["--queries.segment_length=1", "--algorithm=prefppo", "--explore.unsupervised_steps=220"]


@pytest.mark.parametrize(
    ("overrides", "explored", "segments"),
    [
        # two actors of two environments, 10 steps a fragment: 300 steps of exploration and two rounds of 40
        (["--queries.segment_length=1"], 0, 380),
        (["--queries.segment_length=1"], 500, 580),
        # three episodes kept and four running, each of 50 steps
        (["--queries.segment_length=1", "--queries.recent_episodes=3"], 0, 350),
        (["--queries.segment_length=50", "--queries.recent_episodes=2"], 0, 6),
        # 380 steps are seven whole episodes and 30 steps: a whole episode is one segment, a half 25 of its 50 steps
        (["--queries.segment_length=50"], 0, 7),
        (["--queries.segment_length=26"], 0, 190),
        # between two iterations of 40 steps: after 200 or 240 of them; and without any there is nothing to show
        (["--queries.segment_length=1", "--algorithm=prefppo", "--ppo.batch_size=10"], 0, 200),
        ([*PREFPPO_220, "--ppo.batch_size=10"], 0, 240),
    ],
)
def test_more_labels_than_segments_can_give_are_refused_and_no_fewer(
    overrides: list[str], explored: int, segments: int
) -> None:
    pairs = segments * (segments - 1) // 2

    def check(labels: int) -> None:
        sizes = [f"--queries.budget={labels}", f"--queries.per_session={labels}"]
        shape = ["--rollout.actors=2", "--rollout.envs_per_actor=2"]
        check_first_session(load_config("toy", [*SMALL, *sizes, *shape, *overrides]), horizon=50, explored=explored)

    check(pairs)
    with pytest.raises(UserError, match=f"no more than {segments} segments"):
        check(pairs + 1)
