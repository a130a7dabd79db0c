"""The policy's endpoint on Ray Serve: gathered requests, and checkpoints exchanged under load without a failed one."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from app_server import free_port
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from rayrlhf.algorithms import checkpoint
from rayrlhf.errors import UserError
from rayrlhf.serving import apps
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.running import serving
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import load_newest

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
FILE = Path(__file__).parents[2] / "serve" / "policy.yaml"
OBS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@pytest.fixture
def growing(toy_run: RunDirectory, tmp_path: Path) -> tuple[RunDirectory, list[Path]]:
    """A run with its first checkpoint, and those that training will have written later."""
    run = RunDirectory(Path(shutil.copytree(toy_run.path, tmp_path / "run")))
    (tmp_path / "later").mkdir()
    *later, _ = checkpoint.by_age(run.checkpoints)
    return run, [place.rename(tmp_path / "later" / place.name) for place in reversed(later)]


class Callers:
    """Threads that ask for one action after another; `versions` in the order they came, `wrong` all that failed."""

    def __init__(self, url: str, count: int) -> None:
        self.versions: list[str] = []
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._end.is_set():
                try:
                    answer = client.post(f"{url}/v1/act", json={"obs": [0.5, 0.5, 0, 0]})
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.versions.append(answer.json()["version"])
                else:
                    self.wrong.append(answer.text)

    def seen(self, version: str) -> None:
        """Waits until an answer is of `version`."""
        deadline = time.monotonic() + 60
        while version not in self.versions[-50:]:
            assert time.monotonic() < deadline, f"{version} does not come: {set(self.versions)}, {self.wrong[:3]}"
            time.sleep(0.05)

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def call() -> Iterator[Callable[[str], Callers]]:
    made: list[Callers] = []

    def start(url: str) -> Callers:
        made.append(Callers(url, 4))
        return made[-1]

    yield start
    for callers in made:
        callers.stop()


def test_checkpoints_exchanged_under_load(
    growing: tuple[RunDirectory, list[Path]], call: Callable[[str], Callers]
) -> None:
    """Training writes checkpoints and deletes old ones, one of them is damaged, and every request is answered."""
    run, later = growing
    settings = PolicySettings(models={"point": str(run.path)}, watch=True, watch_seconds=0.1, gather_seconds=0.005)
    port = free_port()
    with serving(apps.policy(settings), "policy", "127.0.0.1", port):
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/v1/ready").status_code == 200
        callers = call(url)
        callers.seen(load_newest(run.path).version)
        good, damaged, last = later
        for place in (good, last):
            if place is last:
                (damaged / "learner.safetensors").write_bytes(b"half of")
                damaged.rename(run.checkpoints / damaged.name)
                time.sleep(0.5)
            fresh = place.rename(run.checkpoints / place.name)
            callers.seen(load_newest(run.path).version)
            for old in checkpoint.by_age(run.checkpoints):
                if old != fresh:
                    shutil.rmtree(old)
        callers.stop()
        assert callers.wrong == []
        order = list(dict.fromkeys(callers.versions))
        assert [int(version.partition("-")[0]) for version in order] == [250, 500, 1000]
        assert_gathered(url, run)


def assert_gathered(url: str, run: RunDirectory) -> None:
    """Single observations that come at the same time get each their own action."""
    together = httpx.post(f"{url}/v1/act", json={"obs": OBS.tolist()}).json()["action"]
    with ThreadPoolExecutor(16) as many, httpx.Client(timeout=60) as client:
        answers = many.map(lambda obs: client.post(f"{url}/v1/act", json={"obs": obs.tolist()}).json()["action"], OBS)
        np.testing.assert_allclose(list(answers), together, atol=1e-6)


# --- Serve's config file ---


def test_a_target_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="there is no run 'no/where'"):
        apps.policy(PolicySettings(models={"a": "no/where"}))


@pytest.mark.slow
def test_a_config_deployed_once_more_exchanges_in_place(toy_run: RunDirectory, call: Callable[[str], Callers]) -> None:
    """Only `user_config` differs: no replica is restarted, no request fails."""
    newest, *_, oldest = checkpoint.by_age(toy_run.checkpoints)
    port = free_port()
    config = yaml.safe_load(FILE.read_text())
    [application] = config["applications"]
    application["args"] |= {"models": {"point": str(oldest)}, "watch": False}
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        deploy(config)
        url = f"http://127.0.0.1:{port}"
        callers = call(url)
        callers.seen(load_newest(oldest).version)
        application["deployments"][0]["user_config"] = {"models": {"point": str(newest)}}
        deploy(config)
        callers.seen(load_newest(newest).version)
        application["deployments"][0]["user_config"] = {"models": {"point": "no/where"}}
        deploy(config)
        assert httpx.get(f"{url}/v1/models/point").json()["version"] == load_newest(newest).version
        callers.stop()
        assert callers.wrong == []
        assert set(callers.versions) == {load_newest(oldest).version, load_newest(newest).version}
    finally:
        serve.shutdown()


def deploy(config: dict[str, Any]) -> None:
    """What `serve deploy` has the cluster do."""
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config), _blocking=True)


@pytest.mark.slow
def test_several_policies_are_multiplexed(toy_run: RunDirectory) -> None:
    places = checkpoint.by_age(toy_run.checkpoints)
    settings = PolicySettings(
        models={f"at-{i}": str(place) for i, place in enumerate(places)}, min_replicas=2, max_replicas=2
    )
    port = free_port()
    with serving(apps.policy(settings), "policy", "127.0.0.1", port):
        for i, place in enumerate(places):
            named = {"obs": [1, 1, 0, 0], "task": f"at-{i}"}
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/act", json=named, headers={"serve_multiplexed_model_id": f"at-{i}"}
            )
            assert answer.json()["version"] == load_newest(place).version


@pytest.mark.slow
def test_a_busy_endpoint_gets_another_replica_and_its_bounds_hold_behind_serve(
    toy_run: RunDirectory, call: Callable[[str], Callers]
) -> None:
    settings = PolicySettings(
        models={f"at-{i}": str(toy_run.path) for i in range(apps.HELD + 2)},
        max_replicas=2,
        body_bytes=2000,
        requests_per_second=1000.0,
        burst=2000,
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(apps.policy(settings), "policy", "127.0.0.1", port), httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(2):  # more than a replica holds: the first ones are loaded again
            for name in settings.models:
                assert client.post("/v1/act", json={"obs": [1, 1, 0, 0], "task": name}).status_code == 200
        large = client.post("/v1/act", json={"obs": [[0.5] * 4] * 500, "task": "at-0"})
        assert (large.status_code, large.json()["why"]) == (413, "size")
        with ThreadPoolExecutor(3 * apps.ONGOING) as many:
            body = {"obs": [1, 1, 0, 0], "task": "at-0"}
            end = time.monotonic() + 120
            said: set[int] = set()
            while _replicas() < 2:
                assert time.monotonic() < end, "there is still one replica"
                said |= {
                    answer.status_code for answer in many.map(lambda _: client.post("/v1/act", json=body), range(200))
                }
        assert said <= {200, 429}, said


@pytest.mark.slow
def test_whoever_calls_too_often_waits_behind_serve_too(toy_run: RunDirectory) -> None:
    settings = PolicySettings(models={"point": str(toy_run.path)}, requests_per_second=0.2, burst=3)
    port = free_port()
    with serving(apps.policy(settings), "policy", "127.0.0.1", port):
        found = [httpx.get(f"http://127.0.0.1:{port}/v1/models") for _ in range(6)]
    assert [answer.status_code for answer in found[:3]] == [200] * 3
    assert found[-1].status_code == 429 and int(found[-1].headers["retry-after"]) >= 1


def _replicas() -> int:
    deployment = serve.status().applications["policy"].deployments["policy"]
    return deployment.replica_states.get("RUNNING", 0)
