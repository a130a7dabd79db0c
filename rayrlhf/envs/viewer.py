"""A window on a running environment, where a display exists."""

import os
import sys
from typing import Any

from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.loop import LoopEnv
from rayrlhf.errors import UserError


class Viewer:
    """MuJoCo's own window. It shows the state as of the last `sync` and runs in a thread beside the environment."""

    def __init__(self, window: Any) -> None:
        self._window = window

    def sync(self) -> bool:
        """Shows the present state; false once the user has closed the window."""
        if not self._window.is_running():
            return False
        self._window.sync()
        return True

    def close(self) -> None:
        """Closes the window."""
        self._window.close()


def open_viewer(env: VectorEnv, index: int = 0) -> Viewer:
    """A window on environment `index`.

    Raises `UserError` without a display, or if the environment is not a MuJoCo one stepped in Python.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("no display here (DISPLAY is not set): record videos instead of render human")
    simulation = env.envs[index].mujoco() if isinstance(env, LoopEnv) else None
    if simulation is None:
        raise UserError(f"{env.spec.name} has no window of its own: record videos instead of render human")
    from mujoco import viewer  # needs a display to be imported

    try:
        window = viewer.launch_passive(*simulation, show_left_ui=False, show_right_ui=False)
    except Exception as error:  # GLFW raises what it likes
        raise UserError(f"cannot open a window: {error}") from error
    return Viewer(window)
