"""ASTM records without frames: where a message begins and ends, in any segmentation; what is cut short is never whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.wire import RawLink, RawSettings
from labbridge.wire.events import (
    Abandoned,
    Answer,
    Close,
    Event,
    Failed,
    LocalProtocolError,
    Oversize,
    Part,
    Received,
    Sent,
    Stray,
    Write,
)

ONE = b"H|\\^&\rP|1\rO|1|SP1\rR|1|^^^GLU|5.6\rL|1|N\r"
TWO = b"H|\\^&\r\nO|1|SP2\r\nR|1|^^^GLU|12.5\r\nL|1|N\r\n"


def played(stream: bytes, size: int, *, close: bool = True, **more: object) -> list[Event]:
    """All that is said of a stream in segments of this size."""
    link = RawLink(RawSettings(**more))  # type: ignore[arg-type]
    events: list[Event] = []
    for at in range(0, len(stream), size):
        events += link.receive(stream[at : at + size], 0.0)
    return events + (link.closed(1.0) if close else [])


def payloads(events: list[Event]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Received)]


@pytest.mark.parametrize("size", [10_000, *range(1, 10)])
def test_messages_come_up_in_any_segmentation(size: int) -> None:
    """CR, LF or both end a record; ENQ, EOT and blanks between messages are nothing."""
    events = played(b"\x05\x00" + ONE + b"\x04 \r\n" + TWO + b"\x04" + ONE, size)
    assert payloads(events) == [ONE, TWO.removesuffix(b"\n"), ONE]
    assert not [event for event in events if not isinstance(event, Received)]


@pytest.mark.parametrize("size", [10_000, *range(1, 10)])
@pytest.mark.parametrize("length", range(1, len(ONE) - 1))
def test_what_stops_before_its_end_is_incomplete(length: int, size: int) -> None:
    """Closed anywhere before the end of the L record: a part that is abandoned, with every byte that came."""
    events = played(ONE[:length], size)
    if ONE[:length].split(b"\r")[-1].startswith(b"L"):
        assert payloads(events) == [ONE[:length]]
    else:
        assert [type(event) for event in events] == [Part, Abandoned]
        assert events[0].data == ONE[:length]  # type: ignore[union-attr]


def test_silence_ends_a_message() -> None:
    """After ``receive_time`` a last record without its CR is taken as it is, and what lacks it is incomplete."""
    link = RawLink(RawSettings(receive_time=5.0))
    assert link.receive(ONE[:-1], 10.0) == []
    assert link.deadline == 15.0
    assert link.tick(14.9) == []
    assert payloads(link.tick(15.0)) == [ONE[:-1]]
    link.receive(ONE[:20], 20.0)
    assert [type(event) for event in link.tick(25.0)] == [Part, Abandoned]
    assert link.deadline is None


def test_a_sender_without_a_last_record() -> None:
    """Where no record ends a message, a silence, EOT, another H or the close does; but not within a record."""
    body = ONE.removesuffix(b"L|1|N\r")
    assert payloads(played(body + body + b"\x04" + body, 7, ends_message=None)) == [body] * 3
    assert payloads(played(body[:-1] + b"\x04", 7, ends_message=None)) == [body[:-1]]
    cut = played(body[:-1], 7, ends_message=None)
    assert [type(event) for event in cut] == [Part, Abandoned]


def test_another_header_ends_a_message_that_has_no_end() -> None:
    """The first is incomplete, the second is whole."""
    events = played(ONE[:30].rpartition(b"\r")[0] + b"\r" + TWO, 3)
    assert [type(event) for event in events] == [Part, Abandoned, Received]


@pytest.mark.parametrize("size", [10_000, *range(1, 10)])
def test_what_begins_with_no_header_is_stray(size: int) -> None:
    """It is kept at the connection's end byte for byte, controls and line ends included, and disturbs no message."""
    junk = b"\x02R|1|^^^GLU|5.6\r\n\r\n \x021Q|x\t\r"
    events = played(b"\r\n\x04" + junk + ONE + b"\r\n" + ONE + b" ?\x04\x03", size)
    assert payloads(events) == [ONE, ONE]
    [stray] = [event for event in events if isinstance(event, Stray)]
    kept = b"\r\n\x04" + junk + b" ?\x04\x03"
    assert stray == Stray(kept, len(kept))


def test_blanks_before_stray_bytes_do_not_hide_them() -> None:
    """However long a line sent blanks, what is kept of a stray begins with it, but for a few of them."""
    [stray] = [event for event in played(b"\x00" * 9000 + b"junk", 1000) if isinstance(event, Stray)]
    assert stray.data.strip(b"\x00") == b"junk"
    assert stray.count == len(stray.data) < 100


@pytest.mark.parametrize("size", [1_000_000, 4000, 7])
def test_memory_is_bounded(size: int) -> None:
    """Beyond the limit a message is its head, length and digest; at four times the limit the link closes."""
    big = b"H|\\^&\r" + b"R|1|" + b"x" * 3000 + b"\r" + b"L|1\r"
    [oversize] = played(big, size, max_message=1024)
    assert isinstance(oversize, Oversize)
    assert oversize.length == len(big)
    flood = played(big[:-5] + b"x" * 3000 + b"\rL|1\r" + ONE, size, max_message=1024)
    assert [type(event) for event in flood if not isinstance(event, Stray)] == [Oversize, Close]


def test_nothing_is_answered_and_records_are_sent_as_they_are() -> None:
    link = RawLink(RawSettings())
    [received] = link.receive(ONE, 0.0)
    assert link.settle(received.token, Answer(True), 0.0) == []  # type: ignore[union-attr]
    with pytest.raises(LocalProtocolError):
        link.settle(received.token, Answer(True), 0.0)  # type: ignore[union-attr]
    assert link.send(7, ONE, 0.0) == [Write(ONE), Sent(7)]
    link.closed(0.0)
    assert link.send(8, ONE, 0.0) == [Failed(8, "the connection closed")]
    assert link.receive(ONE, 0.0) == []


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([b"H|\\^&", b"R|1|5", b"L|1", b"\r", b"\n", b"\x04", b"\x05", b"x", b"\x00"]), max_size=40), st.data()
)
def test_the_segments_make_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    """However a stream is cut, the same comes up; and of it no byte twice."""
    stream = b"".join(pieces)
    size = data.draw(st.integers(1, 9))
    whole, cut = played(stream, 10_000), played(stream, size)
    kinds = (Received, Part, Abandoned, Stray)
    assert [event for event in whole if isinstance(event, kinds)] == [event for event in cut if isinstance(event, kinds)]
    assert sum(
        len(event.payload if isinstance(event, Received) else event.data) for event in cut if isinstance(event, Received | Part)
    ) <= len(stream)


def test_a_pause_is_no_silence() -> None:
    """While nothing is read no time runs; after it a silence begins anew, with the next tick or byte."""
    link = RawLink(RawSettings(receive_time=5.0))
    link.receive(ONE[:20], 10.0)
    assert link.pause() == []
    assert link.deadline is None
    assert link.tick(100.0) == []
    link.receive(ONE[20:25], 101.0)  # was under way
    assert link.deadline is None
    assert link.resume() == []
    assert link.deadline is not None
    assert link.deadline <= 200.0
    assert link.tick(200.0) == []
    assert link.deadline == 205.0
    assert payloads(link.receive(ONE[25:], 204.0)) == [ONE]
    link.pause()
    link.resume()
    assert link.deadline is None
    link.receive(ONE[:20], 300.0)
    link.pause()
    link.resume()
    link.tick(400.0)
    assert [type(event) for event in link.tick(405.0)] == [Part, Abandoned]


@pytest.mark.parametrize("size", [10_000, *range(1, 10)])
def test_an_enquiry_within_a_record_cuts_it_short(size: int) -> None:
    """Where no record ends a message only EOT ends one that has no CR."""
    cut = b"H|\\^&\rR|1|^^^GLU|12"
    events = played(cut + b"\x05" + ONE + b"\x05", size, ends_message=None)
    assert [type(event) for event in events] == [Part, Abandoned, Received]
    assert events[0].data == cut  # type: ignore[union-attr]
