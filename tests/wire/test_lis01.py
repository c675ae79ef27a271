"""The receiving side of LIS01: sessions, frames, messages, and the traps that others fell into."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire import lis01_table as table
from labbridge.wire.events import Abandoned, Close, Note, Oversize, Part, Received, Stray, Write
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
    RESULT,
    SIZES,
    YES,
    frame,
    only,
    payloads,
    play,
    session,
    settled,
    written,
)

every_size = pytest.mark.parametrize("size", SIZES)


def host(**settings: Any) -> Lis01Link:
    return Lis01Link(Lis01Settings(**settings))


@every_size
def test_a_message_is_received_whole_and_every_frame_acknowledged(size: int) -> None:
    # conformance: A01 A07 A08
    told = play(host(), session(HEADER, PATIENT, RESULT, LAST), size)
    assert payloads(told) == [MESSAGE]
    assert [event.data for event in told if isinstance(event, Part)] == [HEADER, PATIENT, RESULT]
    assert written(told) == ACK * 5


def test_no_frame_is_acknowledged_before_it_is_settled() -> None:
    # conformance: A25
    link = host()
    link.receive(ENQ, 0.0)
    for number, text in enumerate((HEADER, PATIENT, LAST), 1):
        (event,) = link.receive(frame(number, text), 0.0)
        assert isinstance(event, Received if text is LAST else Part)
        assert link.settle(event.token, YES, 0.0) == [Write(ACK)]


def test_a_frame_that_was_not_stored_is_refused_and_sent_again() -> None:
    # conformance: A25
    link = host()
    play(link, ENQ)
    assert written(play(link, frame(1, HEADER), answer=NO)) == NAK
    told = play(link, frame(1, HEADER) + frame(2, LAST))
    assert written(told) == ACK * 2
    assert payloads(told) == [HEADER + LAST]


@every_size
def test_etb_split_mid_value(size: int) -> None:
    # conformance: B23
    told = play(host(), ENQ + frame(1, HEADER + b"R|1|^^^PLT|12", b"\x17") + frame(2, b"45|10*9/L\rL|1|N\r") + EOT, size)
    assert payloads(told) == [HEADER + b"R|1|^^^PLT|1245|10*9/L\r" + LAST]


@settings(deadline=None)
@given(st.integers(1, 20), st.sampled_from(SIZES))
def test_a_record_split_at_any_byte_joins_again(width: int, size: int) -> None:
    # conformance: B23
    pieces = [MESSAGE[at : at + width] for at in range(0, len(MESSAGE), width)]
    frames = [frame(n, text, b"\x03" if n == len(pieces) else b"\x17") for n, text in enumerate(pieces, 1)]
    assert payloads(play(host(), ENQ + b"".join(frames) + EOT, size)) == [MESSAGE]


@every_size
def test_etb_bad_checksum_first_frame(size: int) -> None:
    # conformance: A12
    link = host()
    good = frame(1, HEADER + b"R|1|^^^GLU|5.4", b"\x17")
    told = play(link, ENQ + good.replace(b"5.4", b"9.4"), size)
    assert written(told) == ACK + NAK
    assert not only(Part, told)
    told = play(link, good + frame(2, b"|mmol/L\rL|1|N\r") + EOT, size)
    assert payloads(told) == [HEADER + b"R|1|^^^GLU|5.4|mmol/L\r" + LAST]


@every_size
def test_lost_ack_same_frame_number(size: int) -> None:
    # conformance: A13
    link = host()
    told = play(link, ENQ + frame(1, HEADER) + frame(1, HEADER) + frame(2, LAST) + frame(2, LAST) + EOT, size)
    assert payloads(told) == [HEADER + LAST]
    assert len(only(Part, told)) == 1
    assert not only(Abandoned, told)


def test_a_repeat_after_the_answer_is_acknowledged_again() -> None:
    # conformance: A13
    link = host()
    play(link, ENQ + frame(1, HEADER))
    assert play(link, frame(1, HEADER)) == [Write(ACK)]


def test_a_repeat_before_the_answer_shares_it() -> None:
    # conformance: A13
    link = host()
    play(link, ENQ)
    (part,) = link.receive(frame(1, HEADER), 0.0)
    assert link.receive(frame(1, HEADER), 1.0) == []
    assert link.settle(1, YES, 2.0) == [Write(ACK)]
    assert isinstance(part, Part)


@every_size
def test_one_number_for_two_different_frames_keeps_both(size: int) -> None:
    told = play(host(), ENQ + frame(1, HEADER) + frame(2, b"R|1|a\r") + frame(2, b"R|1|b\r") + frame(3, LAST) + EOT, size)
    assert payloads(told) == [HEADER + b"R|1|a\rR|1|b\r" + LAST]
    assert len(only(Note, told)) == 1


@every_size
def test_frame_numbers_may_be_free_only_when_so_configured(size: int) -> None:
    # conformance: A14 A26
    texts = [HEADER, b"M|1\r", b"M|2\r", b"R|1\r", LAST]
    stream = ENQ + b"".join(frame(number, text) for number, text in zip((3, 1, 1, 4, 5), texts, strict=True))
    told = play(host(numbered=False), stream + frame(5, LAST) + EOT, size)
    assert payloads(told) == [b"".join(texts)]
    assert not only(Note, told)
    assert not payloads(play(host(), stream, size))


@every_size
def test_after_a_gap_no_number_is_used_twice(size: int) -> None:
    # conformance: A14
    link = host()
    told = play(link, ENQ + frame(1, HEADER) + frame(5, b"M|1\r") + frame(1, b"R|1\r"), size)
    assert written(told) == ACK + ACK + NAK + NAK
    assert payloads(play(link, frame(2, LAST), size)) == [HEADER + LAST]


@every_size
def test_a_jump_of_the_frame_number_is_refused(size: int) -> None:
    # conformance: A14
    for stream in (ENQ + frame(2, HEADER), ENQ + frame(0, HEADER)):
        assert written(play(host(), stream, size)) == ACK + NAK
    link = host()
    assert written(play(link, ENQ + frame(1, HEADER) + frame(3, LAST), size)) == ACK + ACK + NAK
    assert payloads(play(link, frame(2, LAST), size)) == [HEADER + LAST]


@every_size
def test_enq_in_session(size: int) -> None:
    told = play(host(), ENQ + frame(1, HEADER) + session(HEADER, LAST), size)
    assert [type(event).__name__ for event in told if not isinstance(event, Write)] == ["Part", "Abandoned", "Part", "Received"]
    assert written(told) == ACK * 5


@every_size
def test_eot_glued_to_last_frame(size: int) -> None:
    # conformance: A20
    link = host()
    play(link, ENQ + frame(1, HEADER), size)
    told = play(link, frame(2, LAST) + EOT, size)
    assert payloads(told) == [HEADER + LAST]
    assert written(told) == ACK
    assert link.deadline is None


def test_eot_before_the_last_frame_is_settled_waits_for_that() -> None:
    link = host()
    play(link, ENQ)
    link.receive(frame(1, MESSAGE) + EOT, 0.0)
    assert link.settle(1, YES, 1.0) == [Write(ACK)]
    assert link.deadline is None


@every_size
def test_enq_eot_keepalive(size: int) -> None:
    told = play(host(), (ENQ + EOT) * 3, size)
    assert set(told) == {Write(ACK)}
    assert told == [Write(ACK)] * 3 or size in (3, 5)  # where a segment ends with the next bid


def test_bids_that_wait_together_get_one_answer() -> None:
    link = host()
    assert link.receive(ENQ + EOT + ENQ + b"\r\n", 0.0) == [Write(ACK)]
    assert link.receive(ENQ + ENQ, 0.0) == [Write(ACK)]


@every_size
def test_two_messages_one_segment(size: int) -> None:
    # conformance: C02
    other = HEADER + b"P|2\r" + LAST
    one_session = session(HEADER, LAST, HEADER + b"P|2\r", LAST)
    assert payloads(play(host(), one_session, size)) == [HEADER + LAST, other]
    assert payloads(play(host(), session(MESSAGE) + session(other), size)) == [MESSAGE, other]


@every_size
def test_frame_over_many_segments(size: int) -> None:
    assert payloads(play(host(), session(MESSAGE), size)) == [MESSAGE]


@pytest.mark.parametrize("size", [0, 7, 1460])
def test_frame_200k(size: int) -> None:
    # conformance: A11
    text = HEADER + b"M|1|" + b"A" * 200_000 + b"\r" + LAST
    assert payloads(play(host(), session(text), size)) == [text]


@every_size
def test_in_idle_everything_but_enq_is_ignored(size: int) -> None:
    # conformance: A20 A23
    link = host()
    told = play(link, EOT + ACK + NAK + b"\r\nhello" + frame(1, MESSAGE), size)
    assert told == [Note("warning", "bytes outside any message")]
    assert payloads(play(link, session(MESSAGE), size)) == [MESSAGE]
    (stray,) = link.closed(0.0)
    assert isinstance(stray, Stray)
    assert stray == Stray(b"hello" + frame(1, MESSAGE), len(b"hello" + frame(1, MESSAGE)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([ENQ, EOT, ACK, NAK, b"\x02", b"\x03", b"\x17", b"\r\n", b"1H|", frame(1, MESSAGE)])))
def test_any_bytes_are_borne(pieces: list[bytes]) -> None:
    # conformance: A23
    stream = b"".join(pieces)
    whole, single = host(), host()
    told, told_singly = play(whole, stream), play(single, stream, 1)  # which differ in how often a repeat was ACKed
    assert [event for event in told if type(event) is not Write] == [event for event in told_singly if type(event) is not Write]
    whole.closed(1.0)
    assert whole.receive(stream, 2.0) == []


@every_size
def test_forbidden_control_characters_are_kept_and_flagged_once(size: int) -> None:
    # conformance: A21
    texts = (HEADER, b"R|1|a\n\x10b\r", b"R|2|a\x11\r", LAST)
    told = play(host(), session(*texts), size)
    assert payloads(told) == [b"".join(texts)]
    assert len(only(Note, told)) == 1


@every_size
def test_a_message_without_terminator_ends_with_a_new_header(size: int) -> None:
    told = play(host(), ENQ + frame(1, HEADER) + frame(2, PATIENT) + frame(3, MESSAGE) + EOT, size)
    assert payloads(told) == [HEADER + PATIENT, MESSAGE]
    assert written(told) == ACK * 4


@every_size
def test_a_message_without_terminator_ends_with_eot(size: int) -> None:
    link = host()
    told = play(link, session(HEADER, PATIENT), size)
    assert payloads(told) == [HEADER + PATIENT]
    assert told.index(Write(ACK)) < told.index(only(Received, told)[0])
    assert link.deadline is None


@pytest.mark.parametrize(
    ("stream", "seconds"),
    [
        (frame(1, HEADER + b"R|1|12", b"\x17"), 0.0),  # the text goes on
        (frame(1, HEADER) + frame(2, RESULT).replace(b"5.4", b"9.4"), 0.0),  # the next frame was refused
        (frame(1, HEADER) + b"\x022R|1|", 0.0),  # in the middle of a frame
        (frame(1, HEADER), 4.0),  # late, as of a sender that missed our ACK
    ],
)
def test_eot_of_a_sender_that_gave_up_makes_no_message(stream: bytes, seconds: float) -> None:
    link = host()
    told = play(link, ENQ + stream) + play(link, EOT, now=seconds)
    assert not payloads(told)
    assert len(only(Abandoned, told)) == 1


def test_a_frame_that_is_refused_is_noted() -> None:
    told = play(host(), ENQ + frame(1, MESSAGE).replace(b"5.4", b"9.4") + EOT)
    assert Note("warning", "frame refused: wrong checksum") in told


@every_size
def test_enq_inside_a_frame_is_refused_and_the_session_goes_on(size: int) -> None:
    link = host()
    damaged = frame(2, LAST).replace(b"N", ENQ)
    told = play(link, ENQ + frame(1, HEADER) + damaged, size)
    assert written(told) == ACK + ACK + NAK
    assert payloads(play(link, frame(2, LAST), size)) == [HEADER + LAST]


@every_size
def test_the_profile_says_what_ends_a_message(size: int) -> None:
    told = play(host(ends_message=lambda record: record.startswith(b"R|2")), session(HEADER, b"R|1\r", b"R|2\r", b"X|1\r"), size)
    assert payloads(told) == [HEADER + b"R|1\rR|2\r", b"X|1\r"]


@every_size
def test_a_terminator_split_over_frames_ends_the_message(size: int) -> None:
    told = play(host(), ENQ + frame(1, HEADER + b"L|1", b"\x17") + frame(2, b"|N\r") + EOT, size)
    assert payloads(told) == [HEADER + LAST]


@every_size
def test_records_ended_by_their_frame_alone_are_separated(size: int) -> None:
    told = play(host(), session(b"H|\\^&|||X", b"P|1", b"R|1|a", b"12", b"L|1|N"), size)
    assert payloads(told) == [b"H|\\^&|||X\rP|1\rR|1|a12\rL|1|N"]
    assert payloads(play(host(), session(b"H|\\^&|||X", b"H|\\^&|||Y", b"L|1|N"), size)) == [b"H|\\^&|||X", b"H|\\^&|||Y\rL|1|N"]


@every_size
def test_an_oversize_message_is_refused_and_reported_bounded(size: int) -> None:
    # conformance: C03
    link = host(max_message=100)
    text = b"R|1|" + b"x" * 90 + b"\r"
    told = play(link, ENQ + frame(1, HEADER) + frame(2, text) + frame(2, text) + EOT, size)
    whole = HEADER + text
    assert only(Oversize, told) == [Oversize(2, whole, len(whole), hashlib.sha256(whole).digest())]
    assert written(told) in (ACK + ACK + NAK + NAK, ACK + ACK + NAK)  # where it was sent again before it was settled
    assert not only(Abandoned, told)
    assert payloads(play(link, session(MESSAGE[:60] + LAST), size)) == [MESSAGE[:60] + LAST]


@every_size
def test_a_message_of_just_the_limit_is_received(size: int) -> None:
    # conformance: A11
    assert payloads(play(host(max_message=len(MESSAGE)), session(MESSAGE), size)) == [MESSAGE]
    assert payloads(play(host(max_message=len(HEADER + LAST)), session(HEADER, LAST), size)) == [HEADER + LAST]
    assert len(only(Oversize, play(host(max_message=len(MESSAGE) - 1), session(MESSAGE), size))) == 1


@every_size
def test_a_frame_that_grows_beyond_the_limit_is_reported_and_cut_off(size: int) -> None:
    # conformance: C03
    link = host(max_message=200)
    text = b"x" * 2000
    told = play(link, ENQ + frame(1, HEADER) + b"\x022" + text, size)
    (oversize,) = [event for event in told if isinstance(event, Oversize)]
    assert (HEADER + text).startswith(oversize.head)
    assert oversize.length == len(oversize.head) > 200
    assert isinstance(told[-1], Close)
    assert not only(Abandoned, told)
    assert link.receive(text, 0.0) == link.closed(0.0) == []
    assert link.deadline is None


def test_an_oversize_frame_in_one_segment_is_refused_and_the_next_session_is_heard() -> None:
    link = host(max_message=200)
    text = HEADER + b"x" * 300 + b"\r"
    told = play(link, ENQ + frame(1, text)) + play(link, frame(1, text)) + play(link, frame(1, MESSAGE) + EOT)
    assert only(Oversize, told) == [Oversize(1, text, len(text), hashlib.sha256(text).digest())]
    assert written(told) == ACK + NAK * 3
    assert payloads(play(link, session(MESSAGE))) == [MESSAGE]


@pytest.mark.parametrize("size", range(1, len(session(HEADER, LAST))))
def test_a_connection_cut_at_any_byte_leaves_no_message(size: int) -> None:
    # conformance: A24
    stream = session(HEADER, LAST)[:size]
    link = host()
    told = play(link, stream)
    whole = bool(payloads(told))
    confirmed = bool(only(Part, told))
    told = link.closed(0.0)
    assert bool(only(Abandoned, told)) == (confirmed and not whole)
    assert payloads(play(host(), session(MESSAGE))) == [MESSAGE]


def test_every_transition_has_its_action_and_its_state() -> None:
    rows = list(table.transitions())
    assert len(rows) == sum(map(len, table.TRANSITIONS.values()))
    for _, _, action, target in rows:
        assert callable(getattr(Lis01Link, f"_{action}"))
        assert target in table.TRANSITIONS
    assert {state for state, *_ in rows} == set(table.TRANSITIONS)


def test_settling_depends_on_nothing_but_the_order() -> None:
    link = host()
    assert settled(link, link.receive(session(HEADER, LAST), 0.0)) == play(host(), session(HEADER, LAST), 1)
