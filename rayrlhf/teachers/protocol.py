"""How training talks to whoever answers: a program now, people through a queue later."""

from typing import Protocol, runtime_checkable

from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries


class Teacher(Protocol):
    """Asks at once, collects whenever answers have come. Training decides whether it waits in between."""

    def ask(self, queries: Queries) -> None:
        """Puts `queries` to the teacher and returns at once. An id asked before is not asked again."""
        ...

    def collect(self) -> list[Answer]:
        """The answers that have come since the last call, possibly none."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A teacher that holds something, such as threads or connections."""

    def close(self) -> None:
        """Called once, at the end of the run: nothing is asked or collected any more."""
        ...
