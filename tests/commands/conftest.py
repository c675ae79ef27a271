"""A bench for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Proven at the end, whatever the test did."""
    one = Bench(tmp_path)
    yield one
    one.proven()
    one.close()
