"""Which GL library MuJoCo draws with, and what to install when there is none.

MuJoCo reads `MUJOCO_GL` once, when it is imported, and its own default needs a display. So the choice is made before.
"""

import ctypes
import os
import subprocess
import sys

_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
_OFF = ("disable", "disabled", "off", "false", "0")
_PROBE = (
    "import mujoco; "
    "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>'); "
    "data = mujoco.MjData(model); renderer = mujoco.Renderer(model, 16, 16); renderer.update_scene(data); "
    "renderer.render(); print('drawn')"
)
REMEDY = "as root run `apt-get install -y libegl1` (Debian, Ubuntu) or install Mesa's EGL or OSMesa"


def choose_backend() -> None:
    """Sets `MUJOCO_GL` to egl or osmesa where that library exists; a value of the user's own stays.

    To be called before MuJoCo is imported.
    """
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL") or "mujoco" in sys.modules:
        return
    for backend, library in _LIBRARIES.items():
        if _loads(library):
            os.environ["MUJOCO_GL"] = backend
            return


def rendering_problem() -> str | None:
    """One line that says why MuJoCo cannot draw here and what to install; none if it can.

    Each candidate is tried in a process of its own, since a bad driver may crash it. The first that draws is set for
    this process and its children, unless MuJoCo has been imported already and cannot change any more.
    """
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen in _OFF:
        return f"rendering is switched off by MUJOCO_GL={chosen}: unset it"
    fixed = bool(chosen) or "mujoco" in sys.modules or sys.platform != "linux"
    for backend in [chosen] if fixed else [*_LIBRARIES, ""]:
        if _draws(backend):
            if backend:
                os.environ["MUJOCO_GL"] = backend
            return None
    tried = f" with MUJOCO_GL={chosen}" if chosen else ""
    return f"rendering is not possible{tried}: {REMEDY}"


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
