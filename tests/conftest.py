"""For every test: a store on SQLite and on PostgreSQL, and the same examples.

A test that takes ``store_url``, ``new_url`` or what is made of ``place`` runs on both databases; one that is about one of
them alone says so with ``tests.support.only``.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from labbridge.store import Store
from labbridge.store.schema import metadata
from tests.store.postgres import Server, postgresql_server, postgresql_url
from tests.store.support import behind, open_ready

__all__ = ["postgresql_server", "postgresql_url"]

# The same examples in every run; `pytest --hypothesis-profile=default` looks for new ones.
# No time is measured: a machine that is busy with other things is no fault of ours.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest) -> str:
    """Where the stores of a test are: of each file, the tests on SQLite run first."""
    return str(request.param)


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, database: str) -> Callable[[Path], AbstractContextManager[str]]:
    """The URL of a store that is not there yet: a file in this folder, or an empty database that is dropped afterwards."""
    if database == "sqlite":
        return lambda folder: nullcontext(f"sqlite:///{folder}/lab.db")
    server: Server = request.getfixturevalue("postgresql_server")
    return lambda _: server.database()


@pytest.fixture
def new_url(place: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> Iterator[str]:
    """The place for a store, with nothing there."""
    with place(tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def shared_url(postgresql_server: Server) -> Iterator[str]:
    """A PostgreSQL store that the tests use one after the other: emptying it is quicker than making one."""
    with postgresql_server.database() as url:
        store = Store(url)
        open_ready(store)
        assert store.close()
        yield url


@pytest.fixture
def store_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[str]:
    """An empty store, or the place for one."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path}/labbridge.db"
        return
    url: str = request.getfixturevalue("shared_url")
    yield url
    with behind(url) as connection:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(metadata.tables)}")
