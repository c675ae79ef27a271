"""A reactor of one test's own: turned by hand, never installed, closed at the end."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from twisted.internet.epollreactor import EPollReactor

from tests.support import PATIENCE


class Loop(EPollReactor):
    def __init__(self) -> None:
        self._read: WeakSet[Any] = WeakSet()  # what was ever read from: of a half-closed connection nothing is read any more
        super().__init__()

    def addReader(self, reader: Any) -> None:
        self._read.add(reader)
        super().addReader(reader)

    def until(self, done: Callable[[], object], seconds: float = 10.0) -> None:
        """Turns until ``done`` is true; ``seconds`` is more than that takes where nothing else runs."""
        end = time.monotonic() + seconds * PATIENCE
        while not done():
            assert time.monotonic() < end, "the awaited did not happen"
            self.iterate(0.01)

    def dispose(self) -> None:
        """Closes every socket, after what was to be closed by itself."""
        self.iterate(0)
        for call in self.getDelayedCalls():
            call.cancel()
        half = [one for one in self._read if hasattr(one, "abortConnection")]
        for descriptor in half + self.removeAll() + list(self._internalReaders):
            if hasattr(descriptor, "abortConnection"):
                descriptor.abortConnection()
            else:
                descriptor.connectionLost(None)
        self.iterate(0)
        self._poller.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    own = Loop()
    yield own
    own.dispose()
