"""Several teachers as one, as a crowd of annotators is: each question is answered by one of them."""

import numpy as np

from rayrlhf.config import TeacherOptions
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers.immediate import ImmediateTeacher
from rayrlhf.teachers.scripted import RandomTeacher, ScriptedTeacher, stream_of


class MixedTeacher:
    """Draws who answers a question from its id, so that after a resume the same one says the same.

    An answer's annotator is the name of who gave it. What the options set is set for all of them but `random`.
    """

    def __init__(self, options: TeacherOptions, *, seed: int) -> None:
        self._seed = seed
        names = sorted(options.mixture)  # in whatever order they are written
        weights = np.array([options.mixture[name] for name in names])
        self._shares = weights / weights.sum()
        self._teachers = [_named(name, options, seed) for name in names]

    def ask(self, queries: Queries) -> None:
        """Hands each query to the teacher it is drawn for."""
        drawn = np.array([self._drawn(key) for key in queries.ids], dtype=np.int64)
        for i, teacher in enumerate(self._teachers):
            teacher.ask(queries.take(np.flatnonzero(drawn == i)))

    def collect(self) -> list[Answer]:
        """What all of them said since the last call."""
        return [answer for teacher in self._teachers for answer in teacher.collect()]

    def _drawn(self, key: str) -> int:
        return int(stream_of(self._seed, "mixture", key).choice(len(self._teachers), p=self._shares))


def _named(name: str, options: TeacherOptions, seed: int) -> ImmediateTeacher:
    if name == "random":
        return RandomTeacher(seed=seed)
    return ScriptedTeacher(options.model_copy(update={"name": name, "mixture": {}}), seed=seed)
