"""Videos of frames, as every browser plays them."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame with an even height and width."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
