"""The answer log of a run whose observations end with instructions: there they stand in words.

So the log holds what the simulator observed, whatever turned sentences into numbers, and other runs can read it.
"""

from collections.abc import Sequence
from dataclasses import replace

from rayrlhf.language.instructions import Vocabulary, instructed, plain, require_instructions
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.table import Record


class InstructedLog:
    """A dataset that is written and read with the instructions in the observations."""

    def __init__(self, log: PreferenceDataset, vocabulary: Vocabulary) -> None:
        self._log, self._vocabulary = log, vocabulary

    def append(self, queries: Queries, answers: Sequence[Answer]) -> None:
        """As `PreferenceDataset.append`."""
        left, right = (plain(side, self._vocabulary.width) for side in (queries.left, queries.right))
        self._log.append(replace(queries, left=left, right=right), answers)

    def sessions(self) -> list[int]:
        """The sessions that hold anything, in order."""
        return self._log.sessions()

    def read_session(self, session: int) -> Record:
        """As `PreferenceDataset.read_session`."""
        return self._instructed(*self._log.read_session(session))

    def read(self) -> list[Record]:
        """As `PreferenceDataset.read`."""
        return [self._instructed(*record) for record in self._log.read()]

    def _instructed(self, queries: Queries, answers: list[Answer]) -> Record:
        vectors = self._vocabulary.vectors(require_instructions(queries.instructions, self._log.where))
        left, right = (instructed(side, vectors) for side in (queries.left, queries.right))
        return replace(queries, left=left, right=right), answers
