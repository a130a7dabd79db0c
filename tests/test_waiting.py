"""Runs that wait for a cluster to have room."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray.experimental import internal_kv

from rayrlhf import cluster


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.usefixtures("ray_session")
def test_the_autoscaler_is_asked_for_what_all_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps one request for the whole cluster. What a run that was killed left is dropped."""
    asked: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.05)
    left = json.dumps({"at": time.time() - 1000, "bundles": [{"CPU": 77}]}).encode()
    internal_kv._internal_kv_put(b"killed", left, namespace=cluster._WISHES)
    room = [threading.Event(), threading.Event()]
    problems: list[str | None] = []

    def run(number: int) -> None:
        def misfit() -> str | None:
            return None if room[number].is_set() else "no room"

        problems.append(cluster.awaited(misfit, [{"CPU": 100 + number}], 60.0, lambda line: None))

    def wanted() -> set[float]:
        return {bundle["CPU"] for bundle in asked[-1] if bundle.get("CPU", 0) > 70} if asked else set()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: wanted() == {100, 101})
    assert not any(bundle.get("CPU") == 77 for request in asked for bundle in request)
    room[0].set()
    wait_for(lambda: wanted() == {101})
    room[1].set()
    for thread in threads:
        thread.join()
    assert asked[-1] == [] and problems == [None, None]
