"""One connection: a transport of Twisted's below, a machine of ``wire`` inside, a handler above.

Bytes go into the machine; what it wants written goes to the transport, at once and in the order in which it was said;
its deadline becomes one delayed call; Close closes; every other event goes to the handler. A handler may call back into
the link while it handles an event: what comes of that is dealt with after the events that were there before.

A TCP peer that says no more (it shut its side down) may still listen: what it said is answered, then the link closes, at the
latest when nothing was said for half a minute. TLS and serial lines know no such half-close.
"""

import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import directlyProvides

from labbridge.links import tls
from labbridge.wire import Lis01Link, MllpLink, RawLink
from labbridge.wire.events import Answer, Close, Event, Failed, Overdue, Oversize, Part, Received, Write

CLOSE_TIME_S = 2.0  # what is still buffered when a link closes has this long to leave
HANDSHAKE_TIME_S = 10.0
ANSWER_TIME_S = 30.0  # a peer that says no more is answered no later after the last answer; the protocols' own times are shorter
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # a dead peer is noticed in two minutes
_SETTLED = (Received, Part, Oversize)
_CLEAN = str(ConnectionDone())  # why a link ended that the peer closed

Machine = MllpLink | Lis01Link | RawLink
log = Logger()


class LinkHandler(Protocol):
    """What a link calls, in this order: opened once, event any number of times, closed once; all in the reactor.

    Of a link whose TLS was never established nothing is heard here.

    An exception out of ``event`` is a fault of ours: it is logged, the connection is dropped, the peer sends again.
    """

    def opened(self, link: "WireProtocol") -> None:
        """The connection is there."""

    def event(self, link: "WireProtocol", event: Event) -> None:
        """The machine said something (never Write or Close); also after the connection was lost, before ``closed``."""

    def closed(self, link: "WireProtocol", why: str) -> None:
        """The connection is gone; ``settle`` does nothing from now on, ``send`` fails."""


class WireProtocol:
    """One open connection. ``twisted`` is what a transport talks to; the rest is for the handler.

    ``clock`` is a reactor or a ``task.Clock``; its ``seconds`` are the machine's time. ``siblings`` is the set of the
    links of the endpoint that made this one, open or in their TLS handshake. A link that was not heard from for
    ``idle_time`` seconds, and to which nothing was said, is closed. ``made`` hears that the connection is there, ``failed``
    that its handshake failed, with host and reason.
    """

    def __init__(
        self, machine: Machine, handler: LinkHandler, clock: Any, siblings: "set[WireProtocol]", idle_time: float | None = None
    ) -> None:
        self.machine = machine
        self.handler = handler
        self.peer = ""  # "host:port", or the device, of an open link
        self.repeats = not isinstance(machine, RawLink)  # what is refused comes again
        self.opened_at = 0.0
        self.heard = False  # the peer sent something
        self._clock = clock
        self._siblings = siblings
        self._idle_time = idle_time or 0.0
        self.made: Callable[[], None] = lambda: None
        self.failed: Callable[[str, str], None] = lambda host, why: None
        self._transport: Any = None
        self._open = False
        self._direct = False  # nothing waits in the transport: bytes may go straight to the socket
        self._held = False
        self.why = ""  # it ends, or has ended
        self._owed: set[int] = set()  # tokens that came up, and are neither settled nor overdue
        self._half = False  # the peer says no more
        self._events: list[Event] | None = None  # what is being dispatched
        self._alarm: Any = None  # the delayed call, kept across messages
        self._alarm_at = 0.0
        self._abort: Any = None
        self._idle: Any = None
        self._active_at = 0.0
        self.twisted = TwistedProtocol()
        self.twisted.makeConnection = self._connected
        self.twisted.handshakeCompleted = self._made
        self.twisted.dataReceived = self._received
        self.twisted.readConnectionLost = self._ended
        self.twisted.writeConnectionLost = lambda: None  # we never shut down our side alone
        self.twisted.connectionLost = self._lost
        self.twisted.resumeProducing = self._drained
        self.twisted.stopProducing = lambda: None  # the transport has nothing more to ask of its producer

    # -- the handler's side ----------------------------------------------------------------------------------------

    def send(self, token: int, payload: bytes) -> None:
        """Sends a message; ``Sent`` or ``Failed`` tells what became of it."""
        if self._open:
            self._dispatch(self.machine.send(token, payload, self._clock.seconds()))
        else:
            self.handler.event(self, Failed(token, "closed"))

    def settle(self, token: int, answer: Answer) -> None:
        """Gives the store's answer to what came up under ``token``."""
        if self._open:
            self._owed.discard(token)
            self._dispatch(self.machine.settle(token, answer, self._clock.seconds()))

    def hold(self) -> None:
        """Takes no more: the peer has to wait. A LIS01 link goes on reading, for it must hear ENQ to say it is busy."""
        if self._open and not self._held:
            self._held = True
            self._dispatch(self.machine.pause())
            if not isinstance(self.machine, Lis01Link):
                self._transport.pauseProducing()

    def unhold(self) -> None:
        """Takes more again."""
        if self._open and self._held:
            self._held, self._active_at = False, self._clock.seconds()
            self._dispatch(self.machine.resume())
            self._transport.resumeProducing()

    def close(self, why: str) -> None:
        """Closes when everything written has left, and after two seconds all the same."""
        if not self._open:
            self.drop(why)  # in its handshake, or gone
        elif not self.why:
            self.why = why
            self._abort = self._clock.callLater(CLOSE_TIME_S, self._transport.abortConnection)
            self._transport.loseConnection()

    def drop(self, why: str) -> None:
        """Closes at once; what was not yet written is lost."""
        if self._transport is not None:
            self.why = self.why or why
            self._transport.abortConnection()

    # -- the transport's side --------------------------------------------------------------------------------------

    def _connected(self, transport: Any) -> None:
        self._transport = self.twisted.transport = transport
        self.twisted.connected = True
        self._siblings.add(self)
        if tls.secured(transport):
            self._abort = self._clock.callLater(HANDSHAKE_TIME_S, self.drop, "no TLS handshake in time")
        else:
            self._made()

    def _made(self) -> None:
        """The connection is there, and established where it has TLS."""
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        self._open, transport = True, self._transport
        bare = transport.transport if tls.secured(transport) else transport
        if isinstance(bare, tcp.Connection):
            self._direct = bare is transport
            if self._direct:
                directlyProvides(self.twisted, IHalfCloseableProtocol)
            bare.setTcpNoDelay(True)
            bare.setTcpKeepAlive(True)
            for option, value in KEEPALIVE.items():
                bare.getHandle().setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        peer = transport.getPeer()
        self.peer = address_name(peer.host, peer.port) if hasattr(peer, "host") else str(peer)
        self.opened_at = self._active_at = self._clock.seconds()
        if self._idle_time:
            self._idle = self._clock.callLater(self._idle_time, self._idled)
        self.made()
        self.handler.opened(self)
        self._arm()

    def _idled(self) -> None:
        """Closes when nothing was heard and nothing said for the idle time; else looks again when that may be.

        While it is held nothing can be heard: that is no idleness of the peer's, unless it says no more.
        """
        rest = self._idle_time if self._held and not self._half else self._active_at + self._idle_time - self._clock.seconds()
        if rest > 0:
            self._idle = self._clock.callLater(rest, self._idled)
        else:
            self.close(_CLEAN if self._half else "idle")

    def _received(self, data: bytes) -> None:
        self.heard = True
        self._active_at = now = self._clock.seconds()
        self._dispatch(self.machine.receive(data, now))

    def _ended(self) -> None:
        """The peer says no more. Called again when reading is resumed after a hold."""
        if not self._half:
            self._half, self._idle_time, self._active_at = True, ANSWER_TIME_S, self._clock.seconds()
            if self._idle is not None and self._idle.active():
                self._idle.cancel()
            self._idle = self._clock.callLater(ANSWER_TIME_S, self._idled)
            self._dispatch([])

    def _lost(self, reason: Any) -> None:
        opened, transport = self._open, self._transport
        self._open = self._direct = False
        self._siblings.discard(self)
        for call in (self._alarm, self._abort, self._idle):
            if call is not None and call.active():
                call.cancel()
        why = self.why or (tls.why_lost(transport, reason) if tls.secured(transport) else reason.getErrorMessage())
        self._transport = None
        self.why = why
        if not opened:
            self.failed(transport.getPeer().host, why)
            return
        self._dispatch(self.machine.closed(self._clock.seconds()))
        self.handler.closed(self, why)

    # -- between them ----------------------------------------------------------------------------------------------

    def _dispatch(self, events: list[Event]) -> None:
        if self._events is not None:
            self._events.extend(events)
            return
        queue = self._events = list(events)
        try:
            for event in queue:  # grows while it is walked
                if type(event) is Write:
                    self._write(event.data)
                elif type(event) is Close:
                    self.close(event.why)
                else:
                    if isinstance(event, _SETTLED):
                        self._owed.add(event.token)
                    elif isinstance(event, Overdue):
                        self._owed.discard(event.token)
                    self.handler.event(self, event)
        except Exception:
            log.failure("a fault while an event of the link with {peer} was handled", peer=self.peer)
            self.drop("a fault in labbridge")
        finally:
            self._events = None
        if self._half and not self._owed and self._open:
            self.close(_CLEAN)
        self._arm()

    def _write(self, data: bytes) -> None:
        """Writes straight to the socket while nothing waits in the transport: that saves a turn of the reactor.

        Through TLS and on a serial line the transport itself does all the writing.
        """
        self._active_at = self._clock.seconds()
        if self._direct:
            sent = self._transport.writeSomeData(data)
            if sent == len(data):
                return
            # The rest waits in the transport, and all that follows behind it, until the transport asks for more. It
            # asks once at once, while _direct is still set. A lost connection comes out of its own write as well.
            self._transport.registerProducer(self.twisted, False)
            self._direct = False
            data = data[sent:] if isinstance(sent, int) else data
        if self._open:
            self._transport.write(data)

    def _drained(self) -> None:
        if not self._direct and self._open:
            self._transport.unregisterProducer()
            self._direct = True

    def _arm(self) -> None:
        """Sees that the delayed call comes no later than the deadline; when it comes too early it is made anew."""
        deadline = self.machine.deadline
        if deadline is None or not self._open or (self._alarm is not None and self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._clock.callLater(max(0.0, deadline - self._clock.seconds()), self._rang)

    def _rang(self) -> None:
        self._alarm, deadline = None, self.machine.deadline
        now = max(self._clock.seconds(), self._alarm_at)  # rounding must not bring it a moment early
        self._dispatch(self.machine.tick(now) if deadline is not None and deadline <= now else [])


def address_name(host: str, port: int) -> str:
    """An address as "host:port" or "[ipv6]:port"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
