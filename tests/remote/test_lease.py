"""One process at a time trains in a run at a URL."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayrlhf.bench.bucket import Storage
from rayrlhf.errors import UserError
from rayrlhf.remote import Objects, lease
from rayrlhf.remote.lease import FILE, Lease, TakenOver


@pytest.fixture
def objects(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "STALE_SECONDS", 3.0)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.2)
    return Objects(storage.url(f"{tmp_path.name}/run"))


def test_a_run_in_use_is_refused(objects: Objects) -> None:
    first = Lease(objects)
    assert first.take(None, pytest.fail) is None
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.1):
            first.renew()

    living = threading.Thread(target=live)
    living.start()
    said: list[str] = []
    with pytest.raises(UserError, match=r"is in use by process \d+ on .*: stop it first"):
        Lease(objects).take(None, said.append)
    over.set()
    living.join()
    assert len(said) == 1 and "waiting" in said[0]
    first.require()


def test_a_silent_one_loses_the_run_and_finds_out(objects: Objects) -> None:
    first, second = Lease(objects), Lease(objects)
    first.take(None, pytest.fail)
    said: list[str] = []
    assert second.take(None, said.append) == first.owner
    assert len(said) == 1
    time.sleep(lease.RENEW_SECONDS)
    for use in (first.renew, first.require, first.release):
        with pytest.raises(TakenOver, match="in use by process"):
            use()
    second.renew()


def test_one_silent_for_long_is_taken_over_at_once(objects: Objects) -> None:
    Lease(objects).take(None, pytest.fail)
    found = json.loads(objects.read(FILE) or b"")
    objects.write(FILE, json.dumps(found | {"renewed": found["renewed"] - 5}).encode())
    Lease(objects).take(None, pytest.fail)


def test_what_is_given_free_or_ones_own_is_taken_at_once(objects: Objects) -> None:
    first, second, third = Lease(objects), Lease(objects), Lease(objects)
    first.take(None, pytest.fail)
    assert second.take(first.owner, pytest.fail) == first.owner
    second.release()
    assert third.take(None, pytest.fail) == second.owner


def test_of_two_at_the_same_moment_one_has_it(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Lease(objects)
    clock = SimpleNamespace(sleep=lambda seconds: late._write(released=False), time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(lease, "time", clock)
    with pytest.raises(TakenOver):
        Lease(objects).take(None, pytest.fail)
    late.require()


def test_damage_is_no_lease(objects: Objects) -> None:
    objects.write(FILE, b"[]")
    assert Lease(objects).take(None, pytest.fail) is None
