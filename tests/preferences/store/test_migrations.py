"""From one version of the schema to the next, with a second version of the tests' own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Dialect, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from rayrlhf.preferences.store import Accounts, Annotator, Database, PreferenceStore, Question, Run, database
from rayrlhf.preferences.store.tables import metadata, versions


@pytest.fixture
def filled(url: str) -> str:
    """The token of an account in a database of version 1, in which there are a question and its answer, too."""
    first = Database(url)
    store = PreferenceStore(first)
    store.register(Run("run", "drawer-open", "open the drawer"))
    store.enqueue("run", [Question(f"q{i}", 0, i) for i in range(2)])
    [lease] = store.lease("run", "anna")
    store.answer("anna", lease.id, "equal", key="one")
    token = Accounts(first).add("anna", "annotator")
    first.close()
    return token


def rows(there: Database) -> dict[str, list[tuple[object, ...]]]:
    """What is in each table, of the columns that version 1 has."""
    with there.reading() as connection:
        found = {table.name: connection.execute(select(table)).all() for table in metadata.sorted_tables}
    return {name: sorted(map(tuple, some), key=repr) for name, some in found.items()}


def columns(there: Database, table: str) -> set[str]:
    with there.reading() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


def applied(there: Database) -> list[tuple[int, float]]:
    with there.reading() as connection:
        return [(row.version, row.applied_at) for row in connection.execute(select(versions).order_by("version"))]


@pytest.fixture
def to_version_2(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Connection], None]], None]:
    """Makes a migration the one to version 2."""

    def migrate(migration: Callable[[Connection], None]) -> None:
        monkeypatch.setattr(database, "MIGRATIONS", {**database.MIGRATIONS, 2: migration})
        monkeypatch.setattr(database, "VERSION", 2)

    return migrate


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE queries ADD COLUMN colour VARCHAR(10) DEFAULT 'blue' NOT NULL"))
    connection.execute(text("UPDATE queries SET colour = 'red' WHERE position = 1"))


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=lambda dialect: dialect.name)
def test_version_1_stays_what_it_is(dialect: Dialect) -> None:
    """Databases out there have it: whoever changes a table writes a migration, and has the first one make this."""
    made: list[ExecutableDDLElement] = []
    for table in metadata.sorted_tables:
        made += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))]
    statements = [" ".join(str(one.compile(dialect=dialect)).split()) for one in made]
    file = Path(__file__).parent / "version_1" / f"{dialect.name}.sql"
    assert statements == file.read_text().splitlines()


def test_a_database_of_version_1_is_brought_up_with_all_that_is_in_it(url: str, filled: str, to_version_2) -> None:
    old = Database(url)
    before, [one] = rows(old), applied(old)
    old.close()
    to_version_2(add_column)
    new = Database(url)
    assert "colour" in columns(new, "queries")
    with new.reading() as connection:
        assert connection.execute(text("SELECT id, colour FROM queries ORDER BY id")).all() == [
            ("q0", "blue"),
            ("q1", "red"),
        ]
    assert {**rows(new), "rayrlhf_versions": before["rayrlhf_versions"]} == before
    assert Accounts(new).who(filled) == Annotator("anna", "annotator")
    assert [lease.query_id for lease in PreferenceStore(new).lease("run", "anna")] == ["q1"]
    first, (number, when) = applied(new)
    assert (first, number) == (one, 2) and when >= one[1]
    new.close()


def test_a_second_open_does_nothing(url: str, filled: str, to_version_2) -> None:
    calls: list[Connection] = []

    def counted(connection: Connection) -> None:
        calls.append(connection)
        add_column(connection)

    to_version_2(counted)
    found = []
    for _ in range(2):
        there = Database(url)
        found.append((applied(there), rows(there)))
        there.close()
    assert found[0] == found[1] and len(calls) == 1


def test_an_empty_database_goes_through_all_versions(url: str, to_version_2) -> None:
    to_version_2(add_column)
    there = Database(url)
    assert [number for number, _ in applied(there)] == [1, 2] and "colour" in columns(there, "queries")
    there.close()


def test_an_error_in_the_middle_leaves_version_1_as_it_was(
    url: str, filled: str, to_version_2, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Database(url)
    before = rows(old), applied(old), columns(old, "queries")

    def broken(connection: Connection) -> None:
        add_column(connection)
        connection.execute(text("UPDATE runs SET task = 'half done'"))
        connection.execute(text("CREATE TABLE halfway (id INTEGER)"))
        raise RuntimeError("in the middle")

    with monkeypatch.context() as newer:
        newer.setattr(database, "MIGRATIONS", {**database.MIGRATIONS, 2: broken})
        newer.setattr(database, "VERSION", 2)
        with pytest.raises(RuntimeError, match="in the middle"):
            Database(url)
    assert (rows(old), applied(old), columns(old, "queries")) == before
    with old.reading() as connection:
        assert not inspect(connection).has_table("halfway")
    assert Accounts(old).who(filled) == Annotator("anna", "annotator")
    to_version_2(add_column)  # once that is mended
    mended = Database(url)
    assert [number for number, _ in applied(mended)] == [1, 2]
    mended.close()
    old.close()
