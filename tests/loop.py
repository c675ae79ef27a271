"""A reactor of one test's own: turned by hand, never installed, closed at the end."""

import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.epollreactor import EPollReactor


class Loop(EPollReactor):
    def until(self, done: Callable[[], object], seconds: float = 10.0) -> None:
        """Turns until ``done`` is true; fails the test after ``seconds``."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "the awaited did not happen"
            self.iterate(0.01)

    def dispose(self) -> None:
        """Closes every socket, after what was to be closed by itself."""
        self.iterate(0)
        for call in self.getDelayedCalls():
            call.cancel()
        for descriptor in self.removeAll() + list(self._internalReaders):
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
