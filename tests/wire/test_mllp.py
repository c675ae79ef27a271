"""MLLP: blocks in any segmentation and framing, answers in order and in time, release 2, bounded memory."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.wire import MllpLink, MllpSettings
from labbridge.wire import mllp as module
from labbridge.wire.events import (
    Abandoned,
    Answer,
    Close,
    Event,
    Failed,
    LocalProtocolError,
    Note,
    Overdue,
    Oversize,
    Part,
    Received,
    Sent,
    Stray,
    Write,
)
from tests.wire.replay import NO, SIZES, YES, only, payloads, play, written

every_size = pytest.mark.parametrize("size", SIZES)

ONE, TWO, THREE = (b"MSH|^~\\&|||||||ORU^R01|%d|P|2.5\rOBX|1|NM|WBC||5.%d\r" % (n, n) for n in (1, 2, 3))


def mllp(**settings: Any) -> MllpLink:
    return MllpLink(MllpSettings(**settings))


def block(data: bytes, end: bytes = b"\x1c\r") -> bytes:
    return b"\x0b" + data + end


def ack(text: bytes = b"AA") -> Answer:
    return Answer(True, (b"MSH|^~\\&\rMSA|" + text + b"\r",))


def refused(payload: bytes) -> bytes:
    return b"AE to " + payload[:3]


@every_size
def test_a_block_is_a_message_and_its_answer_a_block(size: int) -> None:
    # conformance: C01 C02
    told = play(mllp(), block(ONE), size, answer=Answer(True, (TWO, THREE)))
    assert told == [Received(1, ONE), Write(block(TWO) + block(THREE))]


@every_size
def test_two_messages_one_segment(size: int) -> None:
    # conformance: C02
    assert payloads(play(mllp(), b"".join(map(block, (ONE, TWO, THREE))), size)) == [ONE, TWO, THREE]


def test_fifty_messages_in_one_segment() -> None:
    # conformance: C02
    assert payloads(play(mllp(), block(ONE) * 50)) == [ONE] * 50


@pytest.mark.parametrize("size", [0, 7, 1460])
def test_frame_200k(size: int) -> None:
    payload = ONE + b"OBX|2|ED|15000||^Image^BMP^Base64^" + b"A" * 200_000 + b"\r"
    assert payloads(play(mllp(), block(payload), size)) == [payload]


@every_size
def test_frame_over_many_segments(size: int) -> None:
    # conformance: C02
    assert payloads(play(mllp(), block(ONE), size)) == [ONE]


@every_size
def test_crlf_between_mllp_blocks(size: int) -> None:
    # conformance: C01
    link = mllp()
    told = play(link, b"\r\n" + block(ONE) + b"\r\n" + block(TWO) + b"\n" + block(THREE) + b"\x1c\r", size)
    assert told == [Received(1, ONE), Received(2, TWO), Received(3, THREE)]
    assert link.closed(0.0) == []


@every_size
def test_eb_without_cr(size: int) -> None:
    link = mllp()
    told = play(link, block(ONE, b"\x1c") + block(TWO, b"\x1c") + block(THREE), size)
    assert payloads(told) == [ONE, TWO, THREE]
    assert not only(Note, told)


@pytest.mark.parametrize("end", [b"\x1c", b"\x1c\n"])
def test_a_last_block_without_cr_is_whole_after_a_silence(end: bytes) -> None:
    link = mllp()
    assert play(link, block(ONE, end), 1) == []
    assert link.deadline == 3.0
    assert link.tick(2.9) == []
    assert link.tick(3.0) == [Received(1, ONE)]
    assert link.deadline == 13.0


@every_size
def test_blocks_without_eb_end_where_the_next_begins(size: int) -> None:
    link = mllp()
    told = play(link, block(ONE, b"") + block(TWO, b"\r\r") + block(THREE, b""), size)
    assert payloads(told) == [ONE, TWO + b"\r\r"]
    assert len(only(Note, told)) == 1
    assert link.deadline == 3.0
    assert link.tick(3.0) == [Received(3, THREE)]
    assert play(link, block(ONE), size) == [Received(4, ONE)]


@every_size
def test_a_last_block_without_eb_is_whole_at_the_close_only_of_a_peer_that_omits_it(size: int) -> None:
    link = mllp()
    play(link, block(ONE, b"") + block(TWO, b"") + block(THREE, b""), size)
    assert link.closed(0.0) == [Received(3, THREE)]
    link = mllp()
    play(link, block(ONE, b"") + block(TWO, b""), size)
    assert payloads(link.closed(0.0)) == [ONE, TWO]
    link = mllp()
    play(link, block(ONE, b""), size)
    assert link.closed(0.0) == [Part(1, ONE), Abandoned("the connection closed inside a block")]
    assert link.settle(1, YES, 0.0) == []


@every_size
@pytest.mark.parametrize("end", [b"\x1c\r", b"\x1c"])
def test_a_first_block_that_broke_off_behind_a_segment_is_told_by_the_next_ones_end(size: int, end: bytes) -> None:
    """It might be of a peer that omits EB; but the next block has one. Half a message must not count as a whole one."""
    link = mllp()
    told = play(link, block(ONE, b"") + block(ONE + TWO, end) + block(THREE), size)
    assert [type(event) for event in told] == [Part, Abandoned, Received, Received]
    assert (told[0], payloads(told)) == (Part(1, ONE), [ONE + TWO, THREE])
    link = mllp()
    play(link, block(ONE, b"") + block(ONE + TWO, b"\x1c"), size)
    told = link.tick(3.0)
    assert (told[0], payloads(told)) == (Part(1, ONE), [ONE + TWO])


@every_size
def test_of_two_blocks_without_eb_that_begin_alike_the_first_was_begun_anew(size: int) -> None:
    """The same bytes once more are a message that is sent again; more of them are the whole of what broke off."""
    told = play(mllp(), block(ONE, b"") + block(ONE + TWO, b"") + block(THREE, b""), size)
    assert [type(event) for event in told] == [Note, Part, Abandoned, Received]
    assert payloads(told) == [ONE + TWO]
    told = play(mllp(), block(ONE, b"") + block(ONE, b"") + block(THREE, b""), size)
    assert payloads(told) == [ONE, ONE]


@every_size
def test_a_peer_without_eb_that_falls_silent_has_ended_both_blocks(size: int) -> None:
    link = mllp()
    assert play(link, block(ONE, b"") + block(TWO, b""), size) == []
    assert link.deadline == 3.0
    assert payloads(link.tick(3.0)) == [ONE, TWO]
    link = mllp()
    play(link, block(ONE, b"") + block(TWO[:-1], b""), size)  # in the middle of a segment
    assert link.deadline is None
    assert [type(event) for event in link.closed(0.0)] == [Part, Abandoned, Part, Abandoned]


@every_size
def test_a_doubtful_block_before_one_that_is_too_large_stays_itself(size: int) -> None:
    link = mllp(max_message=200)
    told = play(link, block(ONE, b"") + block(TWO + bytes(300)), size)
    assert [type(event) for event in told] == [Part, Abandoned, Oversize]
    assert told[0] == Part(1, ONE)
    assert only(Oversize, told)[0].length == len(TWO) + 300


@every_size
def test_a_block_broken_off_in_a_segment_is_incomplete(size: int) -> None:
    told = play(mllp(), block(ONE + b"OBX|2|NM|PL", b"") + block(TWO), size)
    assert [type(event) for event in told] == [Part, Abandoned, Received]
    assert payloads(told) == [TWO]


@every_size
def test_a_block_broken_off_between_segments_is_incomplete_of_a_peer_that_ends_its_blocks(size: int) -> None:
    """Half a message that was sent anew must not count as one: its results would be delivered twice."""
    told = play(mllp(), block(ONE) + block(TWO, b"") + block(TWO + THREE), size)
    assert [type(event) for event in told] == [Received, Part, Abandoned, Received]
    assert payloads(told) == [ONE, TWO + THREE]


@every_size
def test_a_doubled_start_is_one_start(size: int) -> None:
    assert play(mllp(), b"\x0b" + block(ONE), size) == [Received(1, ONE)]


@every_size
def test_eb_and_sb_inside_the_data_are_data(size: int) -> None:
    # conformance: C03
    payload = b"MSH|^~\\&\rOBX|1|ST|a\x1cb\x0bc\x1c\x1c"
    assert payloads(play(mllp(), block(payload), size)) == [payload]


@every_size
def test_bytes_outside_any_block_are_reported_once(size: int) -> None:
    # conformance: C01
    link = mllp()
    told = play(link, b"hello" + block(ONE) + b"x" * 5000 + block(TWO) + b"\r\n", size)
    assert payloads(told) == [ONE, TWO]
    assert only(Note, told) == [Note("warning", "bytes outside any message")]
    assert link.closed(0.0) == [Stray(b"hello" + b"x" * 4091, 5005)]


@every_size
def test_an_empty_block_is_no_message(size: int) -> None:
    assert play(mllp(), block(b""), size) == []


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"MSH", b"x", block(ONE)])), st.sampled_from([10, 1000]))
def test_any_bytes_are_borne_in_any_segmentation(pieces: list[bytes], limit: int) -> None:
    # conformance: C02
    stream = b"".join(pieces)

    def told(size: int) -> list[Event]:
        link = mllp(max_message=limit)
        events = play(link, stream, size) + link.tick(100.0) + link.closed(100.0)
        assert link.receive(stream, 101.0) == []
        assert link.deadline is None
        return [event for event in events if not isinstance(event, Oversize | Close)]

    if limit == 1000:
        assert told(0) == told(1) == told(3)
    else:
        told(0), told(1), told(3)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1).filter(lambda data: 0x0B not in data and 0x1C not in data)), st.sampled_from(SIZES))
def test_what_is_sent_reads_back(messages: list[bytes], size: int) -> None:
    # conformance: C01 C02
    sender = mllp()
    stream = b"".join(written(sender.send(n, message, 0.0)) for n, message in enumerate(messages))
    assert payloads(play(mllp(), stream, size)) == messages


def test_answers_out_of_order() -> None:
    link = mllp()
    link.receive(block(ONE) + block(TWO) + block(THREE), 0.0)
    assert link.settle(3, ack(b"3"), 1.0) == []
    assert link.settle(2, ack(b"2"), 1.0) == []
    (write,) = link.settle(1, ack(b"1"), 1.0)
    assert isinstance(write, Write)
    assert [write.data.index(b"MSA|%d" % n) for n in (1, 2, 3)] == sorted(write.data.index(b"MSA|%d" % n) for n in (1, 2, 3))
    assert link.deadline is None


@settings(deadline=None)
@given(st.permutations(range(1, 7)))
def test_answers_leave_in_the_order_of_receipt(order: list[int]) -> None:
    link = mllp()
    link.receive(b"".join(block(b"MSH%d" % n) for n in range(6)), 0.0)
    left = b"".join(written(link.settle(token, Answer(True, (b"%d" % token,)), 1.0)) for token in order)
    assert left == b"".join(block(b"%d" % token) for token in range(1, 7))


def test_without_replies_nothing_is_answered() -> None:
    link = mllp()
    link.receive(block(ONE) + block(TWO), 0.0)
    assert link.settle(1, NO, 0.0) == []
    assert link.settle(2, YES, 0.0) == []


def test_only_what_waits_can_be_settled() -> None:
    link = mllp()
    link.receive(block(ONE), 0.0)
    link.settle(1, YES, 0.0)
    for token in (0, 1, 2):
        with pytest.raises(LocalProtocolError):
            link.settle(token, YES, 0.0)


def test_an_overdue_message_is_refused_by_the_link_in_order() -> None:
    link = mllp(refusal=refused)
    link.receive(block(ONE), 0.0)
    link.receive(block(TWO), 1.0)
    link.receive(block(THREE), 2.0)
    assert link.settle(2, ack(), 3.0) == []
    assert link.deadline == 10.0
    assert link.tick(9.9) == []
    assert link.tick(10.0) == [Overdue(1), Write(block(b"AE to MSH")), Write(block(ack().replies[0]))]
    assert link.deadline == 12.0
    assert link.tick(12.0) == [Overdue(3), Write(block(b"AE to MSH"))]
    assert link.settle(1, ack(), 13.0) == []


def test_an_overdue_message_come_again_is_not_a_new_one() -> None:
    link = mllp(refusal=refused)
    link.receive(block(ONE), 0.0)
    link.tick(10.0)
    assert link.receive(block(ONE), 11.0) == []
    assert link.receive(block(ONE), 12.0) == []
    assert link.receive(block(TWO), 12.0) == [Received(2, TWO)]
    assert link.deadline == 21.0
    assert link.settle(1, ack(), 13.0) == [Write(block(ack().replies[0]) * 2)]
    assert link.receive(block(ONE), 14.0) == [Received(3, ONE)]


def test_an_overdue_message_come_again_is_refused_again() -> None:
    link = mllp(refusal=refused)
    link.receive(block(ONE), 0.0)
    link.tick(10.0)
    link.receive(block(ONE), 11.0)
    assert link.tick(21.0) == [Overdue(1), Write(block(b"AE to MSH"))]


def test_a_refusal_may_be_nothing() -> None:
    link = mllp(refusal=lambda payload: b"")
    link.receive(block(ONE), 0.0)
    assert link.tick(10.0) == [Overdue(1)]


def test_without_a_refusal_an_overdue_message_is_answered_when_it_comes_again() -> None:
    link = mllp()
    link.receive(block(ONE), 0.0)
    link.receive(block(TWO), 1.0)
    assert link.tick(10.0) == [Overdue(1)]
    assert link.deadline == 11.0
    assert written(link.settle(2, ack(b"2"), 10.5)) == block(ack(b"2").replies[0])
    assert link.receive(block(ONE), 12.0) == []
    assert written(link.settle(1, ack(b"1"), 20.0)) == block(ack(b"1").replies[0])


def test_without_an_answer_time_nothing_is_overdue() -> None:
    link = mllp(answer_time=None)
    link.receive(block(ONE), 0.0)
    assert link.deadline is None


@every_size
def test_an_oversize_block_is_reported_bounded_and_answered_in_order(size: int) -> None:
    # conformance: C03
    link = mllp(max_message=100)
    big = b"MSH|" + b"x" * 200
    told = play(link, block(ONE) + block(big) + block(TWO), size, answer=ack())
    assert only(Oversize, told) == [Oversize(2, big, len(big), hashlib.sha256(big).digest())]
    assert payloads(told) == [ONE, TWO]
    assert len(only(Write, told)) == 3


@every_size
def test_an_oversize_block_without_end_ends_where_the_next_begins(size: int) -> None:
    link = mllp(max_message=100)
    big = b"MSH|" + b"x" * 200
    told = play(link, b"\x0b" + big + block(ONE), size)
    assert [type(event) for event in told] == [Oversize, Received]
    assert payloads(told) == [ONE]


def test_an_oversize_block_keeps_64_kib() -> None:
    # conformance: C03
    link = mllp(max_message=100_000)
    big = b"MSH|" + bytes(range(32, 127)) * 3000
    (event,) = only(Oversize, play(link, block(big), 1460))
    assert event == Oversize(1, big[:65_536], len(big), hashlib.sha256(big).digest())


def test_an_overdue_oversize_block_come_again_is_not_a_new_one() -> None:
    link = mllp(max_message=100, refusal=refused)
    big = block(b"MSH|" + b"x" * 200)
    play(link, b"")
    link.receive(big, 0.0)
    assert link.tick(10.0) == [Overdue(1), Write(block(b"AE to MSH"))]
    assert link.receive(big, 11.0) == []
    assert written(link.settle(1, ack(), 12.0)) == block(ack().replies[0])


def test_a_block_without_end_is_cut_off_at_four_times_the_limit() -> None:
    # conformance: C03
    link = mllp(max_message=1000)
    link.receive(b"\x0bMSH|", 0.0)
    told: list[Event] = []
    while not told:
        told = link.receive(b"x" * 100, 0.0)
    assert [type(event) for event in told] == [Oversize, Close]
    assert isinstance(told[0], Oversize)
    assert 4000 < told[0].length < 4200
    assert link.receive(b"more", 0.0) == []


def test_an_oversize_block_cut_by_the_close_is_reported() -> None:
    link = mllp(max_message=100)
    play(link, b"\x0b" + b"x" * 300, 50)
    (event,) = link.closed(0.0)
    assert isinstance(event, Oversize)
    assert event.length == 300


def test_release_1_sends_at_once() -> None:
    # conformance: C05 C06
    link = mllp()
    assert link.send(7, ONE, 0.0) == [Write(block(ONE)), Sent(7)]
    assert play(link, block(TWO)) == [Received(1, TWO)]
    assert play(link, block(b"\x06")) == [Received(2, b"\x06")]
    link.closed(1.0)
    assert link.send(8, ONE, 2.0) == [Failed(8, "the connection closed")]


@pytest.mark.parametrize("payload", [b"", b"a\x0bb", b"a\x1cb"])
def test_what_no_block_can_carry_is_our_mistake(payload: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        mllp().send(1, payload, 0.0)


@every_size
def test_release_2_commits_what_is_durable(size: int) -> None:
    # conformance: C04 C05
    stream = block(ONE)
    assert written(play(mllp(release=2), stream, size)) == block(b"\x06")
    assert written(play(mllp(release=2), stream, size, answer=NO)) == block(b"\x15")
    assert written(play(mllp(release=2), stream, size, answer=ack())) == block(b"\x06") + block(ack().replies[0])


def test_release_2_refuses_what_is_overdue() -> None:
    # conformance: C04
    link = mllp(release=2, refusal=refused)
    link.receive(block(ONE), 0.0)
    assert link.tick(10.0) == [Overdue(1), Write(block(b"\x15"))]
    assert link.receive(block(ONE), 11.0) == []
    assert link.settle(1, YES, 12.0) == [Write(block(b"\x06"))]


def test_release_2_sends_nothing_new_before_the_commit() -> None:
    # conformance: C04
    link = mllp(release=2)
    assert link.send(7, ONE, 0.0) == [Write(block(ONE))]
    assert link.send(8, TWO, 0.0) == []
    assert link.deadline == 30.0
    assert link.receive(block(b"\x06"), 1.0) == [Sent(7), Write(block(TWO))]
    assert link.receive(block(b"\x15"), 2.0) == [Failed(8, "the peer refused it")]
    assert link.deadline is None
    assert [type(event) for event in link.receive(block(b"\x06"), 3.0)] == [Note]


def test_release_2_closes_when_the_commit_does_not_come() -> None:
    # conformance: C04
    link = mllp(release=2, reply_time=5.0)
    link.send(7, ONE, 0.0)
    link.send(8, TWO, 0.0)
    told = link.tick(5.0)
    assert [type(event) for event in told] == [Failed, Failed, Close]
    assert link.send(9, ONE, 6.0) == [Failed(9, "the connection closed")]
    assert link.closed(7.0) == []


def test_a_closed_connection_answers_nothing() -> None:
    # conformance: C06
    link = mllp()
    link.receive(block(ONE), 0.0)
    assert link.closed(1.0) == []
    assert link.deadline is None
    assert link.tick(100.0) == []
    assert link.settle(1, ack(), 2.0) == []


def test_pausing_is_the_adapters_business() -> None:
    link = mllp()
    assert link.pause() == link.resume() == []


def test_every_transition_has_its_action_and_its_state() -> None:
    rows = list(module.transitions())
    assert len(rows) == sum(map(len, module.TRANSITIONS.values()))
    for _, _, action, target in rows:
        assert callable(getattr(MllpLink, f"_{action}"))
        assert target in module.TRANSITIONS
