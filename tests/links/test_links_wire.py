"""Links with the machines of wire in them, over loopback."""

import pytest
from links_support import Handler, read_all
from test_links_tcp import connect
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Connector, Listener
from labbridge.wire import Lis01Link, Lis01Settings, MllpLink, MllpSettings
from labbridge.wire.events import Answer, Event, Overdue, Part, Received, Sent
from tests.loop import Loop


def store(link: WireProtocol, event: Event) -> None:
    """Accepts everything; an MLLP message gets its own text in lower case as the reply."""
    if isinstance(event, Part):
        link.settle(event.token, Answer(True))
    if isinstance(event, Received):
        mllp = isinstance(link.machine, MllpLink)
        link.settle(event.token, Answer(True, (event.payload.lower(),) if mllp else ()))


@pytest.mark.parametrize("size", [10_000, 1, *range(2, 10)])
def test_mllp_messages_are_answered_in_any_segmentation(loop: Loop, size: int) -> None:
    """Twenty messages cut at any place are twenty messages, answered in their order."""
    handler = Handler(store)
    door = Listener(loop, "127.0.0.1", 0, lambda: MllpLink(MllpSettings()), handler)
    door.start()
    stream = b"".join(b"\x0bMSH|%d\r\x1c\r" % number for number in range(20))
    with connect(door) as peer:
        for at in range(0, len(stream), size):
            peer.sendall(stream[at : at + size])
            loop.iterate(0)
        assert read_all(peer, loop, len(stream)) == stream.lower()


def test_two_links_of_lis01_carry_a_message_from_one_to_the_other(loop: Loop) -> None:
    """An instrument that connects sends to a host that listens; each frame is settled before the next comes."""
    host, instrument = Handler(store), Handler()
    door = Listener(loop, "127.0.0.1", 0, lambda: Lis01Link(Lis01Settings()), host)
    door.start()
    settings = Lis01Settings(role="instrument")
    out = Connector(loop, "127.0.0.1", door.port, lambda: Lis01Link(settings), instrument, lambda state: None)
    out.start()
    loop.until(lambda: instrument.links)
    message = b"H|\\^&\rP|1\rO|1|SP1\rR|1|^^^GLU|5.6\rL|1|N\r"
    instrument.links[0].send(1, message)
    loop.until(lambda: ("event", Sent(1)) in instrument.calls)
    assert host.received == message
    out.stop()


class Memory:
    """A link with a machine of wire on a clock and a transport in memory."""

    def __init__(self, machine: Machine) -> None:
        self.clock = Clock()
        self.handler = Handler()
        self.transport = StringTransport()
        self.link = WireProtocol(machine, self.handler, self.clock, set())
        self.link.twisted.makeConnection(self.transport)

    def said(self, data: bytes = b"") -> bytes:
        """What the link writes when these bytes come."""
        self.transport.clear()
        self.link.twisted.dataReceived(data)
        written: bytes = self.transport.value()
        return written


def test_a_busy_lis01_host_goes_on_reading_and_says_so() -> None:
    """An ENQ that comes while we are held is answered with NAK, and with ACK afterwards."""
    bench = Memory(Lis01Link(Lis01Settings()))
    bench.link.hold()
    assert bench.transport.producerState == "producing"
    assert bench.said(b"\x05") == b"\x15"  # conformance: A01
    bench.link.unhold()
    assert bench.said(b"\x05") == b"\x06"


def test_a_store_that_does_not_answer_does_not_let_the_analyzer_wait() -> None:
    """The link's own clock makes the refusal: NAK, or the refusing reply, at the time of the settings."""
    astm = Memory(Lis01Link(Lis01Settings()))
    assert astm.said(b"\x05") == b"\x06"
    assert astm.said(b"\x021H|\\^&\r\x03E5\r\n") == b""
    astm.clock.advance(12.0)
    assert astm.transport.value() == b"\x15"
    hl7 = Memory(MllpLink(MllpSettings(refusal=lambda payload: b"AE")))
    hl7.said(b"\x0bMSH|\r\x1c\r")
    hl7.clock.advance(10.0)
    assert hl7.transport.value() == b"\x0bAE\x1c\r"
    for bench in (astm, hl7):
        assert [type(call[-1]) for call in bench.handler.calls][-1] is Overdue
