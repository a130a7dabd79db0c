"""Programs in people's place: the true reward behind what is shown, and whoever answers by it or otherwise."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.wire import Shown
from rayrlhf.tracking import RunDirectory

PATIENCE = 600.0
REST_SECONDS = 0.05


class Truth:
    """True returns of what the run's people are shown, by clip."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._of: dict[str, float] = {}

    def prefers(self, left: str, right: str) -> Choice:
        """The better clip."""
        if not {left, right} <= self._of.keys():
            self._read()
        gap = self._of[right] - self._of[left]
        return "equal" if gap == 0 else "right" if gap > 0 else "left"

    def _read(self) -> None:
        with sqlite3.connect(f"file:{self._run.queue_file}?mode=ro", uri=True) as store:
            asked = store.execute("SELECT id, left_clip, right_clip FROM queries WHERE ready").fetchall()
        # after the store: a question is logged before it is put
        returns: dict[str, tuple[float, float]] = {}
        for queries, _ in PreferenceDataset(self._run.preferences).read():
            sums = queries.left.reward.sum(1).tolist(), queries.right.reward.sum(1).tolist()
            returns |= dict(zip(queries.ids, zip(*sums, strict=True), strict=True))
        for key, *clips in asked:
            self._of |= dict(zip(clips, returns[key], strict=True))


class Annotator(threading.Thread):
    """Answers whatever the queue of `run` asks, through every outage, until `enough` is set.

    `choose` takes the place of the true reward; `at_once` questions are leased together.
    """

    def __init__(
        self, run: RunDirectory, url: str, *, choose: Callable[[], Choice] | None = None, at_once: int = 1
    ) -> None:
        super().__init__(name="annotator", daemon=True)
        self._run, self._url, self._choose, self._at_once = run, url, choose, at_once
        self._truth = Truth(run)
        self.acknowledged: list[int] = []
        """Numbers of the answers that the queue said it has."""
        self.enough = threading.Event()

    def run(self) -> None:
        """Leases and answers."""
        while not self._run.links_file.is_file():
            if self.enough.wait(REST_SECONDS):
                return
        token = json.loads(self._run.links_file.read_text())["me"]
        with QueueClient(self._url, token, patience=PATIENCE) as client:
            while not self.enough.is_set():
                try:
                    for shown in client.lease(self._run.name, self._at_once):
                        self.acknowledged.append(client.answer(shown.lease, self._choice(shown)).answer)
                except UserError:
                    pass  # the run is not known yet, or the question was dropped meanwhile
                time.sleep(REST_SECONDS)

    def _choice(self, shown: Shown) -> Choice:
        if self._choose is not None:
            return self._choose()
        assert shown.left_clip and shown.right_clip
        return self._truth.prefers(shown.left_clip, shown.right_clip)
