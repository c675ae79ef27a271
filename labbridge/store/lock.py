"""One writer per store: a lock file beside a SQLite file, an advisory lock in a PostgreSQL database.

Both end with the process that holds them, however it ends.
"""

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection

from .engine import StoreError, StoreLocked

_ADVISORY = 0x6C61_6262_7269_6467  # "labbridg"; advisory locks are numbered per database

_HOLDER = (
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND (l.classid::bigint << 32) + l.objid::bigint = %s"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def take_file(store: str) -> int:
    """Lock ``<store>.lock``, which names the process that holds it; gives the open file, which is the lock.

    Raises StoreLocked, naming the process that has it, or StoreError. The lock's file is never removed, since that would
    let two processes lock two files.
    """
    file = open_file(store + ".lock")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise _locked(store, f"process {holder}") from None
    os.ftruncate(file, 0)
    os.pwrite(file, b"%d\n" % os.getpid(), 0)
    return file


def take_advisory(connection: Connection, store: str) -> None:
    """Take PostgreSQL's lock for as long as the connection lives; raises StoreLocked, naming who has it."""
    taken = connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (_ADVISORY,)).scalar_one()
    holder = None if taken else connection.exec_driver_sql(_HOLDER, (_ADVISORY,)).scalar()
    connection.commit()
    if not taken:
        raise _locked(store, holder or "another process")


def open_file(file: str) -> int:
    """Open a file, made if need be, readable by its owner alone; raises StoreError when that cannot be."""
    try:
        return os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise StoreError(f"the folder {Path(file).parent} does not exist: make it, or correct [store] url") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be opened: {error.strerror}") from None


def _locked(store: str, holder: str) -> StoreLocked:
    return StoreLocked(f"the store {store} is in use by {holder}: stop that one first, or give this one a store of its own")
