"""What a scene is drawn with: lights without shadows, and either of the GL libraries."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from rayrlhf.envs.gl import _draws, rendering_problem
from rayrlhf.envs.scene import Scene, View

PROBLEM = rendering_problem()
OFF = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
WORLD = """
<mujoco>
  <visual><quality shadowsize="1024"/></visual>
  <asset>
    <texture name="grid" type="2d" builtin="checker" rgb1="0.4 0.4 0.4" rgb2="0.6 0.6 0.6" width="64" height="64"/>
    <material name="mirror" texture="grid" texrepeat="4 4" reflectance="0.8"/>
  </asset>
  <worldbody>
    <light directional="true" pos="0 0 4" dir="0.5 0 -1" castshadow="true"/>
    <geom type="plane" size="2 2 0.1" material="mirror"/>
    <geom type="box" size="0.3 0.3 0.3" pos="0 0 0.7" rgba="0.9 0.2 0.2 1"/>
    <geom type="sphere" size="0.2" pos="0.7 0.3 0.2" rgba="0.2 0.3 0.9 1"/>
  </worldbody>
</mujoco>
"""
VIEW = View(lookat=(0.0, 0.0, 0.4), distance=3.0, azimuth=60.0, elevation=-35.0)
DRAW = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_scene import scene
np.save(sys.argv[2], scene().frame(160, 120))
"""


def scene() -> Scene:
    """A world in which both would show."""
    model = mujoco.MjModel.from_xml_string(WORLD)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return Scene(model, data, VIEW)


@pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
def test_shadows_and_reflections_are_off_in_what_is_drawn() -> None:
    drawn = scene()
    for size in ((160, 120), (80, 60), (160, 120)):  # another size is another context
        frame = drawn.frame(*size)
        flags = drawn._renderer.scene.flags
        assert [int(flags[flag]) for flag in OFF] == [0, 0]
    for flag in OFF:
        flags[flag] = 1
        other = drawn.frame(160, 120)
        flags[flag] = 0
        assert np.abs(other.astype(int) - frame).max() > 20, "this world would show it"
    np.testing.assert_array_equal(drawn.frame(160, 120), frame)
    drawn.close()


@pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
def test_metaworlds_scene_has_them_off_too() -> None:
    from rayrlhf.config.schema import EnvOptions
    from rayrlhf.envs import make_env

    env = make_env(EnvOptions(task="reach"), 1, seed=0)
    env.reset([0])
    env.render(0, width=64, height=48)
    flags = env.envs[0]._scene._renderer.scene.flags
    assert [int(flags[flag]) for flag in OFF] == [0, 0]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same scene by each library that is there, each in a process of its own."""
    folder = tmp_path_factory.mktemp("frames")
    found = {}
    for backend in filter(_draws, ("egl", "osmesa")):
        env = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
        command = [sys.executable, "-c", DRAW, str(Path(__file__).parent), str(folder / f"{backend}.npy")]
        done = subprocess.run(command, env={**env, "MUJOCO_GL": backend}, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), backend
        found[backend] = np.load(folder / f"{backend}.npy")
    return found


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_either_library_draws(frames: dict[str, Any], backend: str) -> None:
    if backend not in frames:
        pytest.skip(f"{backend} is not there")
    frame = frames[backend].astype(int)
    assert frame.shape == (120, 160, 3)
    red, blue = frame[..., 0] - frame[..., 1:].max(-1), frame[..., 2] - frame[..., :2].max(-1)
    assert (red > 50).sum() > 100 and (blue > 50).sum() > 20, "the box and the ball are there"


def test_both_libraries_draw_nearly_the_same(frames: dict[str, Any]) -> None:
    if len(frames) < 2:
        pytest.skip(f"only {', '.join(frames) or 'none'} is there")
    first, second = (frame.astype(int) for frame in frames.values())
    apart = np.abs(first - second)
    assert apart.mean() < 2 and (apart.max(-1) > 30).mean() < 0.02, "edges may differ"
