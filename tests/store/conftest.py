"""Stores for the tests, on SQLite and on PostgreSQL."""

from collections.abc import Iterator

import pytest

from labbridge.store import Reader, Store

from .support import open_ready


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
