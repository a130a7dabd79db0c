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
from rayrlhf.preferences.answers import Choice
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
