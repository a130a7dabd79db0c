"""A database by URL: transactions that do not get in each other's way, the schema's version, a clock."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.store.tables import VERSION_1, identities, instructions, leases, metadata, versions

_log = logging.getLogger(__name__)

BUSY_SECONDS = 20.0
"""How long a call waits for another's transaction, or for a connection."""
CONNECTIONS = 25
"""At most so many at a time. On SQLite all are kept: ending one gives its memory back only in part."""
CACHE_KIB = 512
"""Pages that one SQLite connection keeps; the system keeps the file's, too."""
_LOCK = 7239450321
"""Names our migrations among PostgreSQL's advisory locks."""


class UnavailableError(UserError):
    """The database does not answer, or its disk is full. What was acknowledged is in it; the call may be made again."""


def _make_first(connection: Connection) -> None:
    metadata.create_all(connection, tables=VERSION_1)


def _draw_identity(connection: Connection) -> None:
    identities.create(connection)
    connection.execute(insert(identities).values(identity=secrets.token_hex(16)))


def _keep_instructions(connection: Connection) -> None:
    instructions.create(connection)


MIGRATIONS: dict[int, Callable[[Connection], None]] = {1: _make_first, 2: _draw_identity, 3: _keep_instructions}
"""By version: what makes a database of the version before into one of it. Each runs in a transaction of its own."""
VERSION = max(MIGRATIONS)


class Clock:
    """Seconds since 1970 that never go back: neither when the system's clock is set back nor, after `resume_at`,
    behind what an earlier process saw.
    """

    def __init__(self) -> None:
        self._wall, self._since = time.time(), _ticks()

    def now(self) -> float:
        """The time."""
        return self._wall + _ticks() - self._since

    def resume_at(self, seen: float) -> None:
        """Goes on from `seen`, where an earlier process was, if the clock is behind it."""
        behind = seen - self.now()
        if behind > 0:
            if behind > 1:
                _log.warning(
                    "the clock is %.0f seconds behind the newest lease in the preference store: it was set back; "
                    "going on from there",
                    behind,
                )
            self._wall += behind


def _ticks() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Database:
    """Connections to one database, its schema brought to this version."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.clock = Clock()
        self._one_writer = threading.Lock() if self.is_sqlite else nullcontext()
        self._engine = self._connectable()
        self._migrate()
        with self.reading() as connection:
            newest = connection.scalar(select(func.max(leases.c.granted_at)))
        self.clock.resume_at(newest or 0.0)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that writes nothing."""
        with _named_errors(self.url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction whose changes are on the disk when the block ends, or not there at all.

        On SQLite it is the only one that writes, from its beginning.
        """
        engine = self._engine.execution_options(writes=True)
        # SQLite's own wait for a lock is a sleep of up to a tenth of a second, and the next one may come first
        with self._one_writer, _named_errors(self.url), engine.begin() as connection:
            yield connection

    def identity(self) -> str:
        """Drawn when the database was made: numbers of leases and answers mean nothing in one of another identity."""
        with self.reading() as connection:
            return str(connection.scalar(select(identities.c.identity)))

    def close(self) -> None:
        """Ends all connections."""
        self._engine.dispose()

    def _connectable(self) -> Engine:
        kept = CONNECTIONS if self.is_sqlite else 5
        options: dict[str, Any] = {"pool_size": kept, "max_overflow": CONNECTIONS - kept}
        options |= {"pool_timeout": BUSY_SECONDS, "pool_pre_ping": True}
        if self.is_sqlite:
            _require_folder(self.url)
            options["connect_args"] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        else:
            options["connect_args"] = {"connect_timeout": int(BUSY_SECONDS)}
            options["isolation_level"] = "READ COMMITTED"  # each statement sees what others have done
        try:
            engine = create_engine(self.url, **options)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UserError(f"{_shown(self.url)} cannot be used: {in_one_line(error)}") from error
        if self.is_sqlite:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _migrate(self) -> None:
        """Brings the schema to this version. Several processes may start at once: one does it."""
        for version in range(1, VERSION + 1):
            with self.writing() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _LOCK})
                there = _version(connection)
                if there > VERSION:
                    raise UserError(
                        f"{_shown(self.url)} has version {there} of the preference store, this rayrlhf knows up to "
                        f"{VERSION}: upgrade rayrlhf"
                    )
                if there < version:
                    MIGRATIONS[version](connection)
                    connection.execute(insert(versions).values(version=version, applied_at=self.clock.now()))


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(versions.name):
        return 0
    return connection.scalar(select(func.max(versions.c.version))) or 0


def _parsed(url: str) -> URL:
    """SQLAlchemy's URL; a plain path is an SQLite file, and PostgreSQL is reached through psycopg."""
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UserError(f"the database's URL is malformed: {in_one_line(error)}") from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise UserError(f"the preference store wants sqlite:///FILE or postgresql://..., not {backend}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("the preference store wants an SQLite file: sqlite:///FILE")
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _require_folder(url: URL) -> None:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder} for the preference store: {error.strerror}") from error


def _shown(url: URL) -> str:
    """The URL without its password, wherever that stands."""
    return url.set(query={}).render_as_string(hide_password=True)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` says how a transaction begins
    cursor = connection.cursor()
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_SECONDS * 1000:.0f}",
        f"cache_size={-CACHE_KIB}",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer locks at once: one that began as a reader could not be let in later without losing what it read."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _named_errors(url: URL) -> Iterator[None]:
    """What the database's driver raises when it is not there, in one line."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise _unavailable(url, error) from error
    except DBAPIError as error:
        if error.connection_invalidated or type(error) is DatabaseError:
            raise _unavailable(url, error) from error
        raise


def _unavailable(url: URL, error: Exception) -> UnavailableError:
    reason = in_one_line(getattr(error, "orig", None) or error)
    return UnavailableError(f"the preference store at {_shown(url)} cannot be used: {reason}")
