"""What is logged while a run trains is in its `events.jsonl`, however it ends."""

import json
import logging
from pathlib import Path

import pytest

from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.logs import event
from rayrlhf.tracking import RunDirectory, told

_log = logging.getLogger("rayrlhf.something")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}", "name=run", "seed=7"]))


def events(run: RunDirectory) -> list[dict[str, object]]:
    return [json.loads(line) for line in run.events_file.read_text().splitlines()]


def test_events_have_kind_facts_and_whose_they_are(run: RunDirectory) -> None:
    _log.warning("before")
    with told(run, run.config(), resumed=False):
        _log.info("went by", extra=event("phase", phase="learning", env_steps=3))
        _log.warning("%d of %d", 1, 2)
    _log.warning("after")
    found = events(run)
    assert [one["event"] for one in found] == ["start", "config", "phase", "log", "end"]
    assert {(one["run"], one["role"]) for one in found} == {("run", "driver")}
    assert found[1]["changed"]["seed"] == "7"  # type: ignore[index]
    assert (found[2]["phase"], found[2]["env_steps"], found[2]["level"]) == ("learning", 3, "info")
    assert (found[3]["message"], found[3]["level"]) == ("1 of 2", "warning")
    assert all(str(one["time"]).endswith("+00:00") for one in found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyboardInterrupt("go on"), "stopped"), (UserError("no"), "failed"), (ValueError("a\nb"), "failed")],
)
def test_how_it_ended_is_the_last_event(run: RunDirectory, error: BaseException, kind: str) -> None:
    with pytest.raises(type(error)), told(run, run.config(), resumed=True):
        raise error
    assert [one["event"] for one in events(run)] == ["resume", "config", kind]
    assert events(run)[1]["changed"] == {}


def test_half_a_line_that_a_crash_left_spoils_no_other(run: RunDirectory) -> None:
    run.events_file.write_text('{"time": "2026-')
    with told(run, run.config(), resumed=False):
        pass
    first, *rest = run.events_file.read_text().splitlines()
    assert first == '{"time": "2026-'
    assert [json.loads(line)["event"] for line in rest] == ["start", "config", "end"]


def test_what_cannot_be_written_ends_no_run(run: RunDirectory) -> None:
    run.events_file.mkdir()
    with told(run, run.config(), resumed=False):
        pass
