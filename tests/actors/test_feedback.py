"""Sessions: whose answers become labels, when the ensemble is asked, and what the log holds."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support import (
    GIVEN,
    LateTeacher,
    Make,
    Verdicts,
    advance,
    assert_identical,
    changed,
    everything,
    given_feedback,
    late_feedback,
    later_feedback,
    synchronous,
)

import rayrlhf.actors.feedback as feedback_module
from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.algorithms.collector import Collector
from rayrlhf.algorithms.files import read_json
from rayrlhf.algorithms.loop import Interrupted
from rayrlhf.config.schema import RunConfig
from rayrlhf.preferences.answers import Answer, Choice, Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.queries.schedules import session_sizes
from rayrlhf.queries.selection import METHODS, select
from rayrlhf.seeding import generator
from rayrlhf.teachers.immediate import ImmediateTeacher

pytestmark = pytest.mark.usefixtures("ray_session")


class SkipsAtFirst(ImmediateTeacher):
    """Skips the questions of the first session and answers those after it."""

    def choose(self, queries: Queries) -> Sequence[Choice | None]:
        return ["skip" if queries.session == 0 else "right"] * len(queries)


def joined(parts: list[Labels]) -> Labels:
    sides = [Segments.concatenate([getattr(part, side) for part in parts]) for side in ("left", "right")]
    return Labels(*sides, np.concatenate([part.target for part in parts]))


@pytest.mark.parametrize("feedback", [late_feedback, later_feedback])
def test_late_answers_become_labels_under_their_own_session_and_the_budget_holds(
    small_run: RunConfig, make: Make, tmp_path: Path, feedback: Any
) -> None:
    """Unanswered questions are asked for again, so that more answers are on their way than the budget allows."""
    queries = {"budget": 16, "per_session": 4, "interval": 20}
    run = synchronous(small_run, queries=queries, rollout={"actors": 0}, explore={"unsupervised_steps": 100})
    algorithm = make(run, feedback=feedback)
    row = advance(algorithm, 400)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    found = {session: log.read_session(session) for session in log.sessions()}
    assert 0 in found and len(found) > 1
    for session, (asked, answers) in found.items():
        assert asked.session == session
        assert {answer.query_id for answer in answers} <= set(asked.ids)
        assert all(key.startswith(f"run/{session:05d}/") for key in asked.ids)
    assert row["labels"] == algorithm.feedback.labels == sum(len(said) for _, said in found.values()) == 16
    assert row["answers"] == 16


def test_labels_that_came_after_a_checkpoint_count_against_the_budget(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    """The last session of the checkpoint had no answers yet; they were in the log when the run went back."""
    queries = {"budget": 16, "per_session": 4, "interval": 20}
    run = synchronous(small_run, queries=queries, rollout={"actors": 0}, explore={"unsupervised_steps": 100})
    first = make(run, feedback=late_feedback)
    advance(first, 210)
    assert first.progress.sessions == 1 and first.progress.labels == 0
    first.save_checkpoint(str(tmp_path / "cut"))
    advance(first, 230)
    second = make(run, feedback=late_feedback)
    second.load_checkpoint(str(tmp_path / "cut"))
    assert second.progress.labels == second.feedback.labels == 4
    row = advance(second, 450)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    assert row["labels"] == sum(len(said) for _, said in log.read()) == 16


class Postbox:
    """A teacher whose answers outlive training: what was asked is answered once `open` is set. Ids come once."""

    def __init__(self, asked: dict[str, None]) -> None:
        self.asked, self.open, self._handed_out = asked, False, set[str]()

    def ask(self, queries: Queries) -> None:
        self.asked |= dict.fromkeys(queries.ids)

    def collect(self) -> list[Answer]:
        new = [key for key in self.asked if self.open and key not in self._handed_out]
        self._handed_out.update(new)
        return [Answer(key, "right", "postbox") for key in new]


def test_questions_that_were_open_at_a_checkpoint_can_be_answered_after_it(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    """Another process goes on; its teacher answers at last what the first one asked."""
    queries = {"budget": 8, "per_session": 4, "interval": 100}
    run = synchronous(small_run, queries=queries, rollout={"actors": 0}, explore={"unsupervised_steps": 100})
    asked: dict[str, None] = {}
    teachers = [Postbox(asked), Postbox({})]
    GIVEN.extend(teachers)
    first, second = (make(run, feedback=given_feedback) for _ in teachers)
    advance(first, 250)
    assert first.progress.labels == 0 and len(asked) == 4
    first.save_checkpoint(str(tmp_path / "cut"))
    second.load_checkpoint(str(tmp_path / "cut"))
    assert teachers[1].asked == asked, "they are put to the new teacher under the same ids"
    teachers[1].open = True
    advance(second, 320)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    (_, said), *_ = log.read()
    assert {answer.query_id for answer in said} == set(asked)
    assert second.progress.labels == 8


def test_an_answer_that_comes_before_its_session_is_held_again_is_kept(
    small_run: RunConfig, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log holds a session that the checkpoint does not know; its teacher answers while training catches up."""
    monkeypatch.setattr(feedback_module, "COLLECT_SECONDS", 0.0)
    queries = {"budget": 8, "per_session": 4, "interval": 200}
    run = synchronous(small_run, queries=queries, rollout={"actors": 0}, explore={"unsupervised_steps": 100})
    asked: dict[str, None] = {}
    teachers = [Postbox(asked), Postbox({})]
    GIVEN.extend(teachers)
    first = make(run, feedback=given_feedback)
    advance(first, 250)
    first.save_checkpoint(str(tmp_path / "cut"))
    advance(first, 450)
    assert len(asked) == 4 + 8, "what was not answered is asked for again"
    second = make(run, feedback=given_feedback)
    second.load_checkpoint(str(tmp_path / "cut"))
    teachers[1].asked = dict.fromkeys(list(asked)[4:])  # a queue outside still holds the session that is to come
    teachers[1].open = True
    advance(second, 300)
    second.feedback._collected.result(timeout=30)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    assert [len(said) for _, said in log.read()] == [0, 8] and second.progress.labels == 0
    advance(second, 450)
    assert second.progress.labels == second.progress.answers == 8


def test_answers_that_are_collected_while_a_fit_runs_are_for_the_next(small_run: RunConfig, tmp_path: Path) -> None:
    run = changed(small_run, queries={"budget": 12, "per_session": 4})
    loop = FeedbackLoop(run, 4, 2, str(tmp_path / "run"), teacher=LateTeacher(0))
    late, fit = LateTeacher(0), loop._fit
    try:
        fragment, _ = Collector(run, 0).collect(200, "random", fragment=0, version=0)
        loop.remember([ray.put(fragment)])
        held_back: list[Answer] = []
        teacher = loop._teacher

        def half() -> list[Answer]:
            answers = late.collect()
            held_back.extend(answers[2:])
            return answers[:2]

        def fit_while_the_rest_comes() -> Any:
            teacher.collect = lambda: [held_back.pop() for _ in list(held_back)]
            loop._collect()
            return fit()

        teacher.ask, teacher.collect, loop._fit = late.ask, half, fit_while_the_rest_comes  # type: ignore[method-assign]
        labels = []
        for session in range(2):
            loop.begin_session(session, 4 if session == 0 else 0)
            loop._thread.join()
            outcome = loop.finish_session()
            assert outcome is not None
            labels.append(outcome.labels)
        assert labels == [2, 4] and not loop.unlearnt
    finally:
        loop.close()


def test_a_teacher_who_begins_after_the_last_questions_is_learnt_from(
    small_run: RunConfig, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sessions, and as many again, went by without an answer; what comes then is fitted, once an interval."""
    monkeypatch.setattr(feedback_module, "COLLECT_SECONDS", 0.0)
    queries = {"budget": 8, "per_session": 4, "interval": 20}
    run = synchronous(small_run, queries=queries, rollout={"actors": 0}, explore={"unsupervised_steps": 100})
    teacher = Postbox({})
    GIVEN.append(teacher)
    algorithm = make(run, feedback=given_feedback)
    advance(algorithm, 400)
    assert algorithm.progress.sessions == 4 and algorithm.progress.labels == 0
    teacher.open = True
    advance(algorithm, 500)
    assert algorithm.progress.labels == 8 and algorithm.feedback.version == 1
    sessions = algorithm.progress.sessions
    advance(algorithm, 600)
    assert algorithm.progress.sessions == sessions, "nothing is left to learn from"


@pytest.mark.parametrize("hang", [False, True])
def test_a_session_that_was_cut_off_is_held_again_with_its_own_questions(
    small_run: RunConfig, make: Make, tmp_path: Path, hang: bool
) -> None:
    """More has been seen by then, so that questions drawn anew would show other segments under the same ids."""
    run = changed(small_run, teacher={"wait": True}, rollout={"actors": 0}, queries={"budget": 8, "per_session": 4})
    teachers = [Verdicts(hang=hang), Verdicts()]
    GIVEN.extend(teachers)
    first, second = (make(run, feedback=given_feedback) for _ in teachers)
    thread = threading.Thread(target=lambda: teachers[0].asked.wait() and first.interrupted.set(), daemon=True)
    thread.start()
    with pytest.raises(Interrupted):
        advance(first, 1000)
    first.save_checkpoint(str(tmp_path / "cut"))
    assert first.progress.sessions == 0 and first.progress.labels == 0
    second.load_checkpoint(str(tmp_path / "cut"))
    teachers[1].open.set()
    assert advance(second, 1000)["labels"] == 8
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    for queries, answers in log.read():
        labels = labels_from(queries, answers)
        better = labels.right.reward.sum(1) > labels.left.reward.sum(1)
        np.testing.assert_array_equal(labels.target, better)
    teachers[0].open.set()  # lets a thread that hangs go


def test_ctrl_c_during_a_fit_keeps_the_session(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    """The fit has changed the ensemble: it ends, and its version and the relabelled replay are saved with it."""
    run = changed(small_run, rollout={"actors": 0}, reward={"epochs": 400, "target_accuracy": 1.0})
    algorithm = make(run)
    while not algorithm.feedback._fitting.locked():
        algorithm.train()
    algorithm.interrupted.set()
    algorithm.save_checkpoint(str(tmp_path / "cut"))
    assert algorithm.progress.sessions >= 1
    assert algorithm.progress.labels == algorithm.feedback.labels > 0
    saved = read_json(tmp_path / "cut" / "manifest.json")
    assert saved["reward_version"] == algorithm.feedback.version == saved["progress"]["sessions"]
    algorithm.interrupted.clear()
    resumed = make(run)
    resumed.load_checkpoint(str(tmp_path / "cut"))
    assert_identical(everything(algorithm), everything(resumed))


def test_answers_that_come_between_sessions_are_in_the_log_before_the_next(
    small_run: RunConfig, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_module, "COLLECT_SECONDS", 0.0)
    run = synchronous(small_run, queries={"interval": 600}, rollout={"actors": 0})
    teacher = Verdicts()
    GIVEN.append(teacher)
    algorithm = make(run, feedback=given_feedback)
    advance(algorithm, 350)
    teacher.open.set()
    advance(algorithm, 400)
    algorithm.feedback._collected.result(timeout=30)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    assert sum(len(said) for _, said in log.read()) == 4 and algorithm.progress.labels == 0
    assert advance(algorithm, 1000)["labels"] >= 4


def test_disagreement_is_asked_for_once_there_are_labels(small_run: RunConfig, tmp_path: Path) -> None:
    """Not merely after the first session: one that brought only skips taught the ensemble nothing."""
    run = changed(small_run, queries={"selection": "disagreement"})
    loop = FeedbackLoop(run, 4, 2, str(tmp_path / "run"), teacher=SkipsAtFirst("skips"))
    try:
        collector = Collector(run, 0)
        fragment, _ = collector.collect(200, "random", fragment=0, version=0)
        loop.remember([ray.put(fragment)])
        role, asked = loop._ensemble[0], []

        def watched(method: str, *args: Any) -> Any:
            asked.append(method)
            return role(method, *args)

        watched.host = role.host  # type: ignore[attr-defined]
        loop._ensemble[0] = watched  # type: ignore[call-overload]
        informed = []
        for session in range(3):
            asked.clear()
            loop.begin_session(session, 4)
            loop._thread.join()
            outcome = loop.finish_session()
            assert outcome is not None and outcome.labels == 4 * session
            informed.append("pair_logits" in asked)
        assert informed == [False, False, True]
        for name in ("reward_loss", "reward_accuracy"):
            by_member = [outcome.metrics[f"{name}_{member}"] for member in range(run.reward.members)]
            assert np.isfinite(outcome.metrics[name]) and outcome.metrics[name] == pytest.approx(np.mean(by_member))
        assert len({outcome.metrics[f"reward_loss_{member}"] for member in range(run.reward.members)}) > 1
    finally:
        loop.close()


@pytest.mark.parametrize("selection", METHODS)
def test_a_session_asks_what_its_method_picks_among_the_candidates(
    small_run: RunConfig, tmp_path: Path, selection: str
) -> None:
    """Restated from what the roles were asked for: the members' logits of all actors, and the pairs labelled so far."""
    run = changed(
        small_run,
        queries={"selection": selection, "candidates": 5},
        reward={"members": 3},
        resources={"reward_actors": 2},
    )
    loop = FeedbackLoop(run, 4, 2, str(tmp_path / "run"))
    try:
        fragment, _ = Collector(run, 0).collect(200, "random", fragment=0, version=0)
        loop.remember([ray.put(fragment)])
        labelled: list[Labels] = []
        for session in range(3):
            method = selection if session else "uniform"
            pairs = ray.get(loop._trajectories("candidates", session, 4, 1 if method == "uniform" else 5))
            logits = np.concatenate(ray.get([role("pair_logits", pairs) for role in loop._ensemble]))
            wanted = select(
                method,
                4,
                *pairs,
                lambda *_, logits=logits: torch.sigmoid(torch.from_numpy(logits)),  # type: ignore[misc]
                joined(labelled) if labelled else None,
                generator(run.seed, "selection", session),
            )
            loop.begin_session(session, 4)
            loop._thread.join()
            assert loop.finish_session() is not None
            asked, answers = loop._log.read_session(session)
            for side, shown in zip(pairs, (asked.left, asked.right), strict=True):
                for name, column in vars(side.take(wanted)).items():
                    np.testing.assert_array_equal(getattr(shown, name), column, err_msg=f"{session} {name}")
            labelled.append(labels_from(asked, answers))
    finally:
        loop.close()


@pytest.mark.parametrize("schedule", ["linear", "exponential", "hyperbolic"])
def test_a_run_asks_as_its_schedule_says(small_run: RunConfig, make: Make, tmp_path: Path, schedule: str) -> None:
    queries = {"schedule": schedule, "budget": 18, "per_session": 6, "interval": 100}
    algorithm = make(synchronous(small_run, queries=queries, rollout={"actors": 0}))
    advance(algorithm, 560)
    log = PreferenceDataset(str(tmp_path / "run" / "preferences"))
    sizes = [len(queries) for queries, _ in log.read()]
    assert sizes == session_sizes(18, 6, schedule) and len(set(sizes)) > 1
    assert algorithm.progress.labels == 18
