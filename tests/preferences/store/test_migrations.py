"""From one version of the schema to the next, and to one of the tests' own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, Dialect, Table, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from rayrlhf.preferences.store import Accounts, Annotator, Database, PreferenceStore, Question, Run, database
from rayrlhf.preferences.store.tables import VERSION_1, identities, instructions, metadata, versions

NEXT = database.VERSION + 1


@pytest.fixture
def filled(url: str) -> str:
    """The token of an account in a database of this version, in which there are questions and an answer, too."""
    return fill(Database(url))


def fill(first: Database) -> str:
    store = PreferenceStore(first)
    store.register(Run("run", "drawer-open", "open the drawer"))
    store.enqueue("run", [Question(f"q{i}", 0, i) for i in range(2)])
    [lease] = store.lease("run", "anna")
    store.answer("anna", lease.id, "equal", key="one")
    token = Accounts(first).add("anna", "annotator")
    first.close()
    return token


def rows(there: Database, tables: Sequence[Table] = metadata.sorted_tables) -> dict[str, list[tuple[object, ...]]]:
    """What is in each table, of the columns that it has in this version."""
    with there.reading() as connection:
        found = {table.name: connection.execute(select(table)).all() for table in tables}
    return {name: sorted(map(tuple, some), key=repr) for name, some in found.items()}


def columns(there: Database, table: str) -> set[str]:
    with there.reading() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


def applied(there: Database) -> list[tuple[int, float]]:
    with there.reading() as connection:
        return [(row.version, row.applied_at) for row in connection.execute(select(versions).order_by("version"))]


@pytest.fixture
def to_next(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Connection], None]], None]:
    """Makes a migration the one to the next version."""

    def migrate(migration: Callable[[Connection], None]) -> None:
        monkeypatch.setattr(database, "MIGRATIONS", {**database.MIGRATIONS, NEXT: migration})
        monkeypatch.setattr(database, "VERSION", NEXT)

    return migrate


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE queries ADD COLUMN colour VARCHAR(10) DEFAULT 'blue' NOT NULL"))
    connection.execute(text("UPDATE queries SET colour = 'red' WHERE position = 1"))


def frozen(version: int, dialect: str) -> list[str]:
    """The statements that a migration stands for."""
    return (Path(__file__).parent / f"version_{version}" / f"{dialect}.sql").read_text().splitlines()


@pytest.mark.parametrize(("version", "tables"), [(1, VERSION_1), (2, [identities]), (3, [instructions])])
@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=lambda dialect: dialect.name)
def test_a_version_stays_what_it_is(dialect: Dialect, version: int, tables: Sequence[Table]) -> None:
    """Databases out there have it: whoever changes a table writes a migration, and has the older ones make this."""
    made: list[ExecutableDDLElement] = []
    for table in [table for table in metadata.sorted_tables if table in tables]:
        made += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))]
    statements = [" ".join(str(one.compile(dialect=dialect)).split()) for one in made]
    assert statements == frozen(version, dialect.name)


def test_a_database_of_version_1_gets_an_identity(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    today = str(tmp_path / "today")
    token = fill(Database(today))
    source, wanted = Database(today), [table for table in VERSION_1 if table is not versions]
    with source.reading() as connection:
        content = {t: [dict(row._mapping) for row in connection.execute(select(t))] for t in wanted}
    source.close()

    def make(connection: Connection) -> None:
        for statement in frozen(1, connection.dialect.name):
            connection.execute(text(statement))

    with monkeypatch.context() as older:
        older.setattr(database, "MIGRATIONS", {1: make})
        older.setattr(database, "VERSION", 1)
        old = Database(url)
        with old.writing() as connection:
            for table, some in content.items():
                if some:
                    connection.execute(table.insert(), some)
        before = rows(old, VERSION_1)
        old.close()
    several = [Database(url) for _ in range(2)]
    [identity] = {there.identity() for there in several}
    assert len(identity) == 32
    after = rows(several[0], VERSION_1)
    assert len(after.pop("rayrlhf_versions")) == 3
    assert after == {name: some for name, some in before.items() if name != "rayrlhf_versions"}
    assert Accounts(several[0]).who(token) == Annotator("anna", "annotator")
    for there in several:
        there.close()


def test_every_database_has_an_identity_of_its_own(tmp_path: Path) -> None:
    assert Database(str(tmp_path / "one")).identity() != Database(str(tmp_path / "another")).identity()


def test_a_database_of_the_version_before_is_brought_up_with_all_that_is_in_it(url: str, filled: str, to_next) -> None:
    old = Database(url)
    before, earlier = rows(old), applied(old)
    old.close()
    to_next(add_column)
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
    *first, (number, when) = applied(new)
    assert (first, number) == (earlier, NEXT) and when >= earlier[-1][1]
    new.close()


def test_a_second_open_does_nothing(url: str, filled: str, to_next) -> None:
    calls: list[Connection] = []

    def counted(connection: Connection) -> None:
        calls.append(connection)
        add_column(connection)

    to_next(counted)
    found = []
    for _ in range(2):
        there = Database(url)
        found.append((applied(there), rows(there)))
        there.close()
    assert found[0] == found[1] and len(calls) == 1


def test_an_empty_database_goes_through_all_versions(url: str, to_next) -> None:
    to_next(add_column)
    there = Database(url)
    assert [number for number, _ in applied(there)] == list(range(1, NEXT + 1)) and "colour" in columns(
        there, "queries"
    )
    there.close()


def test_an_error_in_the_middle_leaves_the_version_before_as_it_was(
    url: str, filled: str, to_next, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Database(url)
    before = rows(old), applied(old), columns(old, "queries")

    def broken(connection: Connection) -> None:
        add_column(connection)
        connection.execute(text("UPDATE runs SET task = 'half done'"))
        connection.execute(text("CREATE TABLE halfway (id INTEGER)"))
        raise RuntimeError("in the middle")

    with monkeypatch.context() as newer:
        newer.setattr(database, "MIGRATIONS", {**database.MIGRATIONS, NEXT: broken})
        newer.setattr(database, "VERSION", NEXT)
        with pytest.raises(RuntimeError, match="in the middle"):
            Database(url)
    assert (rows(old), applied(old), columns(old, "queries")) == before
    with old.reading() as connection:
        assert not inspect(connection).has_table("halfway")
    assert Accounts(old).who(filled) == Annotator("anna", "annotator")
    to_next(add_column)  # once that is mended
    mended = Database(url)
    assert [number for number, _ in applied(mended)] == list(range(1, NEXT + 1))
    mended.close()
    old.close()
