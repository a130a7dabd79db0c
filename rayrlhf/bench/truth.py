"""Who knows the true reward behind what people are shown, and answers by it."""

import json
import sqlite3
import threading
import time

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory

PATIENCE = 600.0
REST_SECONDS = 0.1


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
        returns: dict[str, tuple[float, float]] = {}
        for queries, _ in PreferenceDataset(self._run.preferences).read():
            sums = queries.left.reward.sum(1).tolist(), queries.right.reward.sum(1).tolist()
            returns |= dict(zip(queries.ids, zip(*sums, strict=True), strict=True))
        with sqlite3.connect(f"file:{self._run.queue_file}?mode=ro", uri=True) as store:
            for key, *clips in store.execute("SELECT id, left_clip, right_clip FROM queries WHERE ready"):
                self._of |= dict(zip(clips, returns[key], strict=True))


class Annotator(threading.Thread):
    """Answers whatever the queue of `run` asks, through every outage, until `enough` is set."""

    def __init__(self, run: RunDirectory, url: str, name: str = "me") -> None:
        super().__init__(name=name, daemon=True)
        self._run, self._url, self._name = run, url, name
        self.acknowledged: list[int] = []
        """Numbers of the answers that the queue said it has."""
        self.enough = threading.Event()

    def run(self) -> None:
        """Leases and answers."""
        while not self._run.links_file.is_file():
            if self.enough.wait(REST_SECONDS):
                return
        truth, token = Truth(self._run), json.loads(self._run.links_file.read_text())[self._name]
        with QueueClient(self._url, token, patience=PATIENCE) as client:
            while not self.enough.is_set():
                try:
                    for shown in client.lease(self._run.name):
                        assert shown.left_clip and shown.right_clip
                        choice = truth.prefers(shown.left_clip, shown.right_clip)
                        self.acknowledged.append(client.answer(shown.lease, choice).answer)
                except UserError:
                    pass  # the run is not known yet, or the question was dropped meanwhile
                time.sleep(REST_SECONDS)
