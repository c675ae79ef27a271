"""A peer that shuts its side down after what it said: it is answered, and then the connection ends."""

import contextlib
import socket
from collections.abc import Callable

import pytest
from links_support import Handler
from test_links_tcp import connect
from test_links_wire import store
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from labbridge.links import stream
from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Listener
from labbridge.wire import Lis01Link, Lis01Settings, MllpLink, MllpSettings
from labbridge.wire.events import Abandoned, Answer, Event, Overdue, Part, Received
from tests.loop import Loop
from tests.wire.replay import HEADER, LAST, PATIENT, RESULT, session

BLOCK = b"\x0bMSH|1\r\x1c\r"
SESSION = session(HEADER, PATIENT, RESULT, LAST)
CLEAN = ("closed", "Connection was closed cleanly.")


def mllp() -> Machine:
    return MllpLink(MllpSettings(refusal=lambda payload: b"AE"))


def lis01() -> Machine:
    return Lis01Link(Lis01Settings())


class Slow(Handler):
    """A handler behind a store that needs a while for each token; ``lag`` None: for ever."""

    def __init__(self, loop: Loop, lag: float | None = 0.05) -> None:
        super().__init__()
        self.loop, self.lag = loop, lag
        self.then = self.later

    def later(self, link: WireProtocol, event: Event) -> None:
        if isinstance(event, Part | Received) and self.lag is not None:
            self.loop.callLater(self.lag, store, link, event)


def door(loop: Loop, machine: Callable[[], Machine], handler: Handler) -> Listener:
    made = Listener(loop, "127.0.0.1", 0, machine, handler)
    made.start()
    return made


def said(loop: Loop, to: Listener, data: bytes) -> bytes:
    """Sends all, shuts this side down, and reads until the link closes."""
    got, over = bytearray(), False
    with connect(to) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        peer.setblocking(False)

        def read() -> bool:
            nonlocal over
            try:
                part = peer.recv(1 << 16)
            except BlockingIOError:
                return False
            got.extend(part)
            over = not part
            return over

        loop.until(read)
    return bytes(got)


@pytest.mark.parametrize(
    ("machine", "data", "answer"),
    [(mllp, BLOCK, BLOCK.lower()), (mllp, BLOCK * 3, BLOCK.lower() * 3), (lis01, SESSION, b"\x06" * 5)],
    ids=["block", "blocks", "session"],
)
def test_a_peer_that_half_closes_is_answered_and_then_closed(
    loop: Loop, machine: Callable[[], Machine], data: bytes, answer: bytes
) -> None:
    """``nc -N``: the answer to what was said before the end leaves, though the store needs a while."""
    handler = Slow(loop)
    assert said(loop, door(loop, machine, handler), data) == answer
    loop.until(lambda: handler.calls[-1] == CLEAN)
    assert not [call for call in handler.calls if isinstance(call[-1], Abandoned)]


def test_a_block_that_the_end_cuts_short_is_incomplete_at_once(loop: Loop) -> None:
    """What came whole before it is answered."""
    handler = Slow(loop)
    assert said(loop, door(loop, mllp, handler), b"\x0bMSH|1") == b""
    assert [type(call[-1]) for call in handler.calls[1:-1]] == [Part, Abandoned]
    handler.calls.clear()
    assert said(loop, door(loop, mllp, handler), BLOCK + b"\x0bMSH|2") == BLOCK.lower()
    assert [type(call[-1]) for call in handler.calls[1:-1]] == [Received, Part, Abandoned]
    assert handler.calls[-1] == CLEAN


def test_a_session_that_the_end_cuts_short_is_abandoned_after_its_frames_are_confirmed(loop: Loop) -> None:
    handler = Slow(loop)
    assert said(loop, door(loop, lis01, handler), session(HEADER, PATIENT)[:-1] + b"\x023R") == b"\x06" * 3
    assert [type(call[-1]) for call in handler.calls[1:-1] if isinstance(call[-1], Part | Abandoned)] == [Part, Part, Abandoned]


def test_a_peer_that_half_closes_with_nothing_said_is_closed_at_once(loop: Loop) -> None:
    handler = Handler()
    assert said(loop, door(loop, mllp, handler), b"") == b""
    assert handler.calls == [("opened",), CLEAN]


def test_a_peer_that_half_closes_and_never_reads_is_closed_in_time(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers do not fit into the socket: what has not left after two seconds never does."""
    monkeypatch.setattr(stream, "CLOSE_TIME_S", 0.2)
    handler = Slow(loop)
    own = door(loop, mllp, handler)
    with connect(own) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        data = b"\x0bMSH|" + b"A" * (8 << 20) + b"\x1c\r"
        sent = 0

        def send() -> bool:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                sent += peer.send(data[sent : sent + (1 << 20)])
            return sent == len(data)

        loop.until(send)
        peer.shutdown(socket.SHUT_WR)
        loop.until(lambda: handler.calls[-1] == CLEAN)
    assert not own.links


class Bench:
    """A link on a clock whose peer said something and no more, before a store that never answers."""

    def __init__(self, machine: Machine, data: bytes) -> None:
        self.clock, self.transport, self.handler = Clock(), StringTransport(), Handler()
        self.link = WireProtocol(machine, self.handler, self.clock, set())
        self.link.twisted.makeConnection(self.transport)
        self.link.twisted.dataReceived(data)
        self.link.twisted.readConnectionLost()


@pytest.mark.parametrize(("machine", "data", "refusal"), [(mllp, BLOCK, b"\x0bAE\x1c\r"), (lis01, SESSION, b"\x06\x15")])
def test_a_store_that_does_not_answer_holds_no_half_closed_link(
    machine: Callable[[], Machine], data: bytes, refusal: bytes
) -> None:
    """When the protocol's time is up the peer is refused, and the link closes."""
    bench = Bench(machine(), data)
    bench.clock.advance(9.9)
    assert not bench.transport.disconnecting
    bench.clock.advance(2.2)
    assert bench.transport.disconnecting
    assert bench.transport.value() == refusal
    assert isinstance(bench.handler.calls[-1][-1], Overdue)


@pytest.mark.parametrize("held", [False, True])
def test_a_protocol_without_a_time_of_its_own_holds_no_half_closed_link(held: bool) -> None:
    """After half a minute in which nothing was said, even if it was held."""
    bench = Bench(MllpLink(MllpSettings(answer_time=None)), BLOCK * 2)
    if held:
        bench.link.hold()
    bench.clock.advance(20)
    bench.link.settle(1, Answer(True, (b"yes",)))
    bench.clock.advance(20)
    bench.link.twisted.readConnectionLost()  # as the reactor says again when it reads on
    assert not bench.transport.disconnecting
    bench.clock.advance(10)
    assert bench.transport.disconnecting
    assert bench.link.why == CLEAN[1]
