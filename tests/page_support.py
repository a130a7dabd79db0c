"""Questions with real clips for the labelling page, and what can be seen of it in a browser."""

import io
import time
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

import av
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, Request
from queue_server import Server

from rayrlhf.config import EnvOptions, QueueOptions
from rayrlhf.envs import make_env
from rayrlhf.envs.clips import Stage
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Question, Run
from rayrlhf.preferences.store.records import clip_name

TOY = EnvOptions(suite="toy", task="point")
STEPS, SIDE = 12, 64
SENTENCE = "The point reaches the green goal."
MIRRORED = {"left": "right", "right": "left", "equal": "equal", "skip": "skip"}
_HALF_WAY = """() => {
  const bar = document.querySelector("#time");
  bar.value = 520;  // within the middle frame, not at its border
  bar.dispatchEvent(new Event("input"));
}"""
_PIXELS = """(side) => [...document.querySelectorAll(".pair.active video")].map((video) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 0, side, side);
  return [...pen.getImageData(0, 0, side, side).data];
})"""
_STILL = """[...document.querySelectorAll(".pair.active video")].every(
  (video) => video.paused && !video.seeking && Math.abs(video.currentTime - video.duration / 2) < 0.1)"""


@cache
def clips() -> dict[str, bytes]:
    """Ten clips of the toy by name, all different from each other and from their mirror images."""
    env, stage = make_env(TOY, 1, seed=1), Stage(TOY, seed=1, size=SIDE)
    made = []
    for episode in range(10):
        env.reset([episode])
        moments = []
        for _ in range(STEPS):
            moments.append(env.moments()[0])
            env.step(np.full((1, env.spec.action_dim), np.sin(episode), np.float32))
        made.append(stage.clip(0, episode, np.stack(moments)))
    return {clip_name(content): content for content in made}


@cache
def _middles() -> dict[str, NDArray[np.float64]]:
    """The frame half-way through each clip `[H, W, 3]`."""
    found = {}
    for name, content in clips().items():
        with av.open(io.BytesIO(content)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        found[name] = frames[STEPS // 2].astype(float)
    return found


def ask(
    client: QueueClient, count: int, *, run: str = "run", session: int = 0, **options: object
) -> dict[str, tuple[str, str]]:
    """Puts questions, no two of the same pair; their clips, left and right, by id."""
    client.register(Run(run, "point", SENTENCE, "Nearer is better.", QueueOptions(**options)))
    for content in clips().values():
        client.store_clip(content)
    pairs = list(combinations(clips(), 2))[:count]
    asked = {f"{run}/{session}/{i:03d}": pair for i, pair in enumerate(pairs)}
    client.enqueue(run, [Question(name, session, i, ready=False) for i, name in enumerate(asked)])
    for name, pair in asked.items():
        client.clips_made(run, name, *pair)
    return asked


def votes(client: QueueClient, run: str = "run") -> dict[str, list[str]]:
    """What was said of each question, in the store's orientation."""
    return {item.query_id: [vote.choice for vote in item.votes] for item in client.answered(run)}


@dataclass
class Visit:
    """One browser's page at the queue, and all that it asked for."""

    page: Page
    server: Server
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Notes requests, errors and what the policy forbade."""

        def ask_for(request: Request) -> None:
            self.requests.append(request.url)

        self.page.on("request", ask_for)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text) if "Content Security" in said.text else None)

    def check(self) -> None:
        """Nothing came from elsewhere, and nothing broke."""
        own = (self.server.url, "blob:", "data:")
        assert [url for url in self.requests if not url.startswith(own)] == []
        assert self.faults == [], self.faults

    def open(self, token: str, more: str = "") -> None:
        """Follows an account's link."""
        self.page.goto(f"{self.server.url}/#token={token}{more}")

    def ready(self) -> None:
        """Waits until a question can be answered."""
        self.page.wait_for_selector("#choose-left[aria-disabled=false]")

    def press(self, key: str) -> None:
        """Answers the question that is shown by a key."""
        self.ready()
        self.page.keyboard.press(key)

    def pair(self) -> tuple[str, str]:
        """The clips that are seen on the left and on the right, by their pictures."""
        self.ready()
        self.page.evaluate(_HALF_WAY)
        self.until(_STILL)
        left, right = (_named(pixels) for pixels in self.page.evaluate(_PIXELS, SIDE))
        return left, right

    def saved(self) -> None:
        """Waits until the server has every answer."""
        self.until("document.querySelector('#status').textContent === 'All saved'")

    def until(self, expression: str) -> None:
        """Waits until this is true on the page. Playwright's own waiting wants `eval`, which the page forbids."""
        end = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            self.page.wait_for_timeout(20)

    def said(self, text: str) -> None:
        """Waits until the page says this."""
        self.page.get_by_text(text).first.wait_for()


def _named(pixels: list[int]) -> str:
    """The clip whose frame this is, which is not mirrored."""
    seen = np.array(pixels, float).reshape(SIDE, SIDE, 4)[:, :, :3]
    apart = {name: float(np.abs(seen - frame).mean()) for name, frame in _middles().items()}
    turned = min(float(np.abs(seen - frame[:, ::-1]).mean()) for frame in _middles().values())
    upside_down = min(float(np.abs(seen - frame[::-1]).mean()) for frame in _middles().values())
    nearest = min(apart, key=lambda name: apart[name])
    assert apart[nearest] < 3 < min(turned, upside_down), (apart, turned, upside_down)
    return nearest
