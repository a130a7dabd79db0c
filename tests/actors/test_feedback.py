"""Sessions: whose answers become labels, when the ensemble is asked, and what the log holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from support import Make, advance, changed, late_feedback, later_feedback, synchronous

from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.algorithms.collector import Collector
from rayrlhf.config.schema import RunConfig
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers.immediate import ImmediateTeacher

pytestmark = pytest.mark.usefixtures("ray_session")


class SkipsAtFirst(ImmediateTeacher):
    """Skips the questions of the first session and answers those after it."""

    def choose(self, queries: Queries) -> Sequence[Choice | None]:
        return ["skip" if queries.session == 0 else "right"] * len(queries)


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
        assert {answer.query_id for answer in answers} == set(asked.ids)
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
    first, second = (
        make(run, feedback=lambda *given, teacher=teacher: FeedbackLoop(*given, teacher=teacher))
        for teacher in teachers
    )
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
    second.save_checkpoint(str(tmp_path / "later"))
    assert not (tmp_path / "later" / "feedback" / "open").exists(), "nothing is open any more"


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
        assert np.isfinite(outcome.metrics["reward_loss"])
    finally:
        loop.close()
