"""`examples/vlm_teacher.py`: a model that sees clips, in real training of the toy, behind a server that may fail."""

import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from scipy import stats
from support import SMALL, Make, advance, assert_identical, changed, everything, synchronous
from vlm_server import POINT, VlmServer, pictures_in

from rayrlhf.algorithms.files import read_arrays
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config import TeacherOptions
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers import AsynchronousTeacher
from rayrlhf.training import check, train

pytestmark = pytest.mark.usefixtures("ray_session")
EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 60.0


@pytest.fixture
def vlm(monkeypatch: pytest.MonkeyPatch) -> Iterator[VlmServer]:
    """A server that the example's teacher asks."""
    server = VlmServer()
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name, value in {"VLM_URL": server.url, "VLM_MODEL": "judge-1", "VLM_KEY": "a secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VLM_SECONDS", "1.5")
    yield server
    server.close()


@pytest.fixture
def example(vlm: VlmServer) -> ModuleType:
    """The example's module."""
    return importlib.import_module("vlm_teacher")


def seeing(run: RunConfig, *, wait: bool, **groups: Any) -> RunConfig:
    """`run` with the example's teacher."""
    teacher = {"name": "vlm_teacher:VisionLanguageTeacher", "clips": True, "wait": wait}
    return changed(run, teacher=teacher, rollout={"actors": 0}, **groups)


def logged(folder: Path) -> list[tuple[Queries, list[Answer]]]:
    return list(PreferenceDataset(str(folder / "preferences")).read())


def agreement(folder: Path) -> tuple[int, int]:
    """Answers that agree with the true return, of all; ties do not occur."""
    agreed, count = 0, 0
    for queries, said in logged(folder):
        better = queries.right.reward.sum(1) > queries.left.reward.sum(1)
        truth = dict(zip(queries.ids, np.where(better, "right", "left").tolist(), strict=True))
        agreed += sum(one.choice == truth[one.query_id] for one in said)
        count += len(said)
    return agreed, count


def is_no_chance(agreed: int, count: int) -> bool:
    return bool(stats.binomtest(agreed, count, 0.5, "greater").pvalue < 1e-4)


def trained_until(algorithm: Pebble, condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        algorithm.train()


MORE = {"budget": 40, "per_session": 10, "interval": 150}


def test_a_run_is_taught_by_what_a_model_sees(small_run: RunConfig, vlm: VlmServer) -> None:
    run = seeing(small_run, wait=True, queries=MORE, evaluation={"final_episodes": 1}, name="seen")
    assert train(run, progress=False)["labels"] == 40
    folder = Path(run.storage_path) / "seen"
    agreed, count = agreement(folder)
    assert count == 40 and is_no_chance(agreed, count)
    assert {one.annotator for _, said in logged(folder) for one in said} == {"judge-1"}
    choices = [one.choice for _, said in logged(folder) for one in said]
    assert set(choices) == {"left", "right"}, "both sides are shown on both sides"
    assert len(vlm.requests) == 40 and {request["model"] for request in vlm.requests} == {"judge-1"}
    assert {headers["Authorization"] for headers in vlm.headers} == {"Bearer a secret"}
    for request in vlm.requests:
        [message] = request["messages"]
        assert "Bring the point to the goal." in message["content"][0]["text"]
        assert len(pictures_in(message["content"])) == 8
        assert request["max_tokens"] <= 16


@pytest.mark.parametrize("wait", [True, False])
def test_a_server_that_fails_loses_no_question_and_does_not_end_the_run(
    small_run: RunConfig, make: Make, vlm: VlmServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait: bool
) -> None:
    """Each question's first request fails, in one way or another."""
    vlm.faults = (500, "garbage", "chatty", "cut", 429, "slow")
    algorithm = make(seeing(small_run, wait=wait, queries={"budget": 40}))
    folder = tmp_path / "run"

    def first_sessions_are_answered() -> bool:
        found = logged(folder) if folder.exists() else []
        return len(found) >= 2 and all(len(queries) == len(said) for queries, said in found[:2])

    with caplog.at_level(logging.WARNING, "rayrlhf"):
        trained_until(algorithm, first_sessions_are_answered)
    assert set(vlm.met) == set(vlm.faults)
    agreed, count = agreement(folder)
    assert count >= 8 and agreed >= count - 1
    assert len([one for one in caplog.records if "judge-1 could not answer" in one.getMessage()]) == 1


def test_failures_change_nothing_of_what_is_learnt(small_run: RunConfig, make: Make, vlm: VlmServer) -> None:
    """Where training waits for the answers, in the synchronous mode."""
    found = []
    for name, faults in (("calm", ()), ("stormy", (503, "garbage", "cut"))):
        vlm.faults = faults
        algorithm = make(synchronous(seeing(small_run, wait=True)), name)
        advance(algorithm, 550)
        assert algorithm.progress.labels == 8
        found.append(everything(algorithm))
    assert len(vlm.met) == 8
    assert_identical(*found)


def test_what_was_open_at_a_checkpoint_is_seen_and_answered_after_it(
    small_run: RunConfig, make: Make, vlm: VlmServer, tmp_path: Path
) -> None:
    """The server is away all the while; another process goes on, which finds what to draw in the run's folder."""
    vlm.away = True
    run = seeing(small_run, wait=False, queries={"budget": 4})
    first = make(run)
    advance(first, 320)
    assert (first.progress.sessions, first.progress.labels, first.feedback.open_questions) == (1, 0, 4)
    first.save_checkpoint(str(tmp_path / "cut"))
    first.stop()
    vlm.away, before = False, len(vlm.requests)
    second = make(run)
    second.load_checkpoint(str(tmp_path / "cut"))
    trained_until(second, lambda: second.progress.labels == 4)
    [(queries, said), *_] = logged(tmp_path / "run")
    assert {one.query_id for one in said} == set(queries.ids)
    asked_before = {str(request) for request in vlm.requests[:before]}
    assert {str(request) for request in vlm.requests[before:][:4]} <= asked_before, "they are asked the same"


def test_frames_are_those_of_the_question_and_outlive_the_renderer(
    small_run: RunConfig, make: Make, vlm: VlmServer, tmp_path: Path
) -> None:
    vlm.away = True
    algorithm = make(seeing(small_run, wait=False))
    advance(algorithm, 320)
    pictures = algorithm.feedback._clips
    [(queries, _), *_] = logged(tmp_path / "run")
    moments = read_arrays(tmp_path / "run" / "moments" / "00000.safetensors")
    before = [pictures.frames(key, 3) for key in queries.ids]
    for i, (key, sides) in enumerate(zip(queries.ids, before, strict=True)):
        for side, frames, segments in zip(("left", "right"), sides, (queries.left, queries.right), strict=True):
            assert frames.shape == (3, 256, 256, 3) and frames.dtype == np.uint8
            states = moments[f"{key}/{side}"]
            assert len(states) == 10
            # the toy observes the way to the goal; its pictures show the square from -1.1 to 1.1, y upwards
            np.testing.assert_array_equal(states[:, 4:] - states[:, :2], segments.obs[i, :, :2])
            for frame, (x, y, *_) in zip(frames, states[[0, 4, 9]], strict=True):
                row, column = ((1.1 - y) / 2.2 * 255, (x + 1.1) / 2.2 * 255)
                np.testing.assert_array_equal(frame[round(row), round(column)], POINT)
    process = ray.get(pictures._drawing.host.__ray_call__.remote(lambda host: os.getpid()))
    os.kill(process, signal.SIGKILL)
    for key, sides in zip(queries.ids, before, strict=True):
        for frames, again in zip(sides, pictures.frames(key, 3), strict=True):
            np.testing.assert_array_equal(frames, again)


def test_closing_a_run_ends_the_teacher_s_threads(small_run: RunConfig, make: Make, vlm: VlmServer) -> None:
    vlm.away = True
    algorithm = make(seeing(small_run, wait=False))
    advance(algorithm, 320)
    teacher: AsynchronousTeacher = algorithm.feedback._teacher._teacher
    assert len(teacher._threads) == 4
    algorithm.stop()
    assert not any(thread.is_alive() for thread in teacher._threads)


@pytest.mark.slow
def test_the_example_trains_and_says_what_it_did(vlm: VlmServer, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "vlm_teacher.py"), *SMALL, f"--storage_path={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "labels  12 from 12 answers of judge-1" in done.stdout


def asked_by(example: ModuleType, monkeypatch: pytest.MonkeyPatch, reply: httpx.Response) -> str:
    """What the teacher says of one question that `reply` answers, or the message of why it cannot."""
    monkeypatch.setenv("VLM_URL", "http://eva:hunter2@localhost:1/v1")
    teacher = example.VisionLanguageTeacher(TeacherOptions(), seed=0)
    client = teacher._client
    teacher._client = httpx.Client(base_url=client.base_url, transport=httpx.MockTransport(lambda request: reply))
    try:
        return str(teacher._reply([], 0))
    except ValueError as error:
        return str(error)


def test_what_is_logged_of_a_failure_holds_no_password(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said = asked_by(example, monkeypatch, httpx.Response(401, text="no"))
    assert said == "the service answers with the status 401"
    assert asked_by(example, monkeypatch, httpx.Response(302, headers={"location": "/x"})).endswith("302")


def test_an_endless_reply_is_not_read(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield b" " * 65536

    assert "more than 1,048,576 bytes" in asked_by(example, monkeypatch, httpx.Response(200, content=endless()))
    assert len(read) < 20
    word = {"choices": [{"message": {"content": "left"}}]}
    assert asked_by(example, monkeypatch, httpx.Response(200, json=word)) == "left"


@pytest.mark.parametrize("reply", ["left", "Left", " RIGHT.\n", '"equal"', "**skip**", "`left`"])
def test_a_word_is_read(example: ModuleType, reply: str) -> None:
    assert example.choice_in(reply) in reply.lower()


@pytest.mark.parametrize("reply", ["", "left or right", "The left one.", "1", "leftright", "neither", "left\nright"])
def test_nothing_else_is(example: ModuleType, reply: str) -> None:
    with pytest.raises(ValueError, match=r"the model said .*, wanted one of left, right, equal, skip"):
        example.choice_in(reply)


@pytest.mark.parametrize(
    ("teacher", "env", "message"),
    [
        ({"clips": False}, {}, "looks at clips: set teacher.clips to true"),
        ({}, {"suite": "gymnasium", "task": "Pendulum-v1"}, "cannot show recorded moments, and the teacher would see"),
        ({"name": "oracle"}, {}, "teacher.clips means nothing to the oracle teacher"),
        ({"name": "own_teacher:NearerGoal"}, {}, "own_teacher:NearerGoal, which has no see"),
    ],
)
def test_what_a_teacher_could_not_see_is_refused(
    small_run: RunConfig, vlm: VlmServer, teacher: dict[str, Any], env: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(changed(seeing(small_run, wait=True, env=env), teacher=teacher))


def test_a_missing_address_is_one_line(small_run: RunConfig, vlm: VlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_URL")
    with pytest.raises(UserError, match="VLM_URL is not set"):
        train(seeing(small_run, wait=True), progress=False)
