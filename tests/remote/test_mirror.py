"""A run's folder is copied to its URL, by and by, and caught up with after the storage was away."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from saved_runs import Noting, answer, cut, new_run

from rayrlhf.bench.bucket import Storage
from rayrlhf.errors import UserError
from rayrlhf.remote import Mirror, Objects, lease, mirror
from rayrlhf.remote.lease import Lease
from rayrlhf.tracking import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return new_run(tmp_path / "runs")


@pytest.fixture
def start(
    run: RunDirectory, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[Mirror, Noting]]]:
    """Begins to copy the run."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "TELL_SECONDS", 1e6)
    monkeypatch.setattr(mirror, "PAUSES", (0.1, 0.2))
    made: list[Mirror] = []

    def begin() -> tuple[Mirror, Noting]:
        objects = Noting(storage.url(f"{tmp_path.name}/run"))
        own = Lease(objects)
        own.take(None, pytest.fail)
        made.append(Mirror(run, objects, own, keep=2))
        return made[-1], objects

    yield begin
    for one in made:
        for worker in (one._records, one._uploads):
            worker.close()


def test_nothing_is_copied_before_the_run_begins(start: Callable[[], tuple[Mirror, Noting]]) -> None:
    copying, objects = start()
    assert objects.sizes().keys() == {"running.json"}
    copying.close(pytest.fail)
    assert not objects.sizes(), "its name is free again"


def test_what_is_logged_is_there_before_it_is_used(
    run: RunDirectory, start: Callable[[], tuple[Mirror, Noting]]
) -> None:
    copying, objects = start()
    copying.begin()
    for number in range(3):
        name = answer(run, number)
        copying.logged()
        assert objects.read(name) == f"answers {number}".encode()
    assert sum(name.startswith("preferences/") for name in objects.written) == 3


def test_at_the_end_everything_is_there_but_secrets_and_what_can_be_made_anew(
    run: RunDirectory, start: Callable[[], tuple[Mirror, Noting]]
) -> None:
    for name in ("queue.sqlite", "links.json", "ray.log", "clips/x.mp4", "wandb/id", "moments/identity"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(name)
    copying, objects = start()
    copying.begin()
    run.metrics_file.write_text('{"env_steps": 1}\n')
    place = cut(run, 100, "ab")
    copying.publish()
    run.write_summary({"env_steps": 1})
    copying.close(pytest.fail)
    kept = {name for name in objects.sizes() if not name.startswith("checkpoints/")}
    records = {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "moments/identity"}
    assert kept == records | {"running.json"}
    assert objects.read(f"checkpoints/{place.name}/manifest.json") == (place / "manifest.json").read_bytes()
    assert objects.read("summary.json") == run.summary_file.read_bytes()
    Lease(objects).take(None, pytest.fail)


def test_only_the_newest_checkpoints_stay(run: RunDirectory, start: Callable[[], tuple[Mirror, Noting]]) -> None:
    copying, objects = start()
    copying.begin()
    for env_steps, rows in ((100, "a"), (200, "b"), (300, "c")):
        cut(run, env_steps, rows)
        copying.await_upload()
        copying.publish()
    copying.close(pytest.fail)
    there = {name.split("/")[1] for name in objects.sizes() if "/step-" in name}
    assert there == {"step-000000000200", "step-000000000300"}
    assert objects.sizes("checkpoints/rows").keys() == {"b", "c"}


def test_training_goes_on_while_the_storage_is_away_and_it_is_caught_up_with(
    run: RunDirectory,
    storage: Storage,
    start: Callable[[], tuple[Mirror, Noting]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    copying, objects = start()
    copying.begin()
    cut(run, 100, "a")
    copying.publish()
    copying.await_upload()
    storage.line.cut()
    try:
        names = []
        for number in range(2):
            names.append(answer(run, number))
            copying.logged()
            cut(run, 200 + number, "ab")
            copying.await_upload()
            copying.publish()
    finally:
        storage.line.mend()
    assert len(caplog.records) == 1 and "training goes on" in caplog.text
    copying.close(lambda line: None)
    assert all(objects.read(name) for name in names)
    assert {name.split("/")[1] for name in objects.sizes() if "/step-" in name} >= {"step-000000000201"}
    assert ["training goes on" in record.message for record in caplog.records] == [True, False]
    assert caplog.records[1].message.endswith("run is back")


def test_ctrl_c_ends_the_wait_for_a_storage_that_is_away(
    run: RunDirectory, storage: Storage, start: Callable[[], tuple[Mirror, Noting]]
) -> None:
    copying, objects = start()
    copying.begin()
    copying.logged()
    storage.line.cut()
    try:
        name, said = answer(run, 0), threading.Event()
        copying.logged()

        def press() -> None:
            said.wait()
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt, match=f"not everything is at .*--resume {run.path}"):
            copying.close(lambda line: said.set())
    finally:
        storage.line.mend()
    assert objects.read(name) is None


def test_whoever_lost_the_run_writes_nothing_more_and_ends(
    run: RunDirectory, start: Callable[[], tuple[Mirror, Noting]]
) -> None:
    copying, objects = start()
    copying.begin()
    copying.logged()
    copying.require_own()
    other = Lease(Objects(objects.url))
    other._write(released=False)
    objects.written.clear()
    cut(run, 100, "a")
    copying.publish()
    copying.await_upload()
    with pytest.raises(UserError, match=f"is in use by .* now.*what it did meanwhile is in {run.path}"):
        copying.require_own()
    copying.close(pytest.fail)
    assert not [name for name in objects.written if name.endswith("manifest.json") or name == "running.json"]
    other.require()
