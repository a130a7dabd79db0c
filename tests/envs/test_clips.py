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


@needs_gl
def test_moments_of_several_tasks_are_of_one_width_and_are_drawn_in_their_own_scene() -> None:
    """Blocks have more joints than drawers."""
    options = EnvOptions(task="reach, drawer-open", horizon=3)
    env = make_env(options, 2, seed=0)
    alone = [make_env(options.only(number), 2, seed=0) for number in range(2)]
    env.reset([0, 0])
    for one in alone:
        one.reset([0, 0])
    stage = Stage(options, seed=0, size=32)
    for t in range(7):
        moments = env.moments()
        assert moments.shape == (2, 25)
        for index in range(2):
            task = (index + t // 3) % 2
            own = alone[task].moments()[index]
            np.testing.assert_array_equal(moments[index, : len(own)], own)
            assert not moments[index, len(own) :].any()
        if t in (1, 4):
            [frame] = stage.frames(1, t // 3, moments[1:])
            [expected] = Stage(options.only((1 + t // 3) % 2), seed=0, size=32).frames(1, t // 3, own[None])
            np.testing.assert_array_equal(frame, expected)
        for one in (env, *alone):
            one.step(np.full((2, 4), 0.3, np.float32))


def test_no_task_has_more_than_is_recorded_of_several() -> None:
    env_dict = pytest.importorskip("metaworld.env_dict")
    models = [cls().model for cls in env_dict.ENV_CLS_MAP.values()]
    assert max(model.nq + 7 * model.nmocap for model in models) == 25
