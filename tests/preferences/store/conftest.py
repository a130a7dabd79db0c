"""The preference store on SQLite and on a PostgreSQL of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Postgres

from rayrlhf.preferences.store import Database, PreferenceStore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> PreferenceStore:
    return PreferenceStore(database)
