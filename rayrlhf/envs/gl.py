"""Which GL library MuJoCo draws with, and what to install when there is none.

MuJoCo reads `MUJOCO_GL` once, when it is imported, and its own default needs a display.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from rayrlhf.errors import UserError, in_one_line

_LIBRARIES = {"egl": ("libEGL.so.1", "libGL.so.1"), "osmesa": ("libOSMesa.so.8",)}
"""What each back end loads. With EGL alone MuJoCo cannot even be imported: PyOpenGL wants GL beside it."""
_OFF = ("disable", "disabled", "off", "false", "0")
_PROBE = (
    "import mujoco; "
    "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>'); "
    "data = mujoco.MjData(model); renderer = mujoco.Renderer(model, 16, 16); renderer.update_scene(data); "
    "renderer.render(); print('drawn')"
)
REMEDY = "as root run `apt-get install -y libegl1 libgl1` (Debian, Ubuntu), or install Mesa's EGL or OSMesa otherwise"


def choose_backend() -> None:
    """Makes MuJoCo draw with EGL or OSMesa where one is installed; a `MUJOCO_GL` of the user's own stays."""
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL"):
        return
    for backend, libraries in _LIBRARIES.items():
        if all(map(_loads, libraries)):
            _use(backend)
            return


@contextmanager
def blaming_mujoco_gl() -> Iterator[None]:
    """Where MuJoCo cannot even be imported with the user's `MUJOCO_GL`, a `UserError` says so."""
    try:
        yield
    except (AttributeError, ImportError, RuntimeError) as error:
        chosen = os.environ.get("MUJOCO_GL")
        if not chosen or "mujoco" in sys.modules:
            raise
        reason = f"MuJoCo cannot be imported with MUJOCO_GL={chosen} ({in_one_line(error)})"
        raise UserError(f"{reason}: unset it, or {REMEDY}") from error


def rendering_problem() -> str | None:
    """One line that says why MuJoCo cannot draw here and what to install; none if it can.

    Each candidate is tried in a process of its own, since a bad driver may crash it. The first that draws is set for
    this process and its children.
    """
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen in _OFF:
        return f"rendering is switched off by MUJOCO_GL={chosen}: unset it"
    for backend in [chosen] if chosen or sys.platform != "linux" else [*_LIBRARIES, ""]:
        if _draws(backend):
            if backend and not chosen:
                _use(backend)
            return None
    tried = f" with MUJOCO_GL={chosen}" if chosen else ""
    return f"rendering is not possible{tried}: {REMEDY}"


def _use(backend: str) -> None:
    """Sets the back end for MuJoCo, also if it is imported already: RLlib imports it where dm_control is installed."""
    os.environ["MUJOCO_GL"] = backend
    chosen_at_import: Any = sys.modules.get("mujoco.gl_context")
    if chosen_at_import is not None:
        chosen_at_import.GLContext = import_module(f"mujoco.{backend}").GLContext


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _draws(backend: str) -> bool:
    """Whether a fresh process can draw a frame with `backend`."""
    env = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    if backend:
        env["MUJOCO_GL"] = backend
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], env=env, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "drawn" in done.stdout
