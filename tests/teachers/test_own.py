"""Teachers from outside the package, by dotted path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rayrlhf.config import TeacherOptions
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.teachers import Closes, Sees, Teacher, TeacherError, make_teacher
from rayrlhf.training import check

USERS = """
from rayrlhf.preferences.answers import Answer
from rayrlhf.teachers import ImmediateTeacher

class Longer:
    '''Says left from the second call on; keeps what it was made with.'''
    def __init__(self, options, seed):
        self.options, self.seed, self.open = options, seed, []

    def ask(self, queries):
        self.open = list(queries.ids)

    def collect(self):
        said, self.open = [Answer(key, "left", "longer") for key in self.open], []
        return said

class Fair(ImmediateTeacher):
    def __init__(self, options, *, seed):
        super().__init__("fair")

    def choose(self, queries):
        return ["equal"] * len(queries)

class Mute:
    def __init__(self, options, seed):
        pass

    def ask(self, queries):
        pass

class Unmade(Mute):
    def __init__(self, options, seed):
        raise RuntimeError("no key")

    def collect(self):
        return []

class Deaf(Longer):
    def ask(self, queries):
        raise RuntimeError("no room")

class Gone(Longer):
    def collect(self):
        raise OSError("the queue is gone\\nfor ever")

class Chatty(Longer):
    def collect(self):
        return ["left"]

class Leaving(Longer):
    '''Sees nothing, and does not go well.'''
    def see(self, clips):
        raise RuntimeError("no eyes")

    def close(self):
        raise RuntimeError("no door")

function = print
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "users_teachers.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "users_teachers"
    sys.modules.pop("users_teachers", None)


def question() -> Queries:
    width = np.zeros((1, 2, 1), np.float32)
    steps = np.zeros((1, 2), np.float32)
    side = Segments(width, width, steps, steps > 0, np.zeros(1, np.int64), np.zeros(1, np.int64))
    return Queries(("run/00000/00000",), 0, side, side)


def said_by(teacher: Teacher) -> list[Answer]:
    teacher.ask(question())
    return teacher.collect()


def test_a_users_teacher_gets_options_and_seed(users_module: str) -> None:
    options = TeacherOptions(name=f"{users_module}:Longer", beta=2.0)
    teacher = make_teacher(options, 7)
    assert (teacher._teacher.options, teacher._teacher.seed) == (options, 7)
    assert said_by(teacher) == [Answer("run/00000/00000", "left", "longer")]


def test_a_users_teacher_may_derive_from_ours(users_module: str) -> None:
    teacher = make_teacher(TeacherOptions(name=f"{users_module}:Fair"), 0)
    assert said_by(teacher) == [Answer("run/00000/00000", "equal", "fair")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_teachers:", "'package.module:Class'"),
        ("no_such_module_here:Me", "cannot be imported: .*; install it or put its folder on PYTHONPATH"),
        ("users_teachers:Lnger", "did you mean 'Longer'"),
        ("users_teachers:function", "is no teacher: it has no ask and no collect"),
        ("users_teachers:Mute", "is no teacher: it has no collect"),
    ],
)
def test_a_bad_path_is_one_clear_line(users_module: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_teacher(TeacherOptions(name=name), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Unmade", "failed in its construction: RuntimeError: no key"),
        ("Deaf", "failed in ask(): RuntimeError: no room"),
        ("Gone", "failed in collect(): OSError: the queue is gone"),
        ("Chatty", "failed in collect(): TypeError: str is no Answer"),
    ],
)
def test_a_users_teacher_that_fails_is_named_in_one_line(users_module: str, name: str, said: str) -> None:
    name = f"{users_module}:{name}"
    with pytest.raises(TeacherError) as caught:
        said_by(make_teacher(TeacherOptions(name=name), 0))
    assert str(caught.value) == f"the teacher {name} {said}"
    assert caught.value.__cause__ is not None


def test_a_misspelt_name_offers_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        check(load_config("toy", ["teacher.name=orcale"]))
    assert str(caught.value) == (
        "teacher.name is 'orcale', wanted one of oracle, mistake, noisy, skip, myopic, equal, mixture, random, silent, "
        "human, or 'package.module:Class'; did you mean 'oracle'?"
    )


def test_a_teacher_that_fails_at_the_end_ends_nothing(users_module: str, caplog: pytest.LogCaptureFixture) -> None:
    name = f"{users_module}:Leaving"
    teacher = make_teacher(TeacherOptions(name=name, clips=True), 0)
    assert isinstance(teacher, Closes)
    teacher.close()
    assert [one.getMessage() for one in caplog.records] == [
        f"the teacher {name} failed in close(): RuntimeError: no door"
    ]


def test_a_teacher_that_cannot_see_is_named(users_module: str) -> None:
    teacher = make_teacher(TeacherOptions(name=f"{users_module}:Leaving", clips=True), 0)
    assert isinstance(teacher, Sees)
    with pytest.raises(TeacherError, match=r"Leaving failed in see\(\): RuntimeError: no eyes"):
        teacher.see(None)  # type: ignore[arg-type]
