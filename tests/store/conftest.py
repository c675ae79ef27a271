"""Stores for the tests: every test that takes ``store_url`` or ``store`` runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labbridge.store import Reader, Store

from .postgres import postgresql_server, postgresql_url
from .support import open_ready

__all__ = ["postgresql_server", "postgresql_url"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/labbridge.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    open_ready(store)
    yield store
    assert store.close()


@pytest.fixture
def reader(store: Store, store_url: str) -> Iterator[Reader]:
    reader = Reader(store_url)
    yield reader
    reader.close()
