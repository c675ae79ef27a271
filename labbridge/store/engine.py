"""Where a store is and how it is opened: URLs, engines for writing and for reading, and what can go wrong.

In comes the ``url`` of ``[store]``; out go SQLAlchemy engines. SQLite files are opened with the settings that survive a
power cut (write-ahead log, an fsync for every commit); PostgreSQL is told to wait for its own log.
"""

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

SQLITE = ("sqlite", "sqlite+pysqlite")
POSTGRESQL = ("postgresql", "postgresql+psycopg")

# Documents of some 3 KB fill pages of 16 KiB well: half the CPU of 4 KiB pages in groups of 64, no more in groups of
# one. A checkpoint every 125 such pages (2 MB) keeps the longest commit short.
_PRAGMAS = ("page_size=16384", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=125", "cache_size=-16000")
_BUSY_SECONDS = 2.0
# A server that is gone must be noticed while an analyzer still waits; a commit must mean that it is on the disk.
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # Every look-up of the writer has its index; a table that has just grown must not mislead the planner.
    "options": "-c synchronous_commit=on -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off",
}


class StoreError(Exception):
    """The store cannot do what was asked; the text says what, where and what to do next, never patient data."""


class StoreUnavailable(StoreError):
    """The store cannot commit at present (database down, disk full); the same job may succeed later."""


class StoreLocked(StoreError):
    """Another process writes to this store."""


def parse(url: str) -> URL:
    """The URL of a store, checked; raises StoreError when it is malformed or names a database that is not supported."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"the store's url cannot be read: {_EXPECTED}") from None
    if parsed.drivername in POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in SQLITE:
        raise StoreError(f"the store's url names the database {parsed.drivername!r}: {_EXPECTED}")
    if parsed.host or not parsed.database or parsed.database.startswith((":", "file:")):
        raise StoreError(f"the store's url names no file: {_EXPECTED}")
    return parsed


_EXPECTED = "expected sqlite:///FILE (sqlite:////FILE for an absolute path) or postgresql+psycopg://USER@HOST/DATABASE"


def is_sqlite(url: URL) -> bool:
    """Whether the store is a file."""
    return url.drivername in SQLITE


def display(url: URL) -> str:
    """How the store is called in messages: the file, or the URL without its password and parameters."""
    return str(url.database) if is_sqlite(url) else url.set(query={}).render_as_string(hide_password=True)


def writing(url: URL) -> Engine:
    """An engine for the one writer; transactions begin at once with the right to write."""
    if not is_sqlite(url):
        # The driver counts by position, so that rows are plain tuples for both databases.
        return create_engine(url, poolclass=NullPool, paramstyle="format", connect_args=_arguments(url, "labbridge"))
    arguments = {"isolation_level": None, "check_same_thread": False, "timeout": _BUSY_SECONDS}
    engine = create_engine(URL.create("sqlite", database=url.database), poolclass=NullPool, connect_args=arguments)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reading(url: URL) -> Engine:
    """An engine that can only read, each transaction one snapshot."""
    if not is_sqlite(url):
        engine = create_engine(url, pool_pre_ping=True, connect_args=_arguments(url, "labbridge reader"))
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if not Path(str(url.database)).exists():
        raise StoreError(f"there is no store at {url.database}: start labbridge once, or correct [store] url")
    read_only = URL.create("sqlite", database="file:" + quote(str(url.database)), query={"mode": "ro", "uri": "true"})
    arguments = {"isolation_level": None, "check_same_thread": False, "timeout": _BUSY_SECONDS}
    engine = create_engine(read_only, connect_args=arguments)
    event.listen(engine, "connect", _read_damaged_text)
    event.listen(engine, "begin", _begin)
    return engine


def create_file(url: URL) -> None:
    """Make a new store's file, readable by its owner alone, and make its directory entry survive a power cut.

    Raises StoreError when the folder is missing or not writable.
    """
    path = Path(str(url.database))
    try:
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(file)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        raise StoreError(f"the folder {path.parent} does not exist: make it, or correct [store] url") from None
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror}") from None


def explain(error: Exception, url: URL) -> StoreError:
    """A driver's error in words that carry no data: the first line of what the database says, without parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    diagnosis = getattr(getattr(cause, "diag", None), "message_primary", None)
    said = str(diagnosis or cause).strip().partition("\n")[0]
    passing = any(kind.__name__ in _PASSING for kind in type(cause).__mro__)
    return (StoreUnavailable if passing else StoreError)(f"the store {display(url)}: {said}")


# The names that PEP 249 gives to errors of the database's operation, not of what was asked of it.
_PASSING = ("OperationalError", "InterfaceError", "InternalError")


def _arguments(url: URL, name: str) -> dict[str, Any]:
    """What the driver is told; a parameter in the URL wins, but that ``options`` add up."""
    arguments = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    arguments["application_name"] = f"{name} {os.getpid()} on {socket.gethostname()}"
    arguments["options"] = f"{url.query.get('options', '')} {_POSTGRESQL['options']}".strip()
    return arguments


def _set_pragmas(connection: Any, _record: Any) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _read_damaged_text(connection: Any, _record: Any) -> None:
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
