"""People as the teacher, through the queue of questions."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from rayrlhf.errors import SessionError, UserError
from rayrlhf.logs import event
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.store import Decision, Question, RefusedError, Run, UnavailableError

_log = logging.getLogger(__name__)


class HumanTeacher:
    """Keeps what is to be asked and what has been decided; `exchange` carries both to and from the queue.

    Whoever asks and collects never waits for the network: `exchange` is for a thread of its own. Nothing is lost where
    the queue is away: questions are put when it is back, and the queue tells what it has decided until `collect` is
    called once more after the call that handed it out. By then the caller has it in its log.
    """

    def __init__(self, client: QueueClient, run: Run, make_clips: Callable[[Sequence[str]], None]) -> None:
        """make_clips: is told the ids of questions that are put and whose clips are still to be made."""
        self._client, self._run, self._make_clips = client, run, make_clips
        self._registered = False
        self._in_use = threading.Lock()
        self._open: dict[str, Question] = {}
        self._unasked: dict[str, Question] = {}
        self._arrived: dict[str, Decision] = {}
        self._handed_out: list[str] = []
        self._received: list[str] = []
        self._refused: SessionError | None = None
        self._away = False

    def ask(self, queries: Queries, known: Mapping[str, Choice] | None = None) -> None:
        """Keeps `queries` to be put; ids that were put before are handed out once more when they are decided.

        Those whose answer is `known` test people, and nothing is handed out.
        """
        self._raise_refusal()
        oldest = queries.session - self._run.options.keep_sessions + 1
        with self._in_use:
            self._open = {
                key: one for key, one in self._open.items() if one.session >= oldest
            }  # nobody is shown others
            for position, key in enumerate(queries.ids):
                gold = (known or {}).get(key)
                said = queries.instructions[position] if queries.instructions else None
                question = Question(key, queries.session, position, gold=gold, ready=False, instruction=said)
                self._open[key] = self._unasked[key] = question

    def collect(self) -> list[Answer]:
        """What has been decided, and has arrived, since the last call."""
        self._raise_refusal()
        with self._in_use:
            self._received += self._handed_out
            arrived, self._arrived = self._arrived, {}
            self._handed_out = list(arrived)
        return [answer for decision in arrived.values() for answer in self._answers(decision)]

    @property
    def waiting(self) -> bool:
        """Whether there are questions to put."""
        return bool(self._unasked)

    def exchange(self) -> None:
        """Puts what is to be asked, and fetches what has been decided; one thread at a time.

        Says once where the queue is away: training goes on, and a later call catches up. A queue that does not know the
        run any more, since its database is another one, is asked everything anew. One that will not have the run at all
        is what the next `ask` or `collect` raises.
        """
        try:
            self._put()
            self._fetch()
        except UnavailableError as error:
            self._complain(f"{error}; training goes on, and what people say is fetched when it is back")
        except RefusedError as error:
            if error.why != "unknown":
                self._refused = SessionError(f"people cannot be asked: {error}")
                return
            with self._in_use:
                self._registered, self._unasked = False, dict(self._open)
                self._handed_out, self._received = [], []
        except UserError as error:
            self._complain(f"{error}; training goes on without people until that is mended")
        else:
            if self._away:
                _log.info("the queue is back", extra=event("queue-back"))
            self._away = False

    def _put(self) -> None:
        if not self._registered:
            self._client.register(self._run)
            self._registered = True
        with self._in_use:
            unasked = dict(self._unasked)
        if unasked:
            self._make_clips(self._client.enqueue(self._run.name, list(unasked.values())))
            with self._in_use:
                self._unasked = {key: one for key, one in self._unasked.items() if unasked.get(key) is not one}

    def _fetch(self) -> None:
        with self._in_use:
            received = list(self._received)
        decisions = self._client.decisions(self._run.name, received)
        with self._in_use:
            del self._received[: len(received)]
            kept = {*self._arrived, *self._handed_out, *self._received}
            for decision in decisions:
                self._open.pop(decision.query_id, None)
                if decision.query_id not in kept:
                    self._arrived[decision.query_id] = decision

    def _raise_refusal(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _complain(self, message: str) -> None:
        if not self._away:
            _log.warning("%s", message, extra=event("queue-away"))
        self._away = True

    def _answers(self, decision: Decision) -> Sequence[Answer]:
        """The votes where labels are their mean, else what was decided as one answer of all who said something."""
        votes = decision.votes
        if decision.status == "label" and self._run.options.labels == "soft":
            return [Answer(decision.query_id, one.choice, one.annotator, one.seconds, one.replays) for one in votes]
        names = ", ".join(sorted({vote.annotator for vote in votes})) or "nobody"  # a question that could not be shown
        seconds, replays = sum(vote.seconds for vote in votes), sum(vote.replays for vote in votes)
        choice = decision.choice if decision.choice is not None else "skip"  # what people disagree about makes no label
        return [Answer(decision.query_id, choice, names, seconds, replays)]
