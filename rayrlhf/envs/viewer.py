"""A window on a running environment, where a display exists."""

import os
import sys
import time
from typing import Any

from rayrlhf.envs.instructed import InstructedEnv
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.loop import LoopEnv
from rayrlhf.errors import UserError

JUMP_SECONDS = 0.5
"""A step of the simulator's clock beyond this is a reset, or a state put there: nothing to wait for."""


class Viewer:
    """MuJoCo's own window, at the simulator's pace. It shows the state as of the last `sync`."""

    def __init__(self, window: Any, data: Any) -> None:
        self._window, self._data = window, data
        self._shown, self._due = float(data.time), time.monotonic()

    def sync(self) -> bool:
        """Shows the present state when its time has come; false once the user has closed the window."""
        if not self._window.is_running():
            return False
        passed, now = float(self._data.time) - self._shown, time.monotonic()
        self._due = self._due + passed if 0 < passed < JUMP_SECONDS else now
        self._shown += passed
        time.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now)  # what was late is not made up for by haste
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
    plain = env.plain if isinstance(env, InstructedEnv) else env
    single = plain.envs[index] if isinstance(plain, LoopEnv) else None
    simulation = single.mujoco() if single is not None else None
    if single is None or simulation is None:
        raise UserError(f"{env.spec.name} has no window of its own: record videos instead of render human")
    from mujoco import viewer  # needs a display to be imported

    try:
        window = viewer.launch_passive(*simulation, show_left_ui=False, show_right_ui=False)
    except Exception as error:  # GLFW raises what it likes
        raise UserError(f"cannot open a window: {error}") from error
    if single.view is not None:
        with window.lock():
            single.view.point(window.cam)
    return Viewer(window, simulation[1])
