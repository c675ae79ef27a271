"""Where TCP links come from: a listener that admits peers, and a connector that comes back after every outage.

Both keep the set of their open ``links``. ``stop`` ends the coming of new ones and leaves the open ones as they are, so
that what is in flight can be settled.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import SystemRandom
from typing import Any, NamedTuple, Protocol

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, ServerFactory

from labbridge.links.stream import LinkHandler, Machine, WireProtocol, address_name

LOOPBACK = ("127.0.0.0/8", "::1/128")
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
CONNECT_TIME_S = 10.0
STEADY_S = 30.0  # a link that lived so long, or was heard, ends a row of failures
uniform = SystemRandom().uniform


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says what to do."""


class ListenHandler(LinkHandler, Protocol):
    """The handler of a listener's links."""

    def refused(self, host: str, why: str) -> None:
        """A peer was turned away before a link was made: "not allowed", or "too many connections"."""


@dataclass(eq=False)
class _Source:
    """A reactor, an address, what a link is made of, and the open links."""

    reactor: Any
    host: str
    port: int
    machine: Callable[[], Machine]
    handler: LinkHandler
    links: set[WireProtocol] = field(init=False, default_factory=set)

    def _link(self) -> WireProtocol:
        return WireProtocol(self.machine(), self.handler, self.reactor, self.links)


@dataclass(eq=False)
class Listener(_Source):
    """Accepts connections on one address from the networks in ``allow``, up to ``max_connections`` at a time.

    A ``port`` of 0 becomes what the system chose, once started.
    """

    handler: ListenHandler
    allow: Sequence[str] = LOOPBACK
    max_connections: int = 16
    _listening: Any = field(init=False, default=None)

    def start(self) -> None:
        """Listens; raises ListenError when the address cannot be had."""
        factory = ServerFactory()
        factory.noisy = False
        factory.buildProtocol = self._admit
        try:
            self._listening = self.reactor.listenTCP(self.port, factory, backlog=128, interface=self.host)
        except CannotListenError as error:
            where, why = address_name(self.host, self.port), error.socketError.strerror or error.socketError
            remedy = "choose a port that is free, from 1024 up, and an address of this machine"
            raise ListenError(f"cannot listen on {where}: {why} - {remedy}") from error
        self.port = self._listening.getHost().port

    def stop(self) -> None:
        """Takes no more connections. Open links live on."""
        if self._listening is not None:
            self._listening.stopListening()
            self._listening = None

    def _admit(self, address: Any) -> Any:
        ip = ipaddress.ip_address(address.host.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip  # an IPv4 peer on a listener for [::]
        if not any(ip in ipaddress.ip_network(network) for network in self.allow):
            self.handler.refused(address.host, "not allowed")
        elif len(self.links) >= self.max_connections:
            self.handler.refused(address.host, "too many connections")
        else:
            return self._link().twisted
        return None  # Twisted closes the socket at once


class State(NamedTuple):
    """How a connector stands: in an outage with the number of failures in a row, and why the last."""

    connected: bool
    failures: int
    why: str = ""


@dataclass(eq=False)
class Connector(_Source):
    """Keeps one connection to an address, and makes it again after 0.5 to 30 s, longer after each failure.

    ``changed`` hears of every change: connected, lost, and each failed attempt while it is down; so its owner can
    write one line for an outage and a reminder when it lasts.
    """

    changed: Callable[[State], None]

    def __post_init__(self) -> None:
        self._failures = 0
        self._made: WireProtocol | None = None
        self._attempt: Any = None  # Twisted's connector, while one is under way or connected
        self._retry: Any = None
        self._stopped = False

    def start(self) -> None:
        """Connects, and goes on trying."""
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = self._connected
        factory.clientConnectionLost = factory.clientConnectionFailed = self._down
        self._retry = None
        self._attempt = self.reactor.connectTCP(self.host, self.port, factory, timeout=CONNECT_TIME_S)

    def stop(self) -> None:
        """Tries no more; an open link lives on."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        elif self._attempt is not None and self._made is None:
            self._attempt.stopConnecting()

    def _connected(self, address: Any) -> Any:
        self._made = self._link()
        self.changed(State(True, self._failures))
        return self._made.twisted

    def _down(self, attempt: Any, reason: Any) -> None:
        link, self._made, self._attempt = self._made, None, None
        good = link is not None and (link.heard or self.reactor.seconds() - link.opened_at >= STEADY_S)
        self._failures = 1 if good else self._failures + 1
        if not self._stopped:
            self._retry = self.reactor.callLater(wait(self._failures), self.start)
            self.changed(State(False, self._failures, reason.getErrorMessage()))


def wait(failures: int) -> float:
    """Seconds before the next attempt: doubling with each failure in a row, spread, from 0.5 to 30."""
    longest = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2.0 ** min(failures, 10))
    return uniform(max(SHORTEST_WAIT_S, longest / 2), longest)
