"""Daemons for the end-to-end tests: one that the tests of a file share, and as many of their own as they want.

All run on SQLite and on PostgreSQL.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import Lab, laboratory
from tests.support import STARTED

Place = Callable[[Path], AbstractContextManager[str]]
Lasting = Callable[..., AbstractContextManager[Lab]]


@pytest.fixture(scope="module")
def lasting(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Lasting:
    """Makes laboratories for the tests of a file, which do not disturb one another: each has its own specimens."""

    @contextmanager
    def make(**options: Any) -> Iterator[Lab]:
        folder = tmp_path_factory.mktemp("lab")
        with place(folder) as url, laboratory(folder, url=url, **options) as lab:
            yield lab
            assert lab.stop() == 0

    return make


@pytest.fixture(scope="module")
def shared(lasting: Lasting) -> Iterator[Lab]:
    """A daemon as most tests want it."""
    with lasting() as lab:
        yield lab


@pytest.fixture
def own(place: Place, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Makes laboratories of the test's own, in folders and with stores of their own (or with the store at ``url``)."""
    with ExitStack() as stack:

        def make(*, url: str = "", **options: Any) -> Lab:
            folder = tmp_path / f"lab{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            url = url or stack.enter_context(place(folder))
            return stack.enter_context(laboratory(folder, url=url, **options))

        yield make


def _commands() -> Iterator[list[bytes]]:
    """The command lines of all processes."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "cmdline").read_bytes().split(b"\0")


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """After the last test none of the daemons, nor any child of theirs, is left."""
    yield
    for process in STARTED:
        assert process.poll() is not None, f"daemon {process.pid} still runs"
    ours = {str(process.args[-1]).encode() for process in STARTED}  # configurations: a process id is given again
    assert not [command for command in _commands() if ours & set(command)]
