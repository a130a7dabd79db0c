"""People as the teacher, through the queue of questions."""

import logging
from collections.abc import Callable, Mapping, Sequence

from rayrlhf.errors import SessionError, UserError
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.store import Decision, Question, RefusedError, Run, UnavailableError

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
        self._open: dict[str, Question] = {}
        self._unasked: dict[str, Question] = {}
        self._received: list[str] = []
        self._away = False

    def ask(self, queries: Queries, known: Mapping[str, Choice] | None = None) -> None:
        """Puts `queries`; ids that were put before are handed out once more when they are decided.

        Those whose answer is `known` test people, and nothing is handed out.
        """
        for position, key in enumerate(queries.ids):
            gold = (known or {}).get(key)
            self._open[key] = self._unasked[key] = Question(key, queries.session, position, gold=gold, ready=False)
        self._reach(self._put)

    def collect(self) -> list[Answer]:
        """What has been decided since the last call."""
        decisions: list[Decision] = []

        def fetch() -> None:
            self._put()
            decisions.extend(self._client.decisions(self._run.name, self._received))
            self._received = [decision.query_id for decision in decisions]

        self._reach(fetch)
        for decision in decisions:
            self._open.pop(decision.query_id, None)
        return [answer for decision in decisions for answer in self._answers(decision)]

    def _put(self) -> None:
        if not self._registered:
            self._client.register(self._run)
            self._registered = True
        if self._unasked:
            self._make_clips(self._client.enqueue(self._run.name, list(self._unasked.values())))
            self._unasked = {}

    def _reach(self, call: Callable[[], None]) -> None:
        """Calls, and says once where the queue is away: training goes on, and a later call catches up.

        A queue that does not know the run any more, since its database is another one, is asked everything anew.
        """
        try:
            call()
        except UnavailableError as error:
            self._complain(f"{error}; training goes on, and what people say is fetched when it is back")
        except RefusedError as error:
            if error.why != "unknown":
                raise SessionError(f"people cannot be asked: {error}") from error
            self._registered, self._unasked, self._received = False, dict(self._open), []
        except UserError as error:
            self._complain(f"{error}; training goes on without people until that is mended")
        else:
            self._away = False

    def _complain(self, message: str) -> None:
        if not self._away:
            _log.warning("%s", message)
        self._away = True

    def _answers(self, decision: Decision) -> Sequence[Answer]:
        """The votes where labels are their mean, else what was decided as one answer of all who said something."""
        votes = decision.votes
        if decision.status == "label" and self._run.options.labels == "soft":
            return [Answer(decision.query_id, one.choice, one.annotator, one.seconds, one.replays) for one in votes]
        names = ", ".join(sorted({vote.annotator for vote in votes}))
        seconds, replays = sum(vote.seconds for vote in votes), sum(vote.replays for vote in votes)
        choice = decision.choice if decision.choice is not None else "skip"  # what people disagree about makes no label
        return [Answer(decision.query_id, choice, names, seconds, replays)]
