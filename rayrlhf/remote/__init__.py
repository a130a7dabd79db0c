"""Runs that are stored at a URL: copied there while they train, gone on with from there, read from there."""

from rayrlhf.remote.copies import local, seen
from rayrlhf.remote.mirror import InPlace, Mirror, copy_pictures
from rayrlhf.remote.objects import Objects
from rayrlhf.remote.opening import OpenedRun, begun, open_run

__all__ = ["InPlace", "Mirror", "Objects", "OpenedRun", "begun", "copy_pictures", "local", "open_run", "seen"]
