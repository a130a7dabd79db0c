"""`serve run serve/local.yaml` as a process of its own: the queue with its first accounts and its page."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from app_server import free_port
from listening import addresses_of

SERVE = Path(__file__).parents[2] / "serve"
SECONDS = 120.0
Run = Callable[[str], None]


@pytest.fixture
def serve_run(tmp_path: Path) -> Iterator[Run]:
    """Runs a config file in a folder of its own, with the variable that the file names."""
    started = []

    def run(text: str) -> None:
        (tmp_path / "serve.yaml").write_text(text)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        environment.pop("RAY_ADDRESS", None)
        command = [str(Path(sys.executable).with_name("serve")), "run", "serve.yaml"]
        log = (tmp_path / "log").open("w")
        started.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        )

    yield run
    for process in started:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            for one in family:
                one.kill()


def answered(url: str, tmp_path: Path) -> httpx.Response:
    """What `url` says once Serve has heard of the application."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            answer = httpx.get(url)
            if answer.status_code != 404:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail((tmp_path / "log").read_text()[-3000:])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_admins_token_opens_the_queue_of_the_file_and_the_page_is_there(serve_run: Run, tmp_path: Path) -> None:
    port = free_port()
    serve_run((SERVE / "local.yaml").read_text().replace("8421", str(port)))
    url = f"http://127.0.0.1:{port}"
    page = answered(url, tmp_path)
    assert page.status_code == 200 and "<html" in page.text
    assert addresses_of(os.getpid()) == {"127.0.0.1"}
    tokens = json.loads((tmp_path / "labels" / "links.json").read_text())
    with httpx.Client(base_url=url) as client:
        assert client.get("/page/main.js").status_code == 200
        assert client.get("/v1/me").status_code == 401
        client.headers["Authorization"] = f"Bearer {tokens['admin']}"
        me = client.get("/v1/me").json()
        assert (me["name"], me["role"]) == ("admin", "admin")
        made = client.post("/v1/accounts", json={"name": "anna", "role": "annotator"})
        assert made.status_code == 201
        client.headers["Authorization"] = f"Bearer {made.json()['token']}"
        assert client.get("/v1/me").json() == {"name": "anna", "role": "annotator", "queue": me["queue"]}
        assert client.get("/v1/runs").json() == []
    assert (tmp_path / "labels" / "queue.sqlite").is_file()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_policy_without_tokens_is_not_for_the_network(serve_run: Run, tmp_path: Path, toy_run: object) -> None:
    text = (SERVE / "policy.yaml").read_text().replace("8422", str(free_port()))
    text = text.replace("host: 127.0.0.1", "host: 0.0.0.0").replace(
        "runs/handle-press-side-pebble-seed0", str(toy_run.path)
    )
    serve_run(text)
    end = time.monotonic() + SECONDS
    while "give token_digests" not in (said := (tmp_path / "log").read_text()):
        assert time.monotonic() < end, said[-3000:]
        time.sleep(0.5)
