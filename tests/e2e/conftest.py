"""Daemons for the end-to-end tests: one that the tests of a file share, and as many of their own as they want."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import Lab, laboratory
from tests.store.postgres import Server
from tests.support import STARTED

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon on SQLite for tests that do not disturb one another: each has its own specimens."""
    with laboratory(tmp_path_factory.mktemp("shared")) as lab:
        yield lab
        assert lab.stop() == 0


@pytest.fixture(scope="module", params=BOTH)
def everywhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The same, once on SQLite and once on PostgreSQL."""
    folder = tmp_path_factory.mktemp("everywhere")
    if request.param == "sqlite":
        url, drop = "sqlite:///lab.db", lambda: None
    else:
        server: Server = request.getfixturevalue("postgresql_server")
        url, drop = server.create()
    with laboratory(folder, url=url) as lab:
        yield lab
        assert lab.stop() == 0
    drop()


@pytest.fixture(params=BOTH)
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of a store that is not there yet, of either kind."""
    if request.param == "sqlite":
        return "sqlite:///lab.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Makes laboratories of the test's own, in folders of their own."""
    with ExitStack() as stack:

        def make(**options: Any) -> Lab:
            folder = tmp_path / f"lab{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return stack.enter_context(laboratory(folder, **options))

        yield make


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """After the last test none of the daemons, nor any child of theirs, is left."""
    yield
    for process in STARTED:
        assert process.poll() is not None, f"daemon {process.pid} still runs"
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
