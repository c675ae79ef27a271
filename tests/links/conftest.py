from collections.abc import Iterator

import pytest
from links_support import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    own = Loop()
    yield own
    own.dispose()
