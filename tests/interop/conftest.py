"""A daemon on SQLite for the tests of a file, whose hospital or analyzer is somebody else's."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import no_process_left
from tests.e2e.helpers import Lab, laboratory

__all__ = ["no_process_left"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A daemon with a hospital of ours, for foreign analyzers; the tests do not disturb one another."""
    with laboratory(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
        assert lab.stop() == 0


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Makes daemons without a hospital."""
    with ExitStack() as stack:

        def make(**options: Any) -> Lab:
            return stack.enter_context(laboratory(tmp_path, hospital=False, **options))

        yield make
