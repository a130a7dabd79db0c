"""A vision-language model as the teacher: it sees frames of both clips, and says which one is better.

    export VLM_URL=http://localhost:8000/v1 VLM_MODEL=Qwen/Qwen2.5-VL-7B-Instruct
    python examples/vlm_teacher.py [--seed=1 ...]        any option of a run may follow

Whatever speaks OpenAI's chat completions and takes pictures will do: vLLM, llama.cpp, Ollama, or a provider, whose key
is then in VLM_KEY. VLM_SECONDS is how long a reply may be waited for (60). On the command line the same teacher is

    PYTHONPATH=examples rayrlhf train toy --teacher vlm_teacher:VisionLanguageTeacher --teacher.clips --teacher.wait
"""

import base64
import io
import json
import os
import sys
from typing import Any, get_args

import httpx
from PIL import Image

from rayrlhf.config import TeacherOptions
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.segments import Queries
from rayrlhf.seeding import generator, integer_seed
from rayrlhf.teachers import AsynchronousTeacher, Clips, Frames
from rayrlhf.training import train

AT_ONCE = 4
"""Questions that are asked at the same time."""
FRAMES = 4
"""Of each clip."""
REPLY_BYTES = 1 << 20
"""The longest reply that is read."""
TOKENS = 16
"""The longest reply; one word is wanted."""
PROMPT = """You judge how well a robot does its task. The task: {sentence}
You see two clips, left and right, each as {count} frames in the order of time. In which one does the robot do better?
Reply with one word alone:
left or right, whichever clip is better;
equal, if both are as good;
skip, if you cannot tell what happens."""
OTHER_SIDE: dict[Choice, Choice] = {"left": "right", "right": "left", "equal": "equal", "skip": "skip"}


class VisionLanguageTeacher(AsynchronousTeacher):
    """Asks a model over HTTP. What cannot be reached, fails, or says something else is asked again, ever later."""

    def __init__(self, options: TeacherOptions, seed: int) -> None:
        self._model = _required("VLM_MODEL")
        super().__init__(self._model, at_once=AT_ONCE)
        self._seed = seed
        key = os.environ.get("VLM_KEY")
        self._client = httpx.Client(
            base_url=_required("VLM_URL"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=float(os.environ.get("VLM_SECONDS", "60")),
        )

    def see(self, clips: Clips) -> None:
        """By having this method it says that it looks at clips."""
        self._clips = clips

    def answer(self, query: Queries) -> Choice:
        """Shows the clips in an order drawn from the query's id: models prefer one side to the other."""
        key = query.ids[0]
        name = key.partition("/")[2]  # without the run's, so that a repeated run asks the same
        left, right = self._clips.frames(key, FRAMES)
        turned = bool(generator(self._seed, "vlm", name).random() < 0.5)
        shown = (right, left) if turned else (left, right)
        told = query.instructions[0] if query.instructions else self._clips.sentence
        said = choice_in(self._reply(content(told, *shown), integer_seed(self._seed, "vlm", name)))
        return OTHER_SIDE[said] if turned else said

    def close(self) -> None:
        super().close()
        self._client.close()

    def _reply(self, parts: list[dict[str, Any]], seed: int) -> str:
        """What the model says; as predictable as the service allows."""
        request = {
            "model": self._model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": TOKENS,
            "temperature": 0.0,
            "seed": seed,
        }
        with self._client.stream("POST", "chat/completions", json=request) as response:
            if not response.is_success:  # httpx' own words hold the URL, and a password that is in it
                raise ValueError(f"the service answers with the status {response.status_code}")
            said = whole(response)
        try:
            return str(json.loads(said)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"this is no chat completion: {said[:80]!r}") from error


def whole(response: httpx.Response) -> bytes:
    """The reply; ValueError for a longer one than any of a word is."""
    said = b""
    for part in response.iter_bytes():
        said += part
        if len(said) > REPLY_BYTES:
            raise ValueError(f"a reply of more than {REPLY_BYTES:,} bytes")
    return said


def content(sentence: str, left: Frames, right: Frames) -> list[dict[str, Any]]:
    """The parts of the message: what is asked, and the frames `[K, H, W, 3]` of both clips."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": PROMPT.format(sentence=sentence, count=len(left))}]
    for side, frames in (("left", left), ("right", right)):
        parts.append({"type": "text", "text": f"The {side} clip:"})
        parts += [{"type": "image_url", "image_url": {"url": data_uri(frame)}} for frame in frames]
    return parts


def data_uri(frame: Frames) -> str:
    """A frame `[H, W, 3]` as a PNG in a URI."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def choice_in(reply: str) -> Choice:
    """The choice that a reply is, and nothing else. ValueError for any other text: nobody guesses what it means."""
    word = reply.strip().strip(".\"'`*").lower()
    for choice in get_args(Choice):
        if word == choice:
            return choice  # type: ignore[no-any-return]
    raise ValueError(f"the model said {reply[:80]!r}, wanted one of {', '.join(get_args(Choice))}")


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name} is not set: this teacher finds its model by VLM_URL and VLM_MODEL in the environment")
    return value


def main(*more: str) -> None:
    """Trains on the toy with this teacher; training waits for its answers, since each costs."""
    overrides = [
        "--teacher.name=vlm_teacher:VisionLanguageTeacher",
        "--teacher.clips=true",
        "--teacher.wait=true",
        "--total_steps=5000",
        "--queries.budget=100",
        "--queries.interval=300",
        "--rollout.actors=1",
        *more,
    ]
    config = load_config("toy", overrides)
    summary = train(config, progress=False)
    print(f"success {summary['success_rate']:.0%} of {summary['eval_episodes']} episodes")
    print(f"labels  {summary['labels']} from {summary['answers']} answers of {os.environ['VLM_MODEL']}")
    print(f"run     {config.storage_path}/{summary['name']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
