"""Small operations on frames `[H, W, 3]`."""

import numpy as np
from numpy.typing import NDArray


def resize(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The frame at another size, by its nearest pixels; its sides may change their ratio."""
    old_height, old_width = frame.shape[:2]
    if (old_width, old_height) == (width, height):
        return frame
    rows = (np.arange(height) + 0.5) * old_height / height
    columns = (np.arange(width) + 0.5) * old_width / width
    resized: NDArray[np.uint8] = frame[rows.astype(np.intp)][:, columns.astype(np.intp)]
    return resized
