"""Where TCP links come from: a listener that admits peers, and a connector that comes back after every outage.

Both keep the set of their ``links``; with a ``security`` each link has TLS, and another one put in its place counts for
the links to come. ``stop`` ends the coming of new ones and leaves the open ones as they are, so that what is in flight
can be settled.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, ServerFactory

from labbridge.links.retry import Retrying, State
from labbridge.links.stream import LinkHandler, Machine, WireProtocol, address_name
from labbridge.links.tls import Security

__all__ = ["LOOPBACK", "Connector", "ListenError", "ListenHandler", "Listener", "State"]

LOOPBACK = ("127.0.0.0/8", "::1/128")
CONNECT_TIME_S = 10.0


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says what to do."""


class ListenHandler(LinkHandler, Protocol):
    """The handler of a listener's links."""

    def refused(self, host: str, why: str) -> None:
        """A peer was turned away before a link was made: "not allowed", "too many connections", or what TLS says."""


class Listener:
    """Accepts connections on one address from the networks in ``allow``, up to ``max_connections`` at a time.

    A ``port`` of 0 becomes what the system chose, once started.
    """

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
        security: Security | None = None,
        idle_time: float | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.links: set[WireProtocol] = set()
        self.security = security
        self._reactor, self._machine, self._handler = reactor, machine, handler
        self._networks = [ipaddress.ip_network(network) for network in allow]
        self._max_connections = max_connections
        self._idle_time = idle_time
        self._listening: Any = None

    def start(self) -> None:
        """Listens; raises ListenError when the address cannot be had."""
        factory = ServerFactory()
        factory.noisy = False
        factory.buildProtocol = self._admit
        try:
            self._listening = self._reactor.listenTCP(self.port, factory, backlog=128, interface=self.host)
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
        if not any(ip in network for network in self._networks):
            self._handler.refused(address.host, "not allowed")
        elif len(self.links) >= self._max_connections:
            self._handler.refused(address.host, "too many connections")
        else:
            link = WireProtocol(self._machine(), self._handler, self._reactor, self.links, self._idle_time)
            link.failed = self._handler.refused
            return self.security.wrap(link.twisted, self._reactor) if self.security else link.twisted
        return None  # Twisted closes the socket at once


class Connector(Retrying):
    """Keeps one connection to an address."""

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        machine: Callable[[], Machine],
        handler: LinkHandler,
        changed: Callable[[State], None],
        *,
        security: Security | None = None,
        idle_time: float | None = None,
    ) -> None:
        super().__init__(reactor, machine, handler, changed, idle_time)
        self.security = security
        self._address = host, port
        self._connecting: Any = None  # Twisted's connector, while one is under way or connected
        self._why = ""  # the handshake failed

    def _attempt(self) -> None:
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = self._connected
        factory.clientConnectionLost = factory.clientConnectionFailed = self._ended
        self._connecting = self._reactor.connectTCP(*self._address, factory, timeout=CONNECT_TIME_S)

    def _give_up(self) -> None:
        if self._connecting is not None:
            self._connecting.disconnect()

    def _connected(self, address: Any) -> Any:
        link = self._new()
        link.failed = self._failed
        return self.security.wrap(link.twisted, self._reactor) if self.security else link.twisted

    def _failed(self, host: str, why: str) -> None:
        self._why = why

    def _ended(self, connecting: Any, reason: Any) -> None:
        why = self._link.why if self._link else self._why or reason.getErrorMessage()
        self._why, self._connecting = "", None
        self._down(why)
