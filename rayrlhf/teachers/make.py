"""From the options to a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager

from rayrlhf.config import TeacherOptions
from rayrlhf.config.classes import imported
from rayrlhf.errors import SessionError, UserError, in_one_line
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers.protocol import Teacher
from rayrlhf.teachers.scripted import PRESETS, RandomTeacher, ScriptedTeacher, SilentTeacher, overrides


def make_teacher(options: TeacherOptions, seed: int) -> Teacher:
    """The teacher that `options` name. A class of the user's own is constructed as `Class(options, seed=seed)`.

    Raises:
        UserError: a parameter of the scripted teachers is set for a control, which has none; training would wait for
            the silent one for ever; or a user's class cannot be imported or is no teacher.
        TeacherError: a user's class cannot be constructed. What its methods raise later is made one, too.
    """
    check_teacher(options)
    if options.name in PRESETS:
        return ScriptedTeacher(options, seed=seed)
    if ":" in options.name:
        return _UsersTeacher(options, seed)
    if options.name == "human":
        raise UserError("the teacher human is asked through a queue: use `rayrlhf train`, or give `train` its `people`")
    return RandomTeacher(seed=seed) if options.name == "random" else SilentTeacher()


class TeacherError(SessionError):
    """A teacher of the user's own raised something; training can go on from where it was, once that is mended."""


class _UsersTeacher:
    """A teacher of the user's own, whose exceptions say whose they are."""

    def __init__(self, options: TeacherOptions, seed: int) -> None:
        self._name = options.name
        made = imported("teacher.name", options.name)
        with self._naming("its construction"):
            self._teacher: Teacher = made(options, seed=seed)

    def ask(self, queries: Queries) -> None:
        """Passed on."""
        with self._naming("ask()"):
            self._teacher.ask(queries)

    def collect(self) -> list[Answer]:
        """Passed on."""
        with self._naming("collect()"):
            answers = list(self._teacher.collect())
            if foreign := [type(answer).__name__ for answer in answers if not isinstance(answer, Answer)]:
                raise TypeError(f"{foreign[0]} is no Answer")
        return answers

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise TeacherError(f"the teacher {self._name} failed in {what}: {in_one_line(error)}") from error


def check_teacher(options: TeacherOptions) -> None:
    """Raises what `make_teacher` would raise, and makes none."""
    if ":" in options.name:
        found = imported("teacher.name", options.name)
        if missing := [method for method in ("ask", "collect") if not callable(getattr(found, method, None))]:
            raise UserError(f"teacher.name {options.name!r} is no teacher: it has no {' and no '.join(missing)}")
    if ":" in options.name or options.name in PRESETS:
        return
    if meaningless := [*overrides(options), *["bpref_compat"] * options.bpref_compat]:
        raise UserError(f"teacher.{meaningless[0]} means nothing to the {options.name} teacher: leave it out")
    if options.name == "silent" and options.wait:
        raise UserError("teacher.wait would wait for ever for the silent teacher: set it to false")
