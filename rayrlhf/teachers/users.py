"""Teachers of the user's own, by dotted path or by the name that an installed package gives them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayrlhf.config import TeacherOptions
from rayrlhf.config.classes import imported, installed
from rayrlhf.config.schema import TEACHERS
from rayrlhf.errors import SessionError, UserError, in_one_line, nearest
from rayrlhf.logs import event
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers.protocol import Clips, Closes, Sees, Teacher

_log = logging.getLogger(__name__)

GROUP = "rayrlhf.teachers"
"""The entry point group in which a package offers teachers."""


class TeacherError(SessionError):
    """A teacher of the user's own raised something; training can go on from where it was, once that is mended."""


class UsersTeacher:
    """A teacher of the user's own, whose exceptions say whose they are."""

    def __init__(self, options: TeacherOptions, seed: int) -> None:
        self._name = options.name
        made = users_class(options.name)
        with self._naming("its construction"):
            self._teacher: Teacher = made(options, seed=seed)

    def see(self, clips: Clips) -> None:
        """Passed on where the teacher looks at clips."""
        if isinstance(self._teacher, Sees):
            with self._naming("see()"):
                self._teacher.see(clips)

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

    def close(self) -> None:
        """Passed on where there is one. What it raises is said, and no more: all answers are in the log by now."""
        if isinstance(self._teacher, Closes):
            try:
                self._teacher.close()
            except Exception as error:
                message = f"the teacher {self._name} failed in close(): {in_one_line(error)}"
                _log.warning("%s", message, extra=event("teacher", error=message))

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise TeacherError(f"the teacher {self._name} failed in {what}: {in_one_line(error)}") from error


def users_class(name: str) -> Any:
    """What `teacher.name` names: `package.module:Class`, or an entry point. `UserError` where there is nothing."""
    if ":" in name:
        return imported("teacher.name", name)
    offered = installed(GROUP)
    if name in offered:
        return imported(f"teacher.name {name!r}, installed as", offered[name])
    plugins = f", an installed one ({', '.join(offered)})" if offered else ""
    raise UserError(
        f"teacher.name is {name!r}, wanted one of {', '.join(TEACHERS)}{plugins}, or 'package.module:Class'"
        f"{nearest(name, [*TEACHERS, *offered])}"
    )


def check_users_class(options: TeacherOptions) -> None:
    """Raises `UserError` where nothing has the options' name, it is no teacher, or `teacher.clips` does not fit it."""
    name = options.name
    found = users_class(name)
    if missing := [method for method in ("ask", "collect") if not _can(found, method)]:
        raise UserError(f"teacher.name {name!r} is no teacher: it has no {' and no '.join(missing)}")
    if _can(found, "see") and not options.clips:
        raise UserError(
            f"the teacher {name} looks at clips: set teacher.clips to true, and what they are drawn from is recorded"
        )
    if options.clips and not _can(found, "see"):
        raise UserError(f"teacher.clips means nothing to the teacher {name}, which has no see(): leave it out")


def _can(found: Any, method: str) -> bool:
    return callable(getattr(found, method, None))
