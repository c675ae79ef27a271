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


class FileLock:
    """An exclusive lock on ``<store>.lock``, which names the process that holds it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._path = Path(store + ".lock")
        self._file = -1

    def acquire(self) -> None:
        """Take the lock; raises StoreLocked, naming the process that has it, or StoreError."""
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the lock {self._path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise StoreLocked(locked_text(self._store, f"process {holder}")) from None
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would let two processes lock two files."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def take_advisory(connection: Connection, store: str) -> None:
    """Take PostgreSQL's lock for as long as the connection lives; raises StoreLocked, naming who has it."""
    taken = connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (_ADVISORY,)).scalar_one()
    holder = None if taken else connection.exec_driver_sql(_HOLDER, (_ADVISORY,)).scalar()
    connection.commit()
    if not taken:
        raise StoreLocked(locked_text(store, holder or "another process"))


def locked_text(store: str, holder: str) -> str:
    """What a person reads when the store is taken."""
    return f"the store {store} is in use by {holder}: stop that one first, or give this one a store of its own"
