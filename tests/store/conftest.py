"""Stores for the tests: every test that takes ``store_url`` or ``store`` runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labbridge.store import Reader, Store
from labbridge.store.schema import metadata

from .postgres import Server, postgresql_server, postgresql_url
from .support import behind, open_ready

__all__ = ["postgresql_server", "postgresql_url"]

_BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(scope="session")
def shared_url(postgresql_server: Server) -> Iterator[str]:
    """A PostgreSQL store that the tests use one after the other: emptying it is quicker than making one."""
    url, drop = postgresql_server.create()
    store = Store(url)
    open_ready(store)
    assert store.close()
    yield url
    drop()


@pytest.fixture(params=_BOTH)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store, or the place for one."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/labbridge.db"
        return
    url: str = request.getfixturevalue("shared_url")
    yield url
    with behind(url) as connection:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(metadata.tables)}")


@pytest.fixture(params=_BOTH)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The place for a store, with nothing there."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/labbridge.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A store that takes jobs."""
    store = Store(store_url)
    open_ready(store)
    yield store
    assert store.close()


@pytest.fixture
def reader(store: Store, store_url: str) -> Iterator[Reader]:
    """A reader of the store."""
    reader = Reader(store_url)
    yield reader
    reader.close()
