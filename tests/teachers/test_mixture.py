"""Several teachers as one: who answers, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import asked
from scipy import stats
from support import SMALL

from rayrlhf.config import TeacherOptions
from rayrlhf.config.load import load_config, overridden, save_config
from rayrlhf.config.protocol import protocol
from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.teachers import make_teacher
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

WEIGHTS = {"oracle": 7.0, "mistake": 2.0, "random": 1.0}
RNG = np.random.default_rng(0)
QUERIES = asked(RNG.normal(size=(3000, 4)), RNG.normal(size=(3000, 4)), typical_return=100.0)


def said(options: TeacherOptions, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Annotator and choice by query."""
    teacher = make_teacher(options, seed)
    teacher.ask(QUERIES)
    found = teacher.collect()
    assert len(found) == len(QUERIES) and teacher.collect() == []
    return {one.query_id: (one.annotator, one.choice) for one in found}


def test_each_question_is_answered_by_one_of_them_as_often_as_its_weight_says() -> None:
    names = [annotator for annotator, _ in said(TeacherOptions(mixture=WEIGHTS)).values()]
    counts = [names.count(name) for name in WEIGHTS]
    assert sum(counts) == len(QUERIES)
    assert stats.chisquare(counts, [share * len(QUERIES) for share in (0.7, 0.2, 0.1)]).pvalue > 1e-3


def test_each_says_what_it_would_say_alone() -> None:
    alone = {name: said(TeacherOptions(name=name), seed=3) for name in WEIGHTS}
    for key, (annotator, choice) in said(TeacherOptions(mixture=WEIGHTS), seed=3).items():
        assert alone[annotator][key] == (annotator, choice)


def test_what_is_set_is_set_for_all_but_the_random_one() -> None:
    changed = said(TeacherOptions(mixture=WEIGHTS, equal=1.0))
    assert {choice for name, choice in changed.values() if name != "random"} == {"equal"}
    assert {choice for name, choice in changed.values() if name == "random"} == {"left", "right"}


@given(st.permutations(list(WEIGHTS.items())), st.sets(st.integers(0, 30)))
def test_who_answers_depends_on_seed_and_query_alone(order: list[tuple[str, float]], first: set[int]) -> None:
    """Not on the order in which weights are written, nor on what was asked before: a resume asks anew."""
    expected = make_teacher(TeacherOptions(mixture=WEIGHTS), 4)
    found = make_teacher(TeacherOptions(mixture={name: weight / 10 for name, weight in order}), 4)
    some = QUERIES.take(np.arange(31))
    expected.ask(some)
    for part in (sorted(first), range(31)):
        found.ask(some.take(np.array(part, dtype=np.int64)))
    by_id = [sorted(teacher.collect(), key=lambda one: one.query_id) for teacher in (expected, found)]
    assert by_id[0] == by_id[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher.mixture={orcale: 1}"], "'orcale', wanted some of oracle, .*; did you mean 'oracle'"),
        (["teacher.mixture={oracle: 0}"], "teacher.mixture is 0, wanted {text: a number above 0, ...}"),
        (["teacher.mixture={oracle: -0.5, skip: 1}"], "teacher.mixture is -0.5, wanted {text: a number above 0"),
        (["teacher.mixture=oracle"], "teacher.mixture is 'oracle', wanted {text: a number above 0"),
        (["teacher.mixture={silent: 1}"], "'silent', whose questions would stay open for ever; wanted some of"),
        (["teacher.mixture={human: 1, oracle: 1}"], "'human', who answer through a queue"),
        (["teacher.mixture={'my.module:Mine': 1}"], "'my.module:Mine', and a teacher of your own"),
        (["teacher.name=mixture"], "teacher.name mixture wants teacher.mixture, such as"),
        (["teacher=skip", "teacher.mixture={oracle: 1}"], "teacher.mixture wants teacher.name mixture, not skip"),
    ],
)
def test_a_mixture_that_cannot_be_is_one_clear_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config("toy", words)
    assert "\n" not in str(caught.value)


def test_a_mixture_survives_its_file_and_is_replaced_whole(tmp_path: Path) -> None:
    config = load_config("toy", ["--teacher.mixture", "{oracle: 0.5, skip: 0.5}"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert overridden(config, {"teacher.mixture": {"noisy": 1.0}}).teacher.mixture == {"noisy": 1.0}
    (tmp_path / "next.yaml").write_text("base: config.yaml\nteacher:\n  mixture: {random: 3, oracle: 1}\n")
    next_one = load_config(str(tmp_path / "next.yaml"))
    assert next_one.teacher.mixture == {"random": 3.0, "oracle": 1.0}
    assert "mixture (random 0.75, oracle 0.25) teacher" in protocol(next_one)
    errs = TeacherOptions(mistake=0.3, gamma=0.9)
    assert "oracle (gamma 0.9, mistake 0.3) teacher" in protocol(next_one.model_copy(update={"teacher": errs}))


@pytest.mark.usefixtures("ray_session")
def test_a_run_has_the_names_of_those_who_answered_in_its_log(tmp_path: Path) -> None:
    options: list[Any] = ["--teacher.mixture={oracle: 1, mistake: 1}", "--teacher.fatigue=0.05", "name=mixed"]
    config = load_config("toy", [*SMALL, *options, f"--storage_path={tmp_path}", "--evaluation.final_episodes=1"])
    assert train(config, progress=False)["teacher"] == "mixture"
    log = PreferenceDataset(str(RunDirectory.open(tmp_path / "mixed").path / "preferences"))
    names = [answer.annotator for _, answers in log.read() for answer in answers]
    assert len(names) == 12 and set(names) == {"oracle", "mistake"}
