"""Frames of a MuJoCo scene, drawn off screen."""

import atexit
import weakref
from dataclasses import dataclass
from typing import Any, cast

import mujoco
import numpy as np
from numpy.typing import NDArray

from rayrlhf.envs.gl import rendering_problem
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Floats


@dataclass(frozen=True)
class View:
    """A camera that looks at a point and is always upright; lengths in metres, angles in degrees.

    azimuth: 90 looks along +y; elevation: negative looks down
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float

    def camera(self) -> Any:
        """MuJoCo's free camera for this view."""
        camera = mujoco.MjvCamera()
        self.point(camera)
        return camera

    def point(self, camera: Any) -> None:
        """Gives an `MjvCamera` this view; the user may move it on."""
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:], camera.distance = self.lookat, self.distance
        camera.azimuth, camera.elevation = self.azimuth, self.elevation


class Scene:
    """Draws one model and its data; the GL context is made with the first frame and kept.

    Shadows and reflections are off: without a GPU they cost three quarters of the time.
    """

    def __init__(self, model: Any, data: Any, camera: Any) -> None:
        """camera: a `View`, the name or number of one of the model's cameras, or an `MjvCamera`."""
        self._model, self._data = model, data
        self._camera = camera.camera() if isinstance(camera, View) else camera
        self._renderer: Any | None = None

    def frame(self, width: int, height: int) -> NDArray[np.uint8]:
        """What the camera sees `[H, W, 3]`. Raises `UserError` where nothing can be drawn."""
        renderer = self._renderer
        if renderer is None or (renderer.width, renderer.height) != (width, height):
            self.close()
            renderer = self._renderer = self._open(width, height)
        renderer.update_scene(self._data, camera=self._camera)
        return cast(NDArray[np.uint8], renderer.render())

    def close(self) -> None:
        """Frees the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _open(self, width: int, height: int) -> Any:
        screen = self._model.vis.global_
        screen.offwidth, screen.offheight = max(screen.offwidth, width), max(screen.offheight, height)
        try:
            renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # MuJoCo's back ends raise what they like
            raise UserError(rendering_problem() or f"cannot render: {error}") from error
        # MuJoCo ends its GL display when Python exits; what is still open then must go before, or it complains.
        atexit.register(_close, weakref.ref(renderer))
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        return renderer


def pose_of(data: Any) -> NDArray[np.float64]:
    """Where everything that moves is: joints, and bodies that are moved by hand."""
    return np.concatenate([data.qpos, data.mocap_pos.ravel(), data.mocap_quat.ravel()])


def strike_pose(model: Any, data: Any, pose: Floats) -> None:
    """Puts everything where `pose` has it, at rest, so that it can be drawn."""
    ends = np.cumsum([model.nq, 3 * model.nmocap, 4 * model.nmocap])
    joints, places, turns, _ = np.split(np.asarray(pose, np.float64), ends)  # what other tasks have more of is left out
    data.qpos[:], data.qvel[:] = joints, 0.0
    data.mocap_pos[:], data.mocap_quat[:] = places.reshape(-1, 3), turns.reshape(-1, 4)
    mujoco.mj_forward(model, data)


def _close(renderer: "weakref.ref[Any]") -> None:
    """Frees a renderer that is still there."""
    alive = renderer()
    if alive is not None:
        alive.close()
