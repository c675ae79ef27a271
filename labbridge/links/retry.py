"""A link that is made anew after every outage, whatever it is made over."""

from collections.abc import Callable
from secrets import SystemRandom
from typing import Any, NamedTuple

from labbridge.links.stream import LinkHandler, Machine, WireProtocol

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STEADY_S = 30.0  # a link that lived so long, or was heard, ends a row of failures
uniform = SystemRandom().uniform


class State(NamedTuple):
    """How a link stands: in an outage with the number of failures in a row, and why the last."""

    connected: bool
    failures: int
    why: str = ""


class Retrying:
    """Keeps one link, and makes it again after 0.5 to 30 s, longer after each failure.

    ``changed`` hears of every change: connected, lost, and each failed attempt while it is down; so its owner can
    write one line for an outage and a reminder when it lasts.
    """

    def __init__(
        self,
        reactor: Any,
        machine: Callable[[], Machine],
        handler: LinkHandler,
        changed: Callable[[State], None],
        idle_time: float | None = None,
    ) -> None:
        self.links: set[WireProtocol] = set()
        self._reactor, self._machine, self._handler, self._changed = reactor, machine, handler, changed
        self._idle_time = idle_time
        self._failures = 0
        self._link: WireProtocol | None = None  # from the moment when it is there
        self._retry: Any = None
        self._stopped = False

    def start(self) -> None:
        """Makes the link, and goes on trying."""
        self._retry = None
        self._attempt()

    def stop(self) -> None:
        """Tries no more; an open link lives on."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        elif self._link is None:
            self._give_up()

    def _attempt(self) -> None:
        """Begins to make the link; ``_down`` hears of its failure and of its end."""

    def _give_up(self) -> None:
        """Ends an attempt under way."""

    def _new(self) -> WireProtocol:
        link = WireProtocol(self._machine(), self._handler, self._reactor, self.links, idle_time=self._idle_time)
        link.made = lambda: self._up(link)
        return link

    def _up(self, link: WireProtocol) -> None:
        self._link = link
        self._changed(State(True, self._failures))

    def _down(self, why: str) -> None:
        link, self._link = self._link, None
        good = link is not None and (link.heard or self._reactor.seconds() - link.opened_at >= STEADY_S)
        self._failures = 1 if good else self._failures + 1
        if not self._stopped:
            self._retry = self._reactor.callLater(wait(self._failures), self.start)
            self._changed(State(False, self._failures, why))


def wait(failures: int) -> float:
    """Seconds before the next attempt: doubling with each failure in a row, spread, from 0.5 to 30."""
    longest = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2.0 ** min(failures, 10))
    return uniform(max(SHORTEST_WAIT_S, longest / 2), longest)
