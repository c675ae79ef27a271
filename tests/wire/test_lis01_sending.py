"""The sending side of LIS01, host and instrument."""

from typing import Any

import pytest

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire.events import Abandoned, Failed, LocalProtocolError, Note, Part, Received, Sent, Write
from tests.wire.replay import ACK, ENQ, EOT, HEADER, LAST, MESSAGE, NAK, YES, frame, payloads, play, session, written

FIRST, SECOND = frame(1, HEADER), frame(2, LAST)


def bidding(**settings: Any) -> Lis01Link:
    """A link that has bid for the line, to send two frames."""
    link = Lis01Link(Lis01Settings(**settings))
    assert link.send(9, HEADER + LAST, 0.0) == [Write(ENQ)]
    return link


def sending(**settings: Any) -> Lis01Link:
    """A link that has sent its first frame."""
    link = bidding(**settings)
    assert link.receive(ACK, 0.0) == [Write(FIRST)]
    return link


def test_a_message_is_sent_frame_by_frame() -> None:
    # conformance: A07 A08
    link = sending()
    assert link.receive(ACK, 0.0) == [Write(SECOND)]
    assert link.receive(ACK, 0.0) == [Write(EOT), Sent(9)]
    assert link.deadline is None
    assert link.send(10, HEADER + LAST, 1.0) == [Write(ENQ)]
    assert link.receive(ACK, 1.0) == [Write(FIRST)]


def test_messages_leave_in_the_order_in_which_they_were_given() -> None:
    link = sending()
    assert link.send(10, MESSAGE, 0.0) == []
    link.receive(ACK, 0.0)
    assert link.receive(ACK, 0.0) == [Write(EOT), Sent(9), Write(ENQ)]


def test_a_bid_without_answer_ends_after_15_seconds() -> None:
    # conformance: A02
    link = bidding()
    assert link.deadline == 15.0
    assert link.tick(14.9) == []
    assert link.tick(15.0) == [Write(EOT), Failed(9, "no reply in time")]
    assert link.deadline is None


def test_a_refused_bid_is_repeated_after_10_seconds() -> None:
    # conformance: A03
    link = bidding()
    assert link.receive(NAK, 1.0) == []
    assert link.deadline == 11.0
    assert link.tick(10.9) == []
    assert link.tick(11.0) == [Write(ENQ)]


def test_a_session_of_the_peer_does_not_shorten_the_wait_after_a_refused_bid() -> None:
    # conformance: A03
    link = bidding()
    link.receive(NAK, 1.0)
    assert payloads(play(link, session(MESSAGE), now=2.0)) == [MESSAGE]
    assert link.deadline == 11.0


def test_a_refused_bid_is_repeated_without_limit() -> None:
    # conformance: A03
    link = bidding()
    for attempt in range(20):
        link.receive(NAK, attempt * 10.0)
        assert link.tick(attempt * 10.0 + 10.0) == [Write(ENQ)]
    assert link.receive(ACK, 200.0) == [Write(FIRST)]


def test_in_contention_the_host_yields() -> None:
    # conformance: A04 A06
    link = bidding()
    assert written(link.receive(ENQ, 0.0)) == b""
    assert link.deadline == 20.0
    assert link.receive(ENQ, 1.0) == [Write(ACK)]
    told = play(link, frame(1, MESSAGE) + EOT, now=2.0)
    assert payloads(told) == [MESSAGE]
    assert told[-1] == Write(ENQ)


def test_in_contention_the_host_bids_again_when_the_instrument_stays_silent() -> None:
    # conformance: A06
    link = bidding()
    link.receive(ENQ, 0.0)
    assert link.tick(19.9) == []
    assert link.tick(20.0) == [Write(ENQ)]


def test_in_contention_the_instrument_bids_again_after_a_second() -> None:
    # conformance: A05
    link = bidding(role="instrument")
    assert [type(event) for event in link.receive(ENQ, 0.0)] == [Note]
    assert link.deadline == 1.0
    assert link.tick(1.0) == [Write(ENQ)]


def test_the_contention_time_is_a_setting() -> None:
    # conformance: A26
    link = bidding(contention_time=3.0)
    link.receive(ENQ, 0.0)
    assert link.deadline == 3.0


def test_a_busy_host_in_contention_refuses() -> None:
    link = bidding()
    link.pause()
    link.receive(ENQ, 0.0)
    assert link.receive(ENQ, 1.0) == [Write(NAK)]
    assert link.deadline == 20.0


def test_nak_resends_same_frame() -> None:
    # conformance: A15
    link = sending()
    link.receive(ACK, 0.0)
    assert link.receive(NAK, 1.0) == [Write(SECOND)]
    assert link.receive(ACK, 2.0) == [Write(EOT), Sent(9)]


@pytest.mark.parametrize("reply", [NAK, b"x", b"\x02", b"\x10"])
def test_six_refusals_of_a_frame_end_the_message(reply: bytes) -> None:
    # conformance: A15
    link = sending()
    for _ in range(5):
        assert link.receive(NAK, 1.0) == [Write(FIRST)]
    told = link.receive(reply, 1.0)
    assert [event for event in told if type(event) is not Note] == [Write(EOT), Failed(9, "the peer refused a frame too often")]


def test_refusals_are_counted_per_frame_and_their_number_is_a_setting() -> None:
    # conformance: A15 A26
    link = sending(refusals=3)
    link.receive(NAK, 0.0)
    link.receive(NAK, 0.0)
    link.receive(ACK, 0.0)
    assert link.receive(NAK, 0.0) == [Write(SECOND)]
    assert link.receive(NAK, 0.0) == [Write(SECOND)]
    assert [type(event) for event in link.receive(NAK, 0.0)] == [Write, Failed]


def test_a_burst_of_noise_counts_as_one_refusal() -> None:
    # conformance: A15
    link = sending()
    for byte in b"noise on the line":
        link.receive(bytes([byte]), 0.0)
    assert link.receive(ACK, 0.0) == [Write(SECOND)]


def test_carriage_return_and_line_feed_are_no_reply() -> None:
    link = sending()
    assert link.receive(b"\r\n", 0.0) == []
    assert link.receive(b"\n" + ACK + b"\r\n", 0.0) == [Write(SECOND)]


def test_what_came_before_a_frame_left_cannot_answer_it() -> None:
    assert sending().receive(ACK + ACK + ACK, 0.0) == [Write(SECOND)]


def test_a_frame_without_answer_ends_the_message_after_15_seconds() -> None:
    # conformance: A16
    link = sending()
    assert link.deadline == 15.0
    assert link.tick(15.0) == [Write(EOT), Failed(9, "no reply in time")]


def test_eot_in_reply_to_a_frame_accepts_it_and_asks_for_the_line() -> None:
    # conformance: A19
    link = sending()
    assert link.receive(EOT, 1.0) == [Write(SECOND)]
    assert link.receive(ACK, 2.0) == [Write(EOT), Sent(9)]
    assert link.send(10, MESSAGE, 3.0) == []
    assert link.deadline == 17.0
    assert payloads(play(link, session(MESSAGE), now=4.0)) == [MESSAGE]
    assert link.tick(16.9) == []
    assert link.tick(17.0) == [Write(ENQ)]


def test_a_peer_that_restarts_while_we_send_is_heard() -> None:
    link = sending()
    assert link.receive(ENQ, 1.0) == [Failed(9, "the peer began a session of its own"), Write(ACK)]
    assert payloads(play(link, frame(1, MESSAGE) + EOT, now=2.0)) == [MESSAGE]


def test_other_bytes_do_not_answer_a_bid() -> None:
    link = bidding()
    link.receive(b"x" + EOT, 1.0)
    assert link.deadline == 15.0


def test_a_message_waits_for_the_end_of_the_peers_session() -> None:
    link = Lis01Link(Lis01Settings())
    play(link, ENQ + FIRST)
    assert link.send(9, MESSAGE, 0.0) == []
    (received,) = link.receive(SECOND + EOT, 0.0)
    assert isinstance(received, Received)
    assert link.settle(received.token, YES, 0.0) == [Write(ACK), Write(ENQ)]


def test_without_a_checksum_none_is_sent() -> None:
    # conformance: A26
    link = bidding(checksum=False, frame_size=10)
    assert link.receive(ACK, 0.0) == [Write(b"\x021H|\\^&|||XA\x17\r\n")]


def test_what_no_frame_can_carry_is_our_mistake() -> None:
    # conformance: A21
    link = Lis01Link(Lis01Settings())
    with pytest.raises(LocalProtocolError, match="control character"):
        link.send(1, b"R|1|\x02", 0.0)
    assert link.deadline is None


def test_a_closed_connection_fails_what_was_to_be_sent() -> None:
    # conformance: A16 A24
    link = sending()
    link.send(10, MESSAGE, 0.0)
    assert link.closed(1.0) == [Failed(9, "the connection closed"), Failed(10, "the connection closed")]
    assert link.send(11, MESSAGE, 2.0) == [Failed(11, "the connection closed")]
    assert link.deadline is None
    assert link.tick(100.0) == []


def test_a_message_travels_from_instrument_to_host() -> None:
    # conformance: A08
    text = HEADER + b"".join(b"R|%d|x\r" % n for n in range(20)) + LAST
    instrument, host = Lis01Link(Lis01Settings(role="instrument", frame_size=5)), Lis01Link(Lis01Settings())
    to_host, told_host, told = written(instrument.send(1, text, 0.0)), [], []
    while to_host:
        heard = play(host, to_host)
        answered = instrument.receive(written(heard), 0.0)
        told_host += heard
        told += answered
        to_host = written(answered)
    assert payloads(told_host) == [text]
    assert told[-1] == Sent(1)
    assert not [event for event in told_host if isinstance(event, Abandoned)]
    assert [event for event in told_host if isinstance(event, Part)]
