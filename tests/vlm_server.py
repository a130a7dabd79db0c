"""A server that speaks OpenAI's chat completions and judges pictures of the toy by what is on them."""

import base64
import hashlib
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

POINT, GOAL = (40, 90, 200), (60, 170, 90)
"""Colours of the toy's pictures."""
SLOW_SECONDS = 3.0
"""How long it takes where it is slow: longer than who asks waits for."""


def middle(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Row and column of what has that colour in the picture `[H, W, 3]`."""
    return np.argwhere((picture == colour).all(-1)).mean(0)


def away(pictures: list[np.ndarray]) -> float:
    """The mean distance of point and goal, in pixels."""
    return float(np.mean([np.hypot(*(middle(one, POINT) - middle(one, GOAL))) for one in pictures]))


def pictures_in(parts: list[dict[str, Any]]) -> list[np.ndarray]:
    uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))) for uri in uris]


def verdict(parts: list[dict[str, Any]]) -> str:
    """Left or right: where the point is nearer to the goal. The first half of the pictures is left."""
    seen = pictures_in(parts)
    half = len(seen) // 2
    return "left" if away(seen[:half]) < away(seen[half:]) else "right"


class VlmServer:
    """Runs until it is closed.

    faults: what happens to the first request about a question instead of an answer, drawn from its content: a status,
    `garbage` (no JSON), `chatty` (more than a word), `cut` (the connection ends), or `slow`
    away: whether every request is answered by the status 503
    """

    def __init__(self) -> None:
        self.faults: tuple[str | int, ...] = ()
        self.away = False
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.met: list[str | int] = []
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fault_of(self, body: bytes) -> str | int | None:
        """What is to happen to this request."""
        digest = hashlib.blake2b(body, digest_size=4).hexdigest()
        with self._lock:
            if self.away:
                return 503
            if not self.faults or digest in self._seen:
                return None
            self._seen.add(digest)
            fault = self.faults[len(self.met) % len(self.faults)]
            self.met.append(fault)
            return fault

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/chat/completions"
                request = json.loads(body)
                with server._lock:
                    server.requests.append(request)
                    server.headers.append(dict(self.headers))
                fault = server.fault_of(body)
                if fault == "cut":
                    self.close_connection = True
                elif fault == "slow":
                    time.sleep(SLOW_SECONDS)
                    self.close_connection = True
                elif isinstance(fault, int):
                    self._say(fault, b'{"error": {"message": "not now"}}')
                elif fault == "garbage":
                    self._say(200, b"<html>a proxy's page</html>")
                else:
                    word = verdict(request["messages"][0]["content"])
                    text = f"I think that the {word} one is better" if fault == "chatty" else word
                    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                    self._say(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler
