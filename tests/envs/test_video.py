"""Videos that play, and pictures that are upright and unmirrored."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import mujoco
import numpy as np
import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import make_env
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.envs.video import write_video
from rayrlhf.envs.viewer import open_viewer
from rayrlhf.errors import UserError

PROBLEM = rendering_problem()
draws = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))


def test_a_video_is_whole_even_and_starts_fast(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = (np.full((33, 47, 3), 10 * t, np.uint8) for t in range(12))
    write_video(path, frames, fps=12.5)
    assert os.listdir(tmp_path) == ["clip.mp4"]
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (34, 48)
        assert float(stream.average_rate) == 12.5
        greys = [frame.to_ndarray(format="rgb24").mean() for frame in video.decode(stream)]
    np.testing.assert_allclose(greys, 10.0 * np.arange(12), atol=3)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_video_without_frames_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame"):
        write_video(tmp_path / "clip.mp4", [], fps=10)
    assert not os.listdir(tmp_path)


MAGENTA, CYAN = (1.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0)


def paint(model: Any, bodies: list[str], colour: tuple[float, ...]) -> None:
    """Gives the bodies a colour that nothing else has, so that they can be found in a picture."""
    ours = np.isin(model.geom_bodyid, [model.body(name).id for name in bodies])
    model.geom_matid[ours], model.geom_rgba[ours] = -1, colour


def find(frame: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    """Mean row and column of the painted pixels."""
    lit = np.array(colour[:3], bool)
    found = np.argwhere(frame[..., lit].min(axis=-1).astype(int) > frame[..., ~lit].max(axis=-1).astype(int) + 60)
    assert len(found) > 30
    return found.mean(axis=0)


@draws
def test_metaworlds_pictures_are_upright_and_unmirrored() -> None:
    env = make_env(EnvOptions(task="reach"), 1, seed=0)
    env.reset([0])
    paint(env.envs[0].mujoco()[0], ["hand", "rightclaw", "leftclaw", "rightpad", "leftpad"], MAGENTA)

    def after(action: list[float]) -> np.ndarray:
        env.reset([0])
        for _ in range(25):
            env.step(np.array([action], np.float32))
        return find(env.render(0, width=240, height=200), MAGENTA)

    rest = after([0, 0, 0, 0])
    assert after([0, 0, 1, 0])[0] < rest[0] - 8  # up: towards the first row
    # The camera looks along (-0.8, 0.6): its right hand is (0.6, 0.8).
    assert after([1, 0, 0, 0])[1] > rest[1] + 8
    assert after([0, -1, 0, 0])[1] < rest[1] - 8
    frame = env.render(0, width=240, height=200)
    assert (frame.shape, frame.dtype) == ((200, 240, 3), np.uint8)


@draws
@pytest.mark.parametrize(
    ("suite", "task", "feet"),
    [("gymnasium", "Hopper-v5", ["foot"]), ("dmc", "walker-stand", ["left_foot", "right_foot"])],
)
def test_walkers_have_their_feet_below(suite: str, task: str, feet: list[str]) -> None:
    if suite == "dmc":
        pytest.importorskip("shimmy")
    env = make_env(EnvOptions(suite=suite, task=task), 1, seed=0)
    env.reset([0])
    model, data = env.envs[0].mujoco()
    data.qpos[:] = model.qpos0
    mujoco.mj_forward(model, data)
    paint(model, ["torso"], MAGENTA)
    paint(model, feet, CYAN)
    frame = env.render(0, width=320, height=240)
    assert (frame.shape, frame.dtype) == ((240, 320, 3), np.uint8)
    assert find(frame, MAGENTA)[0] < find(frame, CYAN)[0] - 20


def test_the_toys_pictures_are_upright_and_unmirrored() -> None:
    env = make_env(EnvOptions(suite="toy", task="point"), 3, seed=0)
    env.reset([0, 1, 2])
    for i, state in enumerate(env._state):
        frame = env.render(i, width=220, height=110).astype(int)
        for colour, (x, y) in (("blue", state[:2]), ("green", state[4:])):
            strongest = frame.argmax(axis=-1) == {"green": 1, "blue": 2}[colour]
            row, column = np.argwhere(strongest & (np.ptp(frame, axis=-1) > 50)).mean(axis=0)
            assert abs(column / 219 * 2.2 - 1.1 - x) < 0.03
            assert abs(1.1 - row / 109 * 2.2 - y) < 0.03


@draws
def test_mujoco_may_be_imported_first() -> None:
    program = (
        "import mujoco\n"
        "from rayrlhf.config.schema import EnvOptions\n"
        "from rayrlhf.envs import make_env\n"
        "env = make_env(EnvOptions(task='reach'), 1, seed=0)\n"
        "env.reset([0])\n"
        "print(env.render(0, width=32, height=32).std())"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 5
    assert not done.stderr  # contexts are freed before MuJoCo ends its display


def test_switched_off_rendering_is_named() -> None:
    program = "from rayrlhf.envs.gl import rendering_problem; print(rendering_problem())"
    for value, words in (("disable", "switched off"), ("osmesa-missing", "apt-get install")):
        env = {**os.environ, "MUJOCO_GL": value}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert words in done.stdout and len(done.stdout.splitlines()) == 1


def test_a_mujoco_gl_that_mujoco_refuses_is_named_where_mujoco_is_wanted() -> None:
    program = (
        "from rayrlhf.config.schema import EnvOptions\n"
        "from rayrlhf.envs import check_env\n"
        "check_env(EnvOptions(suite='toy', task='point'))\n"
        "try: check_env(EnvOptions(task='reach'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError MuJoCo cannot be imported with MUJOCO_GL=nonsense (")
    assert "unset it" in done.stdout and len(done.stdout.splitlines()) == 1


def test_a_window_needs_a_display_and_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_env(EnvOptions(suite="toy", task="point"), 1, seed=0)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match="no display"):
        open_viewer(toy)
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(UserError, match="no window of its own"):
        open_viewer(toy)


@pytest.mark.ui
def test_a_window_shows_the_environment() -> None:
    env = make_env(EnvOptions(task="reach"), 1, seed=0)
    env.reset([0])
    window = open_viewer(env)
    begin = time.monotonic()
    for _ in range(40):
        env.step(np.zeros((1, 4), np.float32))
        assert window.sync()
    assert time.monotonic() - begin > 0.9 * 40 * 0.0125, "it plays no faster than the robot would move"
    window.close()
