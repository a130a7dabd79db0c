"""People around a run: a real queue over HTTP, real clips, real training of the toy."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from queue_server import Server
from sqlalchemy import func, select
from support import Make, advance, changed

from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.actors.renderer import Studio
from rayrlhf.algorithms.collector import environment_of, number_of
from rayrlhf.algorithms.files import Arrays, read_arrays
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config.schema import RunConfig
from rayrlhf.envs.clips import Stage
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import labels_from
from rayrlhf.preferences.client import QueueAddress, QueueClient
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.store import Accounts, Database, Reports
from rayrlhf.preferences.store.records import clip_name
from rayrlhf.preferences.store.tables import queries
from rayrlhf.preferences.wire import Shown
from rayrlhf.training import train

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60.0


def asking(run: RunConfig, **groups: Any) -> RunConfig:
    """`run` with people as its teacher, who cannot take anything back."""
    queue = {"settle_seconds": 0.0, **groups.pop("queue", {})}
    return changed(run, teacher={"name": "human"}, queue=queue, rollout={"actors": 0}, **groups)


def loop_of(server: Server) -> Callable[..., FeedbackLoop]:
    return partial(FeedbackLoop, queue=QueueAddress(server.url, server.tokens["trainer"]))


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` says once it is true of something."""
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def shown(client: QueueClient, count: int) -> list[Shown]:
    """`count` questions, once their clips are there."""
    return until(lambda: found if len(found := client.lease("run", count)) == count else None)


def trained_until(algorithm: Pebble, condition: Callable[[], Any]) -> None:
    """Trains on until `condition` holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        algorithm.train()


def test_people_see_the_segments_they_are_asked_about_and_training_learns_from_them(
    small_run: RunConfig, make: Make, server: Server, tmp_path: Path
) -> None:
    run = asking(small_run)
    algorithm = make(run, feedback=loop_of(server))
    advance(algorithm, 320)
    assert (algorithm.progress.sessions, algorithm.progress.labels) == (1, 0), "it waited for nobody"
    asked, _ = PreferenceDataset(tmp_path / "run" / "preferences").read_session(0)
    moments = read_arrays(tmp_path / "run" / "moments" / "00000.safetensors")
    stage = Stage(run.env, seed=run.seed)
    clips: dict[str, list[str]] = {"left": [], "right": []}
    for side, segments in (("left", asked.left), ("right", asked.right)):
        for i, key in enumerate(asked.ids):
            states, episode = moments[f"{key}/{side}"], int(segments.episode[i])
            # the toy observes the way to the goal, and the velocity
            np.testing.assert_array_equal(states[:, 4:] - states[:, :2], segments.obs[i, :, :2])
            np.testing.assert_array_equal(states[:, 2:4], segments.obs[i, :, 2:])
            clip = stage.clip(environment_of(episode), number_of(episode), states)
            clips[side].append(clip_name(clip))
    pairs = list(zip(clips["left"], clips["right"], strict=True))
    with server.client() as person:
        for question in shown(person, 4):
            pair = (question.left_clip, question.right_clip)
            assert pair in pairs or pair[::-1] in pairs
            person.answer(question.lease, "left" if pair in pairs else "right")  # the query's own left
    trained_until(algorithm, lambda: algorithm.progress.labels == 4)
    _, said = PreferenceDataset(tmp_path / "run" / "preferences").read_session(0)
    assert {answer.choice for answer in said} == {"left"}
    with server.client("trainer") as trainer:
        found = until(lambda: [item for item in trainer.answered("run") if item.curves is not None])
        assert {len(item.curves.left) for item in found} == {run.queries.segment_length}
        [info] = trainer.runs()
    assert (info.sentence, info.task) == ("Bring the point to the goal.", "point")
    assert info.doing == {} or info.doing["phase"]


def test_what_several_people_say_is_one_soft_label(
    small_run: RunConfig, make: Make, server: Server, tmp_path: Path
) -> None:
    rules = {"overlap": 2, "min_answers": 2, "labels": "soft", "agreement": 0.0}
    algorithm = make(asking(small_run, queue=rules), feedback=loop_of(server))
    advance(algorithm, 320)
    for name, choice in (("anna", "equal"), ("ben", "left")):
        with QueueClient(server.url, server.accounts.add(name, "annotator")) as person:
            for question in shown(person, 4):
                person.answer(question.lease, choice)
    trained_until(algorithm, lambda: algorithm.progress.labels == 4)
    labels = labels_from(*PreferenceDataset(tmp_path / "run" / "preferences").read_session(0))
    assert set(labels.target.tolist()) <= {0.25, 0.75}
    assert algorithm.progress.answers == 8
    assert ray.get(algorithm.feedback._ensemble[0]("fit")).loss.mean() > 0.4, "it was fitted to soft targets"


def test_people_are_tested_by_what_the_true_reward_tells(small_run: RunConfig, make: Make, server: Server) -> None:
    """Every second question is one whose answer is known; it makes no label, and a trainer sees how it was answered."""
    algorithm = make(asking(small_run, queue={"gold_every": 2}), feedback=loop_of(server))
    advance(algorithm, 320)
    database = Database(server.settings.database)

    def ready() -> int:
        with database.reading() as store:
            return store.scalar(select(func.count()).where(queries.c.ready)) or 0

    until(lambda: ready() == 6)
    with server.client() as person, server.client("trainer") as trainer:
        for _ in range(6):  # the four questions and the two tests
            [question] = shown(person, 1)
            person.answer(question.lease, "equal")
        until(lambda: person.lease("run") == [])
        [seen] = trainer.people("run")
        assert (seen.answers, seen.gold) == (6, (0, 2))
        trained_until(algorithm, lambda: algorithm.progress.labels == 4)
        assert len(list(trainer.answered("run"))) == 4


def test_training_goes_on_while_the_queue_is_away_and_catches_up(
    small_run: RunConfig, make: Make, server: Server
) -> None:
    server.stop()
    algorithm = make(asking(small_run), feedback=loop_of(server))
    advance(algorithm, 400)
    server.start()
    with server.client(patience=20) as person:
        until(lambda: [info for info in person.runs() if info.name == "run"])
        for question in shown(person, 4):
            person.answer(question.lease, "left")
    server.stop()
    advance(algorithm, 500)
    server.start()
    trained_until(algorithm, lambda: algorithm.progress.labels >= 4)


def test_clips_are_made_after_all(small_run: RunConfig, make: Make, server: Server, tmp_path: Path) -> None:
    """The renderer is killed, then the whole process: another one goes on from a checkpoint."""
    first = make(asking(small_run), feedback=loop_of(server))
    studio: Studio = first.feedback._people._studio
    os.kill(ray.get(studio._renderer.host.__ray_call__.remote(lambda host: os.getpid())), signal.SIGKILL)
    advance(first, 320)
    with server.client() as person:
        assert len(shown(person, 4)) == 4
    studio.close()  # for good
    advance(first, 520)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(asking(small_run), feedback=loop_of(server))
    second.load_checkpoint(str(tmp_path / "cut"))
    reports = Reports(Database(server.settings.database))
    trained_until(second, lambda: reports.progress("run").open > 4 and not reports.progress("run").unready)


def test_a_database_that_is_another_one_gets_questions_and_clips_anew(
    small_run: RunConfig, make: Make, server: Server, tmp_path: Path
) -> None:
    """While the run lives, which has drawn them already."""
    algorithm = make(asking(small_run), feedback=loop_of(server))
    advance(algorithm, 320)
    with server.client() as person:
        before = {question.left_clip for question in shown(person, 4)}
        server.stop()
        server.settings = server.settings.model_copy(update={"database": str(tmp_path / "another.sqlite")})
        accounts = Accounts(Database(server.settings.database))
        for role, token in server.tokens.items():
            accounts.add(f"the {role}", role, token)
        server.start()
        until(lambda: [info for info in person.runs() if info.name == "run"])
        assert {question.left_clip for question in shown(person, 4)} & before, "the same clips"


def test_moments_that_are_lost_are_not_waited_for(
    small_run: RunConfig, make: Make, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayrlhf.actors.renderer.REST_SECONDS", 0.1)
    algorithm = make(asking(small_run), feedback=loop_of(server))
    studio: Studio = algorithm.feedback._people._studio
    showable = studio.showable

    def lose(asked: Queries) -> Queries:
        found = showable(asked)
        studio._moments.file(asked.session).unlink()
        return found

    algorithm.feedback._people.showable = lose
    advance(algorithm, 320)
    with server.client("trainer") as trainer:
        until(lambda: trainer.progress("run").skip == 4)


def test_what_cannot_be_drawn_is_decided_without_anybody(
    small_run: RunConfig, make: Make, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a question that nobody can see."""
    monkeypatch.setattr("rayrlhf.actors.renderer.REST_SECONDS", 0.1)
    algorithm = make(asking(small_run), feedback=loop_of(server))
    people = algorithm.feedback._people
    keep = people.keep

    def damage(asked: Queries, moments: Arrays) -> None:
        broken = f"{asked.ids[0]}/left"
        keep(asked, {**moments, broken: moments[broken][:0]})

    people.keep = damage
    advance(algorithm, 320)
    log = PreferenceDataset(tmp_path / "run" / "preferences")
    trained_until(algorithm, lambda: any(said for _, said in log.read()))
    first = {queries.ids[0] for queries, _ in log.read()}
    for answer in (answer for _, said in log.read() for answer in said):
        assert answer.query_id in first and (answer.choice, answer.annotator) == ("skip", "nobody")
    with server.client() as person:
        assert len(shown(person, 3)) == 3


def test_what_was_not_recorded_is_not_asked(small_run: RunConfig, make: Make, server: Server, tmp_path: Path) -> None:
    """A run that a program taught goes on with people: they are asked about what happens from then on."""
    first = make(changed(small_run, rollout={"actors": 0}))
    advance(first, 320)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(asking(small_run), feedback=loop_of(server))
    second.load_checkpoint(str(tmp_path / "cut"))
    trained_until(second, lambda: second.progress.sessions == 2)
    _, said = PreferenceDataset(tmp_path / "run" / "preferences").read_session(1)
    with server.client("trainer") as trainer:
        until(lambda: trainer.progress("run").open == second.feedback.open_questions)
        assert trainer.progress("run").open < 4
    assert said == []


def test_an_exploration_that_was_not_recorded_for_people_is_refused(small_run: RunConfig, tmp_path: Path) -> None:
    saved = str(tmp_path / "explored")
    train(changed(small_run, explore={"save": saved}, total_steps=320, queries={"budget": 4}), progress=False)
    for run in (asking(small_run, explore={"from": saved}), asking(small_run, explore={"from": saved}, seed=1)):
        with pytest.raises(UserError, match="cannot be shown to people"):
            train(run, people=lambda *_: pytest.fail("it is refused before"))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"suite": "gymnasium", "task": "Pendulum-v1"}, "Pendulum.*cannot show recorded moments"),
        ({"suite": "metaworld", "task": "drawer-open", "backend": "envpool"}, "envpool.*cannot show recorded moments"),
        ({}, "the teacher human wants a queue"),
    ],
)
def test_what_people_could_not_see_or_answer_is_refused_before_anything_begins(
    small_run: RunConfig, tmp_path: Path, env: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(asking(small_run, env=env))
    assert not (tmp_path / "runs").exists()
