"""Where TCP links come from: a listener that admits peers, and a connector that comes back after every outage.

Both keep the set of their open ``links``. ``stop`` ends the coming of new ones and leaves the open ones as they are, so
that what is in flight can be settled; ``close`` closes those.
"""

import errno
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import SystemRandom
from typing import Any, Protocol

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, ServerFactory

from labbridge.links.stream import LinkHandler, Machine, WireProtocol, address_name, why_of

LOOPBACK = ("127.0.0.0/8", "::1/128")
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
CONNECT_TIME_S = 10.0
STEADY_S = 30.0  # a link that lived so long, or was heard, ends a row of failures
_RANDOM = SystemRandom()


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says what to do."""


class ListenHandler(LinkHandler, Protocol):
    """The handler of a listener's links."""

    def refused(self, host: str, why: str) -> None:
        """A peer was turned away before a link was made: "not allowed", or "too many connections"."""


class Listener:
    """Accepts connections on one address from the networks in ``allow``, up to ``max_connections`` at a time."""

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        machine: Callable[[], Machine],
        handler: ListenHandler,
        *,
        allow: Sequence[str] = LOOPBACK,
        max_connections: int = 16,
    ) -> None:
        self.host = host
        self.port = port  # with 0, what the system chose, once started
        self.links: set[WireProtocol] = set()
        self._reactor = reactor
        self._machine = machine
        self._handler = handler
        self._networks = [ipaddress.ip_network(network) for network in allow]
        self._max_connections = max_connections
        self._listening: Any = None

    def start(self) -> None:
        """Listens; raises ListenError when the address cannot be had."""
        factory = ServerFactory()
        factory.noisy = False
        factory.buildProtocol = self._admit
        try:
            self._listening = self._reactor.listenTCP(self.port, factory, backlog=128, interface=self.host)
        except CannotListenError as error:
            why = error.socketError
            remedy = _REMEDIES.get(why.errno, "write an address of this machine")
            where = address_name(self.host, self.port)
            raise ListenError(f"cannot listen on {where}: {(why.strerror or str(why)).lower()} - {remedy}") from error
        self.port = self._listening.getHost().port

    def stop(self) -> Any:
        """Takes no more connections; a Deferred that fires when the port is free. Open links live on."""
        listening, self._listening = self._listening, None
        return defer.maybeDeferred(listening.stopListening) if listening is not None else defer.succeed(None)

    def close(self, why: str) -> None:
        """Closes the open links."""
        for link in list(self.links):
            link.close(why)

    def _admit(self, address: Any) -> Any:
        if not self._allows(address.host):
            self._handler.refused(address.host, "not allowed")
        elif len(self.links) >= self._max_connections:
            self._handler.refused(address.host, "too many connections")
        else:
            return WireProtocol(self._machine(), self._handler, self._reactor, self.links).twisted
        return None  # Twisted closes the socket at once

    def _allows(self, host: str) -> bool:
        ip = ipaddress.ip_address(host.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip  # an IPv4 peer on a listener for [::]
        return any(ip in network for network in self._networks)


_REMEDIES = {
    errno.EADDRINUSE: "stop the program that has it, or choose another port",
    errno.EACCES: "choose a port from 1024 up, or give labbridge the right to this one",
}


@dataclass(frozen=True, slots=True)
class State:
    """How a connector stands: since when (the clock's seconds), and in an outage the failures in a row and the last."""

    connected: bool
    since: float
    failures: int = 0
    why: str = ""


class Connector:
    """Keeps one connection to an address, and makes it again after 0.5 to 30 s, longer after each failure.

    ``changed`` hears of every change: connected, lost, and each failed attempt while it is down; so its owner can
    write one line for an outage and a reminder when it lasts.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        machine: Callable[[], Machine],
        handler: LinkHandler,
        changed: Callable[[State], None],
        *,
        uniform: Callable[[float, float], float] = _RANDOM.uniform,
    ) -> None:
        self.host = host
        self.port = port
        self.links: set[WireProtocol] = set()
        self.state = State(False, reactor.seconds())
        self._reactor = reactor
        self._machine = machine
        self._handler = handler
        self._changed = changed
        self._uniform = uniform
        self._link: WireProtocol | None = None
        self._attempt: Any = None  # Twisted's connector, while one is under way or connected
        self._retry: Any = None
        self._stopped = False
        self._factory = ClientFactory()
        self._factory.noisy = False
        self._factory.buildProtocol = self._connected
        self._factory.clientConnectionLost = self._lost
        self._factory.clientConnectionFailed = self._failed

    def start(self) -> None:
        """Connects, and goes on trying."""
        self._retry = None
        self._attempt = self._reactor.connectTCP(self.host, self.port, self._factory, timeout=CONNECT_TIME_S)

    def stop(self) -> None:
        """Tries no more; an open link lives on."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        elif self._attempt is not None and self._link is None:
            self._attempt.stopConnecting()

    def close(self, why: str) -> None:
        """Closes the open link; unless stopped, another is made."""
        for link in list(self.links):
            link.close(why)

    def _connected(self, address: Any) -> Any:
        failures = self.state.failures
        self._link = WireProtocol(self._machine(), self._handler, self._reactor, self.links)
        self._now(State(True, self._reactor.seconds(), failures))
        return self._link.twisted

    def _lost(self, attempt: Any, reason: Any) -> None:
        link, self._link = self._link, None
        now = self._reactor.seconds()
        good = link is not None and (link.heard_at is not None or now - self.state.since >= STEADY_S)
        self._again(State(False, now, 1 if good else self.state.failures + 1, why_of(reason)))

    def _failed(self, attempt: Any, reason: Any) -> None:
        self._again(State(False, self.state.since, self.state.failures + 1, why_of(reason)))

    def _again(self, state: State) -> None:
        self._attempt = None
        if self._stopped:
            self.state = state
            return
        self._retry = self._reactor.callLater(wait(state.failures, self._uniform), self.start)
        self._now(state)

    def _now(self, state: State) -> None:
        self.state = state
        self._changed(state)


def wait(failures: int, uniform: Callable[[float, float], float]) -> float:
    """Seconds before the next attempt: doubling with each failure in a row, spread, from 0.5 to 30."""
    longest = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2.0 ** min(failures, 10))
    return uniform(max(SHORTEST_WAIT_S, longest / 2), longest)
