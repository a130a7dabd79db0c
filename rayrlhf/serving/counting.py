"""The queue's metrics, as its replicas record them; requests are counted by Ray Serve."""

import time
from collections import defaultdict

import ray

from rayrlhf.preferences.store import Receipt, Reports, UnavailableError
from rayrlhf.tracking.ray_metrics import Meters

LOOK_SECONDS = 10.0
"""How often a replica counts a run's questions, at most."""


class QueueMeters:
    """What a replica records of runs. For threads."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._meters = Meters()
        self._looked: dict[str, float] = defaultdict(lambda: -LOOK_SECONDS)

    def leased(self, run: str, count: int) -> None:
        """Some questions of `run` were handed out."""
        if count:
            self._meters.record("rayrlhf_queue_leases", count, run=run)
        self.look(run)

    def answered(self, receipt: Receipt) -> None:
        """An answer was stored; one that was stored already is not counted again."""
        if receipt.took is not None:
            self._meters.record("rayrlhf_queue_answers", run=receipt.run)
            self._meters.record("rayrlhf_queue_answer_seconds", receipt.took, run=receipt.run)

    def look(self, run: str) -> None:
        """Counts the questions of a `run` that exists, unless it was done a moment ago."""
        now = time.monotonic()
        if not ray.is_initialized() or now - self._looked[run] < LOOK_SECONDS:
            return
        self._looked[run] = now
        try:
            progress, leased = self._reports.progress(run), self._reports.leased(run)
        except UnavailableError:  # who called has what they called for
            return
        for status in ("open", "label", "skip", "disputed", "expired"):
            self._meters.record("rayrlhf_queue_questions", getattr(progress, status), run=run, status=status)
        self._meters.record("rayrlhf_queue_questions", leased, run=run, status="leased")
