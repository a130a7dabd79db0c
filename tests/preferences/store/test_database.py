"""The database itself: its version, several who start at once, what is said where it is not there."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres import Postgres
from sqlalchemy import insert

from rayrlhf.errors import UserError
from rayrlhf.preferences.store import Database, PreferenceStore, Question, Run, UnavailableError
from rayrlhf.preferences.store.tables import versions

OPEN = """
import sys
from rayrlhf.preferences.store import Database, PreferenceStore, Run
PreferenceStore(Database(sys.argv[1])).register(Run("run", "t", "s"))
"""


def test_several_processes_may_start_at_once(url: str) -> None:
    programs = [subprocess.Popen([sys.executable, "-c", OPEN, url]) for _ in range(4)]
    assert [program.wait(60) for program in programs] == [0, 0, 0, 0]


def test_a_newer_version_is_refused_and_left_alone(url: str, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(insert(versions).values(version=99, applied_at=0.0))
    with pytest.raises(UserError, match="has version 99 of the preference store, this rayrlhf knows up to 3: upgrade"):
        Database(url)


def test_a_failed_transaction_leaves_nothing(database: Database, store: PreferenceStore) -> None:
    store.register(Run("run", "t", "s"))
    with pytest.raises(RuntimeError), database.writing() as connection:
        connection.execute(insert(versions).values(version=98, applied_at=0.0))
        raise RuntimeError
    Database(database.url.render_as_string(hide_password=False)).close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "wants sqlite:///FILE or postgresql://..., not mysql"),
        ("sqlite://", "wants an SQLite file"),
        ("://nowhere", "malformed"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"store at postgresql.*127.0.0.1:1/db cannot be used"),
        ("sqlite:////proc/none/queue.sqlite", "cannot make /proc/none"),
    ],
)
def test_what_cannot_be_opened_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Database(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    file.write_text("something else, and long enough to be looked at as the header of a database " * 20)
    with pytest.raises(UserError, match=r"queue\.sqlite cannot be used: DatabaseError: file is not a database"):
        Database(str(file))
    assert file.read_text().startswith("something else")


def test_a_database_that_comes_back_is_used_again(postgres: Postgres) -> None:
    store = PreferenceStore(Database(postgres.new_database()))
    store.register(Run("run", "t", "s"))
    postgres.stop()
    with pytest.raises(UnavailableError):
        store.register(Run("run", "t", "s"))
    postgres.start()
    store.enqueue("run", [Question("a", 0, 0)])
    assert len(store.lease("run", "anna")) == 1


def test_a_clock_that_was_set_back(url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Leases go on from the newest one: none lasts for hours, and one line says why."""
    store = PreferenceStore(Database(url))
    store.register(Run("run", "t", "s"))
    store.enqueue("run", [Question("a", 0, 0)])
    [before] = store.lease("run", "anna")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    with caplog.at_level(logging.WARNING):
        later = Database(url)
    assert len(caplog.records) == 1
    assert "it was set back" in caplog.text
    [again] = PreferenceStore(later).lease("run", "anna")
    assert again.id == before.id
    assert before.expires_at <= again.expires_at < before.expires_at + 60
