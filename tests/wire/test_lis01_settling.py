"""LIS01 when the store is slow, busy or broken, and the timers of the receiving side."""

from typing import Any

import pytest

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire.events import Abandoned, Answer, Close, LocalProtocolError, Note, Overdue, Part, Received, Write
from tests.wire.replay import (
    ACK,
    ENQ,
    EOT,
    HEADER,
    LAST,
    MESSAGE,
    NAK,
    NO,
    PATIENT,
    YES,
    frame,
    only,
    payloads,
    play,
    session,
    written,
)

WHOLE = frame(1, MESSAGE)


def waiting(stream: bytes = WHOLE, **settings: Any) -> Lis01Link:
    """A host that took all but the last frame of ``stream``, and now waits for the store."""
    link = Lis01Link(Lis01Settings(**settings))
    *first, last = stream.split(b"\x02")[1:]
    play(link, ENQ)
    for part in first:
        play(link, b"\x02" + part)
    link.receive(b"\x02" + last, 0.0)
    return link


def test_a_slow_store_makes_the_link_refuse_in_time() -> None:
    # conformance: A18
    link = waiting()
    assert link.deadline == 12.0
    assert link.tick(11.9) == []
    assert link.tick(12.0) == [Write(NAK), Overdue(1)]


def test_the_same_frame_again_is_stored_once_and_acknowledged_when_it_settles() -> None:
    # conformance: A13 A18
    link = waiting()
    link.tick(12.0)
    assert link.receive(WHOLE, 12.1) == []
    assert link.deadline == 24.1
    assert link.settle(1, YES, 13.0) == [Write(ACK)]


def test_a_frame_settled_after_its_refusal_is_acknowledged_when_it_comes_again() -> None:
    # conformance: A13 A18
    link = waiting()
    link.tick(12.0)
    assert link.settle(1, YES, 12.5) == []
    assert play(link, WHOLE, now=13.0) == [Write(ACK)]
    assert play(link, EOT, now=13.0) == []


def test_a_frame_not_stored_after_its_refusal_comes_up_anew() -> None:
    link = waiting()
    link.tick(12.0)
    assert link.settle(1, NO, 12.5) == []
    assert link.receive(WHOLE, 13.0) == [Received(2, MESSAGE)]
    assert link.settle(2, NO, 13.0) == [Write(NAK)]


def test_what_comes_while_the_late_frame_is_unsettled_is_refused_in_time() -> None:
    # conformance: A18
    link = waiting(frame(1, HEADER))
    link.tick(12.0)
    for now in (13.0, 26.0):
        assert link.receive(frame(2, LAST), now) == []
        assert link.deadline == now + 12.0
        assert link.tick(now + 12.0) == [Write(NAK), Overdue(1)]
        assert link.deadline is None
    assert link.settle(1, YES, 50.0) == []
    told = play(link, frame(1, HEADER) + frame(2, LAST), now=51.0)
    assert payloads(told) == [HEADER + LAST]


def test_the_frame_after_the_late_one_is_heard_when_that_is_settled() -> None:
    link = waiting(frame(1, HEADER))
    link.tick(12.0)
    link.receive(frame(2, LAST), 13.0)
    assert link.settle(1, YES, 14.0) == [Received(2, HEADER + LAST)]


def test_a_slow_repeat_of_a_late_frame_is_not_interrupted() -> None:
    # conformance: A18
    link = waiting()
    link.tick(12.0)
    for second, byte in enumerate(WHOLE, 13):
        assert link.tick(float(second)) == link.receive(bytes([byte]), float(second)) == []
    assert link.settle(1, YES, 13.0 + len(WHOLE)) == [Write(ACK)]


def test_a_repeat_that_has_not_come_whole_is_acknowledged_when_it_has() -> None:
    # conformance: A13
    link = waiting()
    link.tick(12.0)
    link.receive(WHOLE[:9], 13.0)
    assert link.settle(1, YES, 14.0) == []
    assert link.receive(WHOLE[9:], 15.0) == [Write(ACK)]


def test_a_frame_that_was_not_stored_shares_its_refusal_with_a_repeat() -> None:
    # conformance: A13
    link = waiting()
    assert link.receive(WHOLE, 1.0) == []
    assert link.settle(1, NO, 2.0) == [Received(2, MESSAGE)]
    assert link.settle(2, YES, 3.0) == [Write(ACK)]


def test_without_an_answer_time_the_link_waits_for_the_store() -> None:
    assert waiting(answer_time=None).deadline is None


def test_a_late_frame_whose_session_ends_leaves_its_message_incomplete() -> None:
    link = waiting(frame(1, HEADER) + frame(2, PATIENT))
    link.tick(12.0)
    assert link.receive(EOT, 12.5) == link.receive(ENQ, 13.0) == []
    assert [type(event) for event in link.settle(2, YES, 14.0)] == [Abandoned, Write]
    assert payloads(play(link, frame(1, MESSAGE), now=14.0)) == [MESSAGE]


def test_a_late_last_frame_whose_session_ends_is_still_a_message() -> None:
    link = waiting(frame(1, HEADER) + frame(2, LAST))
    link.tick(12.0)
    assert link.receive(EOT, 12.5) == []
    assert link.settle(2, YES, 14.0) == []
    assert link.deadline is None


def test_a_late_last_frame_that_is_never_stored_leaves_its_message_incomplete() -> None:
    link = waiting(frame(1, HEADER) + frame(2, LAST))
    link.tick(12.0)
    link.receive(EOT, 12.5)
    assert [type(event) for event in link.settle(2, NO, 14.0)] == [Abandoned]


def test_a_restart_while_the_store_is_slow_is_heard_when_it_has_answered() -> None:
    link = waiting()
    assert link.receive(ENQ, 5.0) == []
    assert link.receive(ENQ, 6.0) == []
    assert link.settle(1, YES, 7.0) == [Write(ACK)]
    assert payloads(play(link, frame(1, MESSAGE) + EOT, now=7.0)) == [MESSAGE]


def test_a_restart_while_the_store_is_slow_is_refused_in_time() -> None:
    link = waiting(frame(1, HEADER))
    assert link.receive(EOT + ENQ, 5.0) == []
    assert link.tick(12.0) == [Write(NAK), Overdue(1)]
    assert link.receive(ENQ, 18.0) == []
    assert link.deadline == 30.0
    link.pause()
    assert link.settle(1, NO, 19.0) == [Write(NAK)]


def test_a_restart_of_a_late_session_is_held() -> None:
    link = waiting(frame(1, HEADER))
    link.tick(12.0)
    assert link.receive(ENQ, 12.5) == []
    assert [type(event) for event in link.settle(1, YES, 13.0)] == [Abandoned, Write]


def test_a_bid_after_a_frame_and_its_repeat_gets_the_only_answer() -> None:
    link = waiting()
    assert link.receive(WHOLE + EOT, 3.0) == link.receive(ENQ, 3.0) == []
    assert link.settle(1, YES, 4.0) == [Write(ACK)]
    assert link.receive(frame(1, MESSAGE), 5.0) == [Received(2, MESSAGE)]


def test_a_keepalive_while_the_store_is_slow_leaves_the_line_idle() -> None:
    link = waiting()
    link.receive(EOT + ENQ, 5.0)
    link.receive(EOT, 5.1)
    assert set(link.settle(1, YES, 6.0)) == {Write(ACK)}
    assert link.deadline is None


def test_a_message_ended_by_a_header_is_settled_before_the_next_begins() -> None:
    link = waiting(frame(1, HEADER) + frame(2, MESSAGE))
    assert link.tick(12.0) == [Write(NAK), Overdue(2)]
    assert link.receive(frame(2, MESSAGE), 13.0) == []
    assert link.settle(2, YES, 14.0) == [Received(3, MESSAGE)]
    assert link.settle(3, YES, 14.0) == [Write(ACK)]


def test_a_message_ended_by_a_header_may_be_settled_late() -> None:
    link = waiting(frame(1, HEADER) + frame(2, MESSAGE))
    link.tick(12.0)
    assert link.settle(2, YES, 13.0) == []
    assert link.receive(frame(2, MESSAGE), 14.0) == [Received(3, MESSAGE)]


def test_a_confirmed_message_that_cannot_be_stored_is_incomplete() -> None:
    link = waiting(frame(1, HEADER) + frame(2, MESSAGE))
    told = link.settle(2, NO, 1.0)
    assert [type(event) for event in told] == [Abandoned, Received]
    link = waiting(frame(1, HEADER) + frame(2, MESSAGE))
    link.tick(12.0)
    assert [type(event) for event in link.settle(2, NO, 13.0)] == [Abandoned]


def test_a_message_ended_by_eot_that_cannot_be_stored_is_incomplete() -> None:
    link = waiting(frame(1, HEADER))
    link.settle(1, YES, 0.0)
    (received,) = link.receive(EOT, 0.0)
    assert received == Received(2, HEADER)
    assert [type(event) for event in link.settle(2, NO, 1.0)] == [Abandoned]


def test_a_busy_host_refuses_new_sessions_alone() -> None:
    # conformance: A01
    link = Lis01Link(Lis01Settings())
    assert link.pause() == []
    assert link.receive(ENQ, 0.0) == [Write(NAK)]
    assert link.resume() == []
    play(link, ENQ + frame(1, HEADER))
    link.pause()
    assert payloads(play(link, frame(2, LAST))) == [HEADER + LAST]
    assert written(play(link, ENQ)) == NAK
    assert link.deadline is None


def test_a_restart_of_a_busy_host_abandons_and_refuses() -> None:
    link = Lis01Link(Lis01Settings())
    play(link, ENQ + frame(1, HEADER))
    link.pause()
    assert [type(event) for event in link.receive(ENQ, 0.0)] == [Abandoned, Write]


@pytest.mark.parametrize("stream", [b"", frame(1, HEADER), frame(1, HEADER) + b"\x022R|"])
def test_a_sender_that_falls_silent_loses_its_session(stream: bytes) -> None:
    # conformance: A17
    link = Lis01Link(Lis01Settings())
    play(link, ENQ + stream, now=5.0)
    assert link.deadline == 35.0
    assert link.tick(34.9) == []
    told = link.tick(35.0)
    assert len(only(Abandoned, told)) == bool(stream)
    assert only(Note, told)
    assert link.deadline is None
    assert payloads(play(link, session(MESSAGE), now=36.0)) == [MESSAGE]


def test_the_receive_timer_is_a_setting() -> None:
    # conformance: A17 A26
    link = Lis01Link(Lis01Settings(receive_time=15.0))
    play(link, ENQ)
    assert link.deadline == 15.0


def test_a_slow_line_is_not_taken_for_silence() -> None:
    link = Lis01Link(Lis01Settings())
    play(link, ENQ)
    for second in range(0, 100, 20):
        assert link.tick(float(second)) == []
        link.receive(b"\x021H" if not second else b"x" * 100, float(second))
    assert link.deadline == 110.0


def test_a_late_session_that_falls_silent_ends() -> None:
    link = waiting(frame(1, HEADER))
    link.tick(12.0)
    assert link.settle(1, YES, 50.0) == []
    assert link.deadline == 80.0
    assert [type(event) for event in link.tick(80.0)] == [Note, Abandoned]


def test_an_oversize_message_whose_store_is_slow_is_refused_in_time() -> None:
    link = waiting(frame(1, HEADER) + frame(2, b"x" * 60), max_message=50)
    assert [type(event) for event in link.tick(12.0)] == [Write, Overdue]
    assert link.settle(2, NO, 13.0) == []
    assert written(play(link, frame(2, b"x" * 60), now=14.0)) == NAK


@pytest.mark.parametrize(("last", "answer", "abandoned"), [(PATIENT, YES, 1), (LAST, YES, 0), (LAST, NO, 1)])
def test_what_closes_before_it_is_settled(last: bytes, answer: Answer, abandoned: int) -> None:
    # conformance: A24
    link = waiting(frame(1, HEADER) + frame(2, last))
    told = link.closed(1.0)
    told += link.settle(2, answer, 2.0)
    assert len(only(Abandoned, told)) == abandoned
    assert not written(told)
    assert link.closed(3.0) == []


def test_a_peer_that_floods_while_its_frame_is_unsettled_is_cut_off() -> None:
    link = waiting(max_message=200)
    for _ in range(20):
        told = link.receive(b"x" * 20, 0.0)
        if told:
            break
    assert isinstance(told[-1], Close)
    assert link.receive(ENQ, 0.0) == []


def test_only_what_waits_can_be_settled() -> None:
    link = waiting()
    with pytest.raises(LocalProtocolError):
        link.settle(7, YES, 0.0)
    with pytest.raises(LocalProtocolError):
        link.settle(1, Answer(True, (b"x",)), 0.0)
    link.settle(1, YES, 0.0)
    with pytest.raises(LocalProtocolError):
        link.settle(1, YES, 0.0)


def test_parts_join_to_the_beginning_of_the_payload() -> None:
    link = Lis01Link(Lis01Settings())
    told = play(link, session(b"H|\\^&", b"P|1", b"L|1|N"))
    parts = b"".join(event.data for event in told if isinstance(event, Part))
    assert payloads(told)[0].startswith(parts)
