"""Where a store is and how it is opened: URLs, engines for writing and for reading, and what can go wrong.

In comes the ``url`` of ``[store]``; out go SQLAlchemy engines. SQLite files are opened with the settings that survive a
power cut (write-ahead log, an fsync for every commit); PostgreSQL is told to wait for its own log.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgresql+psycopg": "postgresql+psycopg"}
_EXPECTED = "expected sqlite:///FILE (sqlite:////FILE for an absolute path) or postgresql+psycopg://USER@HOST/DATABASE"

# Pages of 4 KiB (of a store that is made now): a commit of one message writes some fifteen of them, each twice. A checkpoint
# every 1,000 (4 MB) keeps the longest commit short.
_PRAGMAS = ("page_size=4096", "journal_mode=WAL", "synchronous=FULL", "cache_size=-16000")
_LOG_BYTES = 4_096_000
_BUSY_SECONDS = 2.0
_LOG_PART = 1 << 20
# A server that is gone must be noticed while an analyzer still waits.
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
# A commit must mean that it is on the disk. Every look-up of the writer has its index; a table that has just grown must
# not mislead the planner.
_OPTIONS = "-c synchronous_commit=on -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"

# The names that PEP 249 gives to the errors of drivers, and to those of the database's operation among them, not of
# what was asked of it.
_DRIVER = {"DatabaseError", "InterfaceError"}
_PASSING = {"OperationalError", "InterfaceError", "InternalError"}


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
        parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
    except (ArgumentError, ValueError, KeyError):
        raise StoreError(f"the store's url cannot be used: {_EXPECTED}") from None
    if is_sqlite(parsed) and (parsed.host or not parsed.database or parsed.database.startswith((":", "file:"))):
        raise StoreError(f"the store's url names no file: {_EXPECTED}")
    return parsed


def is_sqlite(url: URL) -> bool:
    """Whether the store is a file."""
    return url.drivername == "sqlite"


def display(url: URL) -> str:
    """How the store is called in messages: the file, or the URL without its password and parameters."""
    return str(url.database) if is_sqlite(url) else url.set(query={}).render_as_string(hide_password=True)


def writing(url: URL) -> Engine:
    """An engine for the one writer; transactions begin at once with the right to write."""
    if is_sqlite(url):
        return _sqlite(url.set(query={}), "BEGIN IMMEDIATE", _set_pragmas, poolclass=NullPool)
    return create_engine(url, poolclass=NullPool, connect_args=_arguments(url, "labbridge"))


def reading(url: URL) -> Engine:
    """An engine that can only read, each transaction one snapshot."""
    if not is_sqlite(url):
        engine = create_engine(url, pool_pre_ping=True, connect_args=_arguments(url, "labbridge reader"))
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if not Path(str(url.database)).exists():
        raise StoreError(f"there is no store at {url.database}: start labbridge once, or correct [store] url")
    read_only = URL.create("sqlite", database="file:" + quote(str(url.database)), query={"mode": "ro", "uri": "true"})
    return _sqlite(read_only, "BEGIN", _read_damaged_text)


def write_log_again(database: str) -> None:
    """Write what SQLite will recover from onto itself, and sync it; raises StoreUnavailable.

    After an fsync that failed the kernel takes what it could not write for written. A process that is started then would
    recover a commit from memory that is not on the disk, and nothing that follows it would survive a power cut.
    """
    name = f"{database}-wal"
    try:
        with open(name, "r+b", buffering=0) as log:
            offset = 0
            while part := os.pread(log.fileno(), _LOG_PART, offset):
                offset += os.pwrite(log.fileno(), part, offset)
            os.fsync(log.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"the store {database}: its write-ahead log {name} cannot be written: {error.strerror}") from None


def explain(error: Exception, url: URL) -> Exception:
    """A driver's error in words that carry no data: the first line of what the database says, without parameters.

    Any other error is given back as it is.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if kinds.isdisjoint(_DRIVER):
        return error
    if "UndefinedTable" in kinds:
        return StoreError(f"there is no store at {display(url)}: start labbridge once, or correct [store] url")
    said = str(getattr(getattr(cause, "diag", None), "message_primary", None) or cause).strip().partition("\n")[0]
    return (StoreError if kinds.isdisjoint(_PASSING) else StoreUnavailable)(f"the store {display(url)}: {said}")


def _sqlite(url: URL, begin: str, prepare: Callable[[Any, Any], None], **options: Any) -> Engine:
    arguments = {"isolation_level": None, "check_same_thread": False, "timeout": _BUSY_SECONDS}
    engine = create_engine(url, connect_args=arguments, **options)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    [page] = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_BYTES // page}")


def _read_damaged_text(connection: Any, _record: Any) -> None:
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")


def _arguments(url: URL, name: str) -> dict[str, Any]:
    """What the driver is told; a parameter in the URL wins, but that ``options`` add up."""
    options = f"{url.query.get('options', '')} {_OPTIONS}".strip()
    application = f"{name} {os.getpid()} on {socket.gethostname()}"
    return {**_POSTGRESQL, **url.query, "options": options, "application_name": application}
