"""The videos of a comparison: one of each side and task, in the page itself, or beside it where they are large."""

import base64
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from rayrlhf.envs.video import first_frame
from rayrlhf.errors import UserError
from rayrlhf.plotting.numbers import of_task, tasks_of
from rayrlhf.plotting.runs import RETURN, SUCCESS, Curve, Method

EMBEDDED = 2_000_000
"""Bytes of a video that the page still holds itself; larger ones are copied beside it."""


@dataclass(frozen=True)
class Film:
    """A video and what it shows.

    source: a `data:` URI, or a path relative to the page
    poster: its first frame, as a `data:` URI, for before it is played and for paper
    """

    side: int
    task: str
    run: str
    success: float
    source: str
    poster: str


def films(sides: Sequence[Method], beside: Path) -> list[Film]:
    """Of each side and task the newest video of the run that ended in the middle, of those that have any.

    beside: folder, next to the page, for videos of more than `EMBEDDED` bytes
    """
    found: list[Film] = []
    for task in tasks_of(sides):
        for index, side in enumerate(sides):
            filmed = [(curve, video) for curve in of_task(side, task).curves if (video := newest(curve)) is not None]
            if filmed:
                ranked = sorted(filmed, key=lambda one: [float(one[0].values[name][-1]) for name in (SUCCESS, RETURN)])
                curve, video = ranked[(len(ranked) - 1) // 2]
                source = _source(video, beside, f"video-{len(found) + 1}.mp4")
                success = float(curve.values[SUCCESS][-1])
                found.append(Film(index, task, curve.run.name, success, source, _poster(video)))
    return found


def newest(curve: Curve) -> Path | None:
    """The run's last video; none where it was not filmed."""
    return max(curve.run.videos.glob("step*.mp4"), default=None)


def _source(video: Path, beside: Path, name: str) -> str:
    try:
        if video.stat().st_size <= EMBEDDED:
            return _data("video/mp4", video.read_bytes())
        beside.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, beside / name)
    except OSError as error:
        raise UserError(f"cannot copy {video}: {error.strerror or error}") from error
    return f"{quote(beside.name)}/{name}"


def _poster(video: Path) -> str:
    file = io.BytesIO()
    Image.fromarray(first_frame(video)).save(file, "JPEG", quality=80)
    return _data("image/jpeg", file.getvalue())


def _data(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
