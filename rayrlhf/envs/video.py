"""Videos of frames, as every browser plays them."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.errors import UserError, in_one_line


def write_video(path: str | Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Writes frames `[H, W, 3]` of one size to an MP4 file: H.264, yuv420p, index first.

    The codec wants even sizes: an odd last row or column is repeated. The file appears under its name when it is whole.
    Raises `ValueError` without frames.
    """
    import av  # a large library, wanted only here

    final = Path(path)
    partial = final.with_name(f".{final.stem}.partial.mp4")
    written = 0
    with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        for pixels in map(_even, frames):
            if not written:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            written += 1
        if written:
            container.mux(stream.encode())
    if not written:
        partial.unlink(missing_ok=True)
        raise ValueError("a video needs at least one frame")
    partial.replace(final)


def browser_clip(path: Path) -> bytes:
    """The video `path` as every browser plays it: as it is, if it is so; else drawn anew, without sound.

    Raises `UserError` for what is no video.
    """
    import av  # a large library, wanted only here

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec, fps = stream.codec_context, float(stream.average_rate or 25)
            plays = codec.name == "h264" and codec.pix_fmt == "yuv420p" and "mp4" in container.format.name
            content = path.read_bytes()
            if plays and content[4:8] == b"ftyp":
                return content
            with TemporaryDirectory() as folder:
                again = Path(folder) / "clip.mp4"
                write_video(again, _frames(container, stream), fps)
                return again.read_bytes()
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise UserError(f"{path} is no video that can be read: {in_one_line(error)}") from error


def first_frame(path: Path) -> NDArray[np.uint8]:
    """The first frame `[H, W, 3]` of the video `path`. Raises `UserError` for what is no video."""
    import av  # a large library, wanted only here

    try:
        with av.open(str(path)) as container:
            return next(_frames(container, container.streams.video[0]))
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise UserError(f"{path} is no video that can be read: {in_one_line(error)}") from error


def clip_seconds(path: Path) -> float | None:
    """How long the video `path` lasts; none where it does not say. Raises `UserError` for what is no video."""
    import av  # a large library, wanted only here

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise UserError(f"{path} is no video that can be read: {in_one_line(error)}") from error


def _frames(container: Any, stream: Any) -> Iterator[NDArray[np.uint8]]:
    for frame in container.decode(stream):
        yield frame.to_ndarray(format="rgb24")


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame with an even height and width."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
