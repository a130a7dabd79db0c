"""Teachers that answer at once: the base of all programs that stand in for people."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.segments import Queries


class ImmediateTeacher(ABC):
    """Answers each query once, in `ask`; a subclass says how in `choose`.

    After a resume a fresh teacher is asked again what was open. So that it says the same, `choose` should depend on
    the query alone: a generator made from the query's id gives randomness that does.
    """

    def __init__(self, annotator: str) -> None:
        self.annotator = annotator
        self._asked: set[str] = set()
        self._waiting: list[Answer] = []

    @abstractmethod
    def choose(self, queries: Queries) -> Sequence[Choice | None]:
        """One choice per query, in order; none where the teacher stays silent."""

    def ask(self, queries: Queries) -> None:
        """Answers the queries whose ids are new."""
        new = queries.among(set(queries.ids) - self._asked)
        self._asked.update(new.ids)
        choices = self.choose(new)
        self._waiting += [
            Answer(key, choice, self.annotator)
            for key, choice in zip(new.ids, choices, strict=True)
            if choice is not None
        ]

    def collect(self) -> list[Answer]:
        """The answers since the last call."""
        answers, self._waiting = self._waiting, []
        return answers
