"""Clips that are drawn afterwards show what happened."""

import io

import av
import numpy as np
import pytest

from rayrlhf.config import EnvOptions
from rayrlhf.envs import make_env
from rayrlhf.envs.clips import Stage, clip_fps
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.errors import UserError

needs_gl = pytest.mark.skipif(rendering_problem() is not None, reason="nothing can be drawn here")
TOY = EnvOptions(suite="toy", task="point")


def decoded(clip: bytes) -> tuple[np.ndarray, float, str, str]:
    with av.open(io.BytesIO(clip)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames, float(stream.average_rate), stream.codec_context.name, stream.codec_context.pix_fmt


@needs_gl
@pytest.mark.parametrize(
    "options",
    [
        TOY,
        EnvOptions(suite="metaworld", task="drawer-open"),
        EnvOptions(suite="metaworld", task="reach", random_start=False),
    ],
)
def test_a_clip_shows_a_training_episode(options: EnvOptions) -> None:
    """Of environment 3, which stepped in a process of its own, its episode 2."""
    env = make_env(options, 1, seed=9, indices=[3])
    env.reset([2])
    moments, frames = [], []
    for step in range(12):
        moments.append(env.moments()[0])
        frames.append(env.render(0, width=128, height=128))
        env.step(np.full((1, env.spec.action_dim), np.sin(step), np.float32))
    clip = Stage(options, seed=9, size=128).clip(3, 2, np.stack(moments))
    found, fps, codec, pixels = decoded(clip)
    assert (found.shape, fps, codec, pixels) == ((12, 128, 128, 3), 6.0, "h264", "yuv420p")
    assert clip.index(b"moov") < clip.index(b"mdat"), "a browser can start at once"
    assert len(clip) < 40_000
    apart = np.abs(found.astype(float) - np.stack(frames))[1:].mean()  # the first is drawn before anything settled
    others = np.abs(found.astype(float) - np.stack(frames)[::-1])[1:].mean()
    assert apart < 4 and apart < others


@pytest.mark.parametrize(("steps", "fps"), [(2, 5), (10, 5), (20, 10), (50, 25), (200, 30)])
def test_clips_last_as_long_as_people_want(steps: int, fps: float) -> None:
    assert clip_fps(steps) == fps


def test_what_cannot_be_shown_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UserError, match="people would see nothing"):
        Stage(EnvOptions(suite="gymnasium", task="Pendulum-v1"), seed=0)
