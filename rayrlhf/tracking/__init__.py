"""A run's folder, what is written there while it trains, and the progress line."""

from rayrlhf.tracking.directory import RunDirectory, read_metrics, work_folder
from rayrlhf.tracking.manifest import seconds_since_start
from rayrlhf.tracking.native import native_stderr_to
from rayrlhf.tracking.progress import Progress
from rayrlhf.tracking.story import note_stop, told
from rayrlhf.tracking.tracker import Tracker

__all__ = [
    "Progress",
    "RunDirectory",
    "Tracker",
    "native_stderr_to",
    "note_stop",
    "read_metrics",
    "seconds_since_start",
    "told",
    "work_folder",
]
