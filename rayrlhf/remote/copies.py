"""What is at a run's URL, brought to this machine for whoever only reads."""

import hashlib
import logging
from pathlib import Path

from rayrlhf.algorithms import checkpoint
from rayrlhf.config.load import load_config
from rayrlhf.files import caches, is_url
from rayrlhf.preferences.storage import parent
from rayrlhf.remote import checkpoints
from rayrlhf.remote.lease import holder
from rayrlhf.remote.objects import Objects
from rayrlhf.remote.opening import CONFIG, require_run
from rayrlhf.tracking.status import Elsewhere

_log = logging.getLogger(__name__)

SMALL = (CONFIG, "instructions.json", "manifest.json", "metrics.jsonl", "events.jsonl", "summary.json")
KEEP = 2
"""Newest checkpoints of a run that stay on this machine."""


def local(target: Path | str, *, with_checkpoint: bool = True) -> Path:
    """The folder of a run or checkpoint, which may be a URL: then a copy of it, without the replay.

    Of a run: what its newest whole checkpoint and its metrics say. Raises `UserError` where there is none.
    """
    if not is_url(target):
        return Path(target)
    folder, name = parent(str(target))
    one_step = parent(folder)[1] == checkpoints.FOLDER
    objects = Objects(parent(folder)[0] if one_step else str(target))
    require_run(objects)
    place = _cache(objects)
    for file in SMALL:
        objects.fetch(file, place / file)
    if one_step:
        return checkpoints.download(objects, name, place, load_config(str(place / CONFIG)), with_replay=False)
    if with_checkpoint:
        config = load_config(str(place / CONFIG))
        checkpoints.download_newest(objects, place, config, _log.warning, with_replay=False)
        checkpoint.prune(place / checkpoints.FOLDER, KEEP)
    return place


def seen(url: str) -> tuple[Path, Elsewhere]:
    """A copy of what the run at `url` has noted, and who trains in it. Raises `UserError` where there is none."""
    objects = Objects(url)
    who = holder(objects)  # first: what an ending process writes is there when it lets go
    return local(url, with_checkpoint=False), Elsewhere(url, who, checkpoints.newest_whole(objects))


def _cache(objects: Objects) -> Path:
    digest = hashlib.blake2b(objects.url.encode(), digest_size=8).hexdigest()
    return caches() / "runs" / digest / parent(objects.name)[1]
