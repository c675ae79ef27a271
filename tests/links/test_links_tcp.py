"""Listeners admit and refuse; connectors come back."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links_support import Handler, Script
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from labbridge.links import retry
from labbridge.links.retry import State, wait
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Connector, Listener, ListenError
from labbridge.wire.events import Answer, Event, Received
from tests.loop import Loop
from tests.support import free_ports

REMEDY = "choose a port that is free, from 1024 up, and an address of this machine"


def listener(loop: Loop, handler: Handler, **more: object) -> Listener:
    """A listener on a free port, started."""
    made = Listener(loop, "127.0.0.1", *free_ports(1), Script, handler, **more)  # type: ignore[arg-type]
    made.start()
    return made


def connect(to: Listener) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", to.port))
    peer.settimeout(5)
    return peer


def settle(link: WireProtocol, event: Event) -> None:
    """What a store does that is never slow."""
    if isinstance(event, Received):
        link.settle(event.token, Answer(True))


def test_a_listener_makes_a_link_for_each_peer(loop: Loop) -> None:
    """Bytes of two peers reach two machines; each end is told."""
    handler = Handler(settle)
    door = listener(loop, handler)
    with connect(door) as one, connect(door) as other:
        one.sendall(b"one")
        other.sendall(b"two")
        loop.until(lambda: sorted(handler.received) == sorted(b"onetwo"))
        assert len(door.links) == 2
        assert {link.peer for link in door.links} == {f"127.0.0.1:{peer.getsockname()[1]}" for peer in (one, other)}
        assert (one.recv(10), other.recv(10)) == (b"ack1", b"ack1")
    loop.until(lambda: not door.links)
    assert handler.calls.count(("closed", "Connection was closed cleanly.")) == 2


def test_a_peer_that_is_not_allowed_is_closed_at_once(loop: Loop) -> None:
    """It gets no byte and makes no link; the handler hears who it was."""
    handler = Handler()
    door = listener(loop, handler, allow=["192.168.10.0/24", "127.0.0.2"])
    with connect(door) as peer:
        loop.until(lambda: handler.calls)
        assert peer.recv(1) == b""
    assert handler.calls == [("refused", "127.0.0.1", "not allowed")]


def test_connections_are_limited(loop: Loop) -> None:
    """One too many is turned away; when another has gone there is room again."""
    handler = Handler()
    door = listener(loop, handler, max_connections=1)
    with connect(door) as first:
        loop.until(lambda: door.links)
        with connect(door) as second:
            loop.until(lambda: ("refused", "127.0.0.1", "too many connections") in handler.calls)
            assert second.recv(1) == b""
        first.close()
        loop.until(lambda: not door.links)
        with connect(door):
            loop.until(lambda: door.links)


@pytest.mark.parametrize(
    ("peer", "allow", "admitted"),
    [
        (IPv4Address("TCP", "127.0.0.1", 1), ["127.0.0.0/8"], True),
        (IPv6Address("TCP", "::1", 1), ["::1/128"], True),
        (IPv6Address("TCP", "::ffff:10.1.2.3", 1), ["10.0.0.0/8"], True),
        (IPv6Address("TCP", "::ffff:11.1.2.3", 1), ["10.0.0.0/8", "::/96"], False),
        (IPv6Address("TCP", "fe80::1%eth0", 1), ["fe80::/10"], True),
        (IPv4Address("TCP", "10.1.2.3", 1), [], False),
    ],
)
def test_the_allow_list_knows_both_families(peer: IPv4Address | IPv6Address, allow: list[str], admitted: bool) -> None:
    """An IPv4 peer of an IPv6 listener counts as IPv4; an empty list admits nobody."""
    reactor = MemoryReactorClock()
    Listener(reactor, "::", 5001, Script, Handler(), allow=allow).start()
    assert (reactor.tcpServers[0][1].buildProtocol(peer) is not None) == admitted


def test_a_taken_port_is_told_with_its_address(loop: Loop) -> None:
    """The message says what, where, and what to do."""
    port = listener(loop, Handler()).port
    with pytest.raises(ListenError) as caught:
        Listener(loop, "127.0.0.1", port, Script, Handler()).start()
    assert str(caught.value) == (f"cannot listen on 127.0.0.1:{port}: Address already in use - {REMEDY}")


def test_an_address_of_another_machine_is_told(loop: Loop) -> None:
    """One can only listen on one's own addresses."""
    with pytest.raises(ListenError) as caught:
        Listener(loop, "192.0.2.1", 5001, Script, Handler()).start()
    assert str(caught.value) == (f"cannot listen on 192.0.2.1:5001: Cannot assign requested address - {REMEDY}")


def test_a_stopped_listener_leaves_open_links_until_they_are_closed(loop: Loop) -> None:
    """What is in flight can be settled between stop and close; the port is free for the next."""
    handler = Handler()
    door = listener(loop, handler)
    with connect(door) as peer:
        loop.until(lambda: door.links)
        door.stop()
        loop.iterate(0)
        with pytest.raises(ConnectionRefusedError):
            connect(door)
        peer.sendall(b"still here")
        loop.until(lambda: handler.received == b"still here")
        (link,) = door.links
        link.close("stopping")
        loop.until(lambda: handler.calls[-1] == ("closed", "stopping"))
        assert peer.recv(1) == b""
    door.stop()
    Listener(loop, "127.0.0.1", door.port, Script, handler).start()


# -- connectors ----------------------------------------------------------------------------------------------------


class Hospital:
    """A connector on a reactor in memory; ``states`` is what its owner hears."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.states: list[State] = []
        self.handler = Handler()
        self.connector = Connector(self.reactor, "10.0.0.9", 6661, Script, self.handler, self.states.append)
        self.connector.start()

    @property
    def attempts(self) -> int:
        return len(self.reactor.tcpClients)

    def fail(self) -> None:
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))

    def accept(self) -> None:
        self.twisted = self.reactor.tcpClients[-1][2].buildProtocol(IPv4Address("TCP", "10.0.0.9", 6661))
        self.twisted.makeConnection(StringTransport())

    def lose(self) -> None:
        reason = Failure(error.ConnectionDone())
        self.twisted.connectionLost(reason)
        self.reactor.tcpClients[-1][2].clientConnectionLost(None, reason)


@pytest.fixture
def _longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance always gives the longest wait."""
    monkeypatch.setattr(retry, "uniform", max)


@pytest.mark.usefixtures("_longest")
def test_a_connector_tries_again_and_later_each_time() -> None:
    """0.5 to 30 s, doubling; the owner hears of each failure."""
    his = Hospital()
    waits = []
    for _ in range(8):
        his.fail()
        (call,) = his.reactor.getDelayedCalls()
        waits.append(call.getTime() - his.reactor.seconds())
        his.reactor.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert his.attempts == 9
    assert his.states[0] == State(False, 1, "Connection was refused by other side.")
    assert [state.failures for state in his.states] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_outage_of_months_is_survived() -> None:
    """Attempts go on without end, and their number breaks nothing."""
    his = Hospital()
    for _ in range(5000):
        his.fail()
        his.reactor.advance(30)
    assert his.attempts == 5001


def test_a_connection_ends_the_outage_and_its_loss_begins_the_next() -> None:
    """The owner hears connected, then down; a peer that spoke is tried again soon."""
    his = Hospital()
    his.fail()
    his.reactor.advance(1)
    his.accept()
    assert his.states[-1] == State(True, 1)
    assert len(his.connector.links) == 1
    his.twisted.dataReceived(b"AA")
    his.reactor.advance(5)
    his.lose()
    assert his.states[-1] == State(False, 1, "Connection was closed cleanly.")
    assert his.connector.links == set()
    his.reactor.advance(1)
    assert his.attempts == 3


def test_a_peer_that_only_accepts_and_closes_is_not_hammered() -> None:
    """Without a byte from the peer, a short connection counts as one more failure; a long one does not."""
    his = Hospital()
    for failures in (1, 2, 3):
        his.accept()
        his.lose()
        assert his.states[-1].failures == failures
        his.reactor.advance(30)
    his.accept()
    his.reactor.advance(30)
    his.lose()
    assert his.states[-1].failures == 1


def test_a_stopped_connector_waits_for_nothing() -> None:
    """Stopped between two attempts, it tries no more and leaves no delayed call."""
    his = Hospital()
    his.fail()
    his.connector.stop()
    his.reactor.advance(60)
    assert his.attempts == 1
    assert his.reactor.getDelayedCalls() == []


def test_a_stopped_connector_keeps_its_link_until_it_is_closed(loop: Loop) -> None:
    """After stop the open link still carries; after close it is gone, and no other is made."""
    here, there = Handler(), Handler(settle)
    door = listener(loop, there)
    connector = Connector(loop, "127.0.0.1", door.port, Script, here, lambda state: None)
    connector.start()
    loop.until(lambda: door.links)
    connector.stop()
    here.links[0].send(1, b"last")
    loop.until(lambda: there.received == b"last")
    here.links[0].close("stopping")
    loop.until(lambda: here.calls[-1] == ("closed", "stopping"))
    loop.until(lambda: not door.links)
    connector.stop()  # once more does no harm


def test_a_connector_stopped_while_it_connects_gives_up(loop: Loop) -> None:
    """An attempt under way is ended."""
    connector = Connector(loop, "192.0.2.1", 6661, Script, Handler(), lambda state: None)
    connector.start()
    connector.stop()
    loop.iterate(0)
    assert not [call for call in loop.getDelayedCalls() if call.active()]


def test_a_peer_that_comes_late_is_found(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side may be down when we start; once it is there, bytes flow both ways."""
    [port] = free_ports(1)
    states: list[State] = []
    here = Handler()
    there = Handler(lambda link, event: link.settle(1, Answer(True)) if isinstance(event, Received) else None)
    monkeypatch.setattr(retry, "uniform", lambda low, high: 0.02)
    connector = Connector(loop, "127.0.0.1", port, Script, here, states.append)
    connector.start()
    loop.until(lambda: len(states) >= 2)
    assert states[0] == State(False, 1, "Connection was refused by other side: 111: Connection refused.")
    Listener(loop, "127.0.0.1", port, Script, there).start()
    loop.until(lambda: states[-1].connected)
    here.links[0].send(1, b"result")
    loop.until(lambda: here.received == b"ack1")
    assert there.received == b"result"
    connector.stop()


@given(st.integers(1, 10**6))
def test_a_wait_is_between_half_a_second_and_thirty(failures: int) -> None:
    """However many failures, and wherever chance falls."""
    assert 0.5 <= wait(failures) <= 30.0
