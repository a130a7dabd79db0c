"""People as the teacher, through the queue of questions."""

import logging
from collections.abc import Callable, Mapping, Sequence

from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.store import Decision, Question, Run, UnavailableError

_log = logging.getLogger(__name__)


class HumanTeacher:
    """Puts queries to the queue, and fetches what has been decided.

    Nothing is lost where the queue is away: questions are put when it is back, and what it has decided is handed out
    again until the call after the one that gave it here. By then the caller has it in its log.
    """

    def __init__(self, client: QueueClient, run: Run, make_clips: Callable[[Sequence[str]], None]) -> None:
        """make_clips: is told the ids of questions that are put and whose clips are still to be made."""
        self._client, self._run, self._make_clips = client, run, make_clips
        self._registered = False
        self._unasked: list[Question] = []
        self._received: list[str] = []
        self._away = False

    def ask(self, queries: Queries, known: Mapping[str, Choice] | None = None) -> None:
        """Puts `queries`; ids that were put before are handed out once more when they are decided.

        Those whose answer is `known` test people, and nothing is handed out.
        """
        self._unasked += [
            Question(key, queries.session, position, gold=(known or {}).get(key), ready=False)
            for position, key in enumerate(queries.ids)
        ]
        self._reach(self._put)

    def collect(self) -> list[Answer]:
        """What has been decided since the last call."""
        decisions: list[Decision] = []

        def fetch() -> None:
            self._put()
            decisions.extend(self._client.decisions(self._run.name, self._received))
            self._received = [decision.query_id for decision in decisions]

        self._reach(fetch)
        return [answer for decision in decisions for answer in self._answers(decision)]

    def _put(self) -> None:
        if not self._registered:
            self._client.register(self._run)
            self._registered = True
        if self._unasked:
            self._make_clips(self._client.enqueue(self._run.name, self._unasked))
            self._unasked = []

    def _reach(self, call: Callable[[], None]) -> None:
        """Calls, and says once where the queue is away: training goes on, and a later call catches up."""
        try:
            call()
        except UnavailableError as error:
            if not self._away:
                _log.warning("%s; training goes on, and what people say is fetched when it is back", error)
            self._away = True
        else:
            self._away = False

    def _answers(self, decision: Decision) -> Sequence[Answer]:
        """The votes where labels are their mean, else what was decided as one answer of all who said something."""
        votes = decision.votes
        if decision.status == "label" and self._run.options.labels == "soft":
            return [Answer(decision.query_id, one.choice, one.annotator, one.seconds, one.replays) for one in votes]
        names = ", ".join(sorted({vote.annotator for vote in votes}))
        seconds, replays = sum(vote.seconds for vote in votes), sum(vote.replays for vote in votes)
        choice = decision.choice if decision.choice is not None else "skip"  # what people disagree about makes no label
        return [Answer(decision.query_id, choice, names, seconds, replays)]
