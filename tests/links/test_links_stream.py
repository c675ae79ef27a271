"""One connection: bytes, events, time and the end, without a reactor; and writing straight to a real socket."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links_support import Handler, Script, read_all
from twisted.internet import error
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from labbridge.links.stream import CLOSE_TIME_S, WireProtocol
from labbridge.links.tcp import Listener
from labbridge.wire.events import Abandoned, Answer, Close, Event, Failed, Received, Sent, Write
from tests.loop import Loop

YES = Answer(True)


class Bench:
    """A link on a clock and a transport in memory."""

    def __init__(self, handler: Handler | None = None, idle_time: float | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.machine = Script()
        self.handler = handler or Handler()
        self.siblings: set[WireProtocol] = set()
        self.transport = StringTransport()
        self.link = WireProtocol(self.machine, self.handler, self.clock, self.siblings, idle_time)
        self.link.twisted.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        self.link.twisted.dataReceived(data)

    def lose(self) -> None:
        self.link.twisted.connectionLost(Failure(error.ConnectionDone()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_link_knows_its_peer_since_when_and_whether_it_spoke(bench: Bench) -> None:
    """Peer and time of opening are there, and whether a byte has come."""
    assert (bench.link.peer, bench.link.opened_at, bench.link.heard) == ("192.168.1.1:54321", 100, False)
    bench.receive(b"x")
    assert bench.link.heard
    assert bench.siblings == {bench.link}


def test_bytes_go_in_with_the_time_and_events_come_out(bench: Bench) -> None:
    """The machine gets every segment as it came; the handler gets what the machine says."""
    bench.receive(b"one")
    bench.clock.advance(1)
    bench.receive(b"two")
    assert bench.machine.calls == [("receive", b"one", 100.0), ("receive", b"two", 101.0)]
    assert bench.handler.calls == [("opened",), ("event", Received(1, b"one")), ("event", Received(2, b"two"))]


def test_writes_go_to_the_transport_and_not_to_the_handler(bench: Bench) -> None:
    """What is sent and settled is written at once; Sent comes up."""
    bench.link.send(7, b"hello ")
    bench.link.settle(3, YES)
    assert bench.transport.value() == b"hello ack3"
    assert bench.handler.calls == [("opened",), ("event", Sent(7))]
    assert bench.machine.calls == [("send", 7, b"hello ", 100.0), ("settle", 3, YES, 100.0)]


def test_what_a_handler_causes_comes_after_what_was_there() -> None:
    """A handler that settles within an event does not make its answer overtake an earlier write."""

    def settle(link: WireProtocol, event: Event) -> None:
        if isinstance(event, Received):
            link.settle(event.token, YES)

    bench = Bench(Handler(settle))
    bench.machine.says = [Received(1, b""), Write(b"first "), Received(2, b""), Write(b"second ")]
    bench.receive(b"x")
    assert bench.transport.value() == b"first second ack1ack2"
    assert [call[1].token for call in bench.handler.calls[1:]] == [1, 2]


def test_the_machine_keeps_its_list() -> None:
    """What a handler causes does not grow the list that the machine returned."""
    bench = Bench(Handler(lambda link, event: link.settle(1, YES)))
    bench.machine.says = said = [Received(1, b"")]
    bench.receive(b"x")
    assert said == [Received(1, b"")]


def test_the_deadline_ticks_the_machine(bench: Bench) -> None:
    """The machine is ticked when its deadline has come, not before, and what it says is written."""
    bench.machine.deadline = 115.0
    bench.receive(b"x")
    bench.clock.advance(14.999)
    assert bench.transport.value() == b""
    bench.clock.advance(0.001)
    assert bench.transport.value() == b"tick"
    assert bench.clock.getDelayedCalls() == []


def test_a_thousand_messages_make_one_delayed_call(bench: Bench) -> None:
    """A deadline that moves on costs nothing: the call rings once too early and is made anew for the rest."""
    made = []
    later = bench.clock.callLater
    bench.clock.callLater = lambda *a, **k: made.append(a) or later(*a, **k)
    for _ in range(1000):
        bench.machine.deadline = bench.clock.seconds() + 10
        bench.receive(b"x")
        bench.clock.advance(0.009)
    assert len(made) == 1
    bench.clock.advance(1)
    assert len(made) == 2
    assert not [call for call in bench.machine.calls if call[0] == "tick"]
    bench.clock.advance(8.991)
    assert [call for call in bench.machine.calls if call[0] == "tick"] == [("tick", pytest.approx(118.991))]


def test_a_deadline_that_is_gone_rings_no_bell(bench: Bench) -> None:
    """A settled message leaves the delayed call behind, and it does nothing."""
    bench.machine.deadline = 110.0
    bench.receive(b"x")
    bench.machine.deadline = None
    bench.link.settle(1, YES)
    bench.clock.advance(60)
    assert not [call for call in bench.machine.calls if call[0] == "tick"]
    assert bench.clock.getDelayedCalls() == []


@given(st.lists(st.tuples(st.floats(0, 5), st.none() | st.floats(0, 40)), max_size=20))
def test_a_tick_comes_when_it_is_due(steps: list[tuple[float, float | None]]) -> None:
    """However the deadline moves, the machine is ticked as soon as it has passed, and never early."""
    bench = Bench()
    for pause, deadline in [*steps, (50.0, None)]:
        due, before = bench.machine.deadline, len(bench.machine.calls)
        bench.clock.advance(pause)
        ticks = [call for call in bench.machine.calls[before:] if call[0] == "tick"]
        assert bool(ticks) == (due is not None and due <= bench.clock.seconds())
        assert not ticks or ticks[0][1] >= (due or 0)
        bench.machine.deadline = None if deadline is None else bench.clock.seconds() + deadline
        bench.receive(b"x")
        assert len(bench.clock.getDelayedCalls()) <= 1


def test_the_end_is_told_after_all_else(bench: Bench) -> None:
    """What the machine says at the end comes before closed; nothing is written, nothing rings any more."""
    bench.machine.deadline = 110.0
    bench.receive(b"x")
    bench.lose()
    assert bench.handler.calls[2:] == [("event", Abandoned("closed")), ("closed", "Connection was closed cleanly.")]
    assert bench.transport.value() == b""
    assert bench.clock.getDelayedCalls() == []
    assert bench.siblings == set()


def test_a_closed_link_settles_nothing_and_fails_what_is_sent(bench: Bench) -> None:
    """The store may answer after the connection is gone; what nobody gets is told as failed."""
    bench.lose()
    before = list(bench.machine.calls)
    bench.link.settle(1, YES)
    bench.link.hold()
    bench.link.unhold()
    bench.link.close("late")
    bench.link.drop("late")
    bench.link.send(5, b"x")
    assert bench.machine.calls == before
    assert bench.handler.calls[-1] == ("event", Failed(5, "closed"))


def test_hold_stops_reading_once(bench: Bench) -> None:
    """Hold and unhold reach machine and transport once, however often they are said."""
    bench.link.hold()
    bench.link.hold()
    assert bench.transport.producerState == "paused"
    bench.link.unhold()
    bench.link.unhold()
    assert bench.transport.producerState == "producing"
    assert bench.machine.calls == [("pause",), ("resume",)]


def test_close_waits_for_what_is_written_but_not_for_ever(bench: Bench) -> None:
    """A peer that reads no more is cut off after two seconds; the reason given here is the one that is told."""
    bench.link.close("stopping")
    bench.link.close("again")
    assert (bench.transport.disconnecting, bench.transport.disconnected) == (True, False)
    bench.clock.advance(CLOSE_TIME_S)
    assert bench.transport.disconnected
    bench.lose()
    assert bench.handler.calls[-1] == ("closed", "stopping")
    assert bench.clock.getDelayedCalls() == []


def test_drop_is_at_once(bench: Bench) -> None:
    """A dropped connection does not wait for its buffer."""
    bench.link.drop("no answer in time")
    assert bench.transport.disconnected
    bench.lose()
    assert bench.handler.calls[-1] == ("closed", "no answer in time")


def test_a_machine_may_close(bench: Bench) -> None:
    """Close closes the connection and gives the reason; the handler hears it as closed alone."""
    bench.machine.says = [Write(b"bye"), Close("flood")]
    bench.receive(b"x")
    assert bench.transport.disconnecting
    bench.lose()
    assert bench.handler.calls == [("opened",), ("event", Abandoned("closed")), ("closed", "flood")]


def test_a_fault_of_the_handler_drops_this_link_alone() -> None:
    """It is logged, the caller goes on, and the peer will send again what was not acknowledged."""

    def fault(link: WireProtocol, event: Event) -> None:
        if isinstance(event, Received):
            raise ZeroDivisionError

    bench = Bench(Handler(fault))
    with capturedLogs() as logs:
        bench.receive(b"x")
    assert [log["log_failure"].type for log in logs] == [ZeroDivisionError]
    assert bench.transport.disconnected
    bench.lose()
    assert bench.handler.calls[-1] == ("closed", "a fault in labbridge")


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (error.ConnectionDone(), "Connection was closed cleanly."),
        (error.ConnectionLost(), "Connection to the other side was lost in a non-clean fashion."),
        (OSError("gone"), "gone"),
    ],
)
def test_the_end_of_a_connection_has_a_reason(bench: Bench, reason: Exception, why: str) -> None:
    """A person reads why."""
    bench.link.twisted.connectionLost(Failure(reason))
    assert bench.handler.calls[-1] == ("closed", why)


@pytest.mark.parametrize("does", ["hears", "says"])
def test_an_idle_link_is_closed_and_a_busy_one_is_not(does: str) -> None:
    """Idle is who hears nothing and is told nothing for the whole time; the reason says so."""
    bench = Bench(idle_time=60.0)
    for _ in range(10):
        bench.clock.advance(59)
        if does == "hears":
            bench.receive(b"x")
        else:
            bench.link.settle(1, YES)
    assert not bench.transport.disconnecting
    bench.clock.advance(59.9)
    assert not bench.transport.disconnecting
    bench.clock.advance(0.1)
    assert bench.transport.disconnecting
    bench.lose()
    assert bench.handler.calls[-1] == ("closed", "idle")
    assert bench.clock.getDelayedCalls() == []


# -- a real socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(loop: Loop) -> Iterator[tuple[WireProtocol, socket.socket, Handler]]:
    """A link over loopback, and its peer's socket."""
    handler = Handler()
    listener = Listener(loop, "127.0.0.1", 0, Script, handler)
    listener.start()
    with socket.create_connection(("127.0.0.1", listener.port)) as peer:
        loop.until(lambda: handler.links)
        yield handler.links[0], peer, handler


def test_an_answer_leaves_without_a_turn_of_the_reactor(pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """While nothing is buffered, what is written is in the socket when the call returns."""
    link, peer, _ = pair
    link.settle(1, YES)
    peer.settimeout(5)
    assert peer.recv(100) == b"ack1"


def test_nothing_is_reordered_when_the_peer_reads_slowly(loop: Loop, pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """Small writes behind a large one wait for it; when all has left, writing is direct again."""
    link, peer, _ = pair
    chunks = [bytes([number % 256]) * size for number, size in enumerate([1, 3_000_000, 3, 70_000, 0, 5] * 2)]
    for chunk in chunks:
        link.send(1, chunk)
    assert read_all(peer, loop, sum(map(len, chunks))) == b"".join(chunks)
    link.settle(9, YES)
    peer.settimeout(5)
    assert peer.recv(100) == b"ack9"


def test_close_delivers_what_is_buffered_first(loop: Loop, pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """The peer gets every byte, then the end."""
    link, peer, handler = pair
    link.send(1, bytes(3_000_000))
    link.close("stopping")
    assert len(read_all(peer, loop, 3_000_000)) == 3_000_000
    loop.until(lambda: ("closed", "stopping") in handler.calls)
    peer.settimeout(5)
    assert peer.recv(1) == b""


def test_writing_to_a_peer_that_is_gone_ends_the_link(loop: Loop, pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """A write that fails raises nothing; the link closes."""
    link, peer, handler = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    for _ in range(3):
        link.send(1, b"x" * 100)
    loop.until(lambda: handler.calls[-1][0] == "closed")
    link.settle(1, YES)


def test_a_held_link_reads_nothing_until_it_is_unheld(loop: Loop, pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """What the peer sends meanwhile waits in the kernel."""
    link, peer, handler = pair
    link.hold()
    peer.sendall(b"wait")
    for _ in range(5):
        loop.iterate(0.01)
    assert handler.received == b""
    link.unhold()
    loop.until(lambda: handler.received == b"wait")


def test_a_link_sends_at_once_and_notices_a_dead_peer(pair: tuple[WireProtocol, socket.socket, Handler]) -> None:
    """Nagle's algorithm is off, keep-alive is on and short."""
    own = pair[0].twisted.transport.getHandle()
    assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_a_link_that_is_held_is_not_idle() -> None:
    """We do not read it: the idle time counts from when it is read again."""
    bench = Bench(idle_time=60.0)
    bench.link.hold()
    for _ in range(10):
        bench.clock.advance(59)
    assert not bench.transport.disconnecting
    bench.link.unhold()
    bench.clock.advance(59.9)
    assert not bench.transport.disconnecting
    bench.clock.advance(60)
    assert bench.transport.disconnecting
