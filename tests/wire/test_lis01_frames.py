"""LIS01 frames: how they are cut, and how they are found in a stream."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.wire import Lis01Settings
from labbridge.wire.events import LocalProtocolError
from labbridge.wire.lis01_frames import Frame, FrameReader, _end_of_frame, begins_record, checksum, cut, is_terminator
from tests.wire.replay import SIZES, frame, segments

TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), min_size=1).map(lambda text: text.encode("latin-1"))


def read(data: bytes, size: int = 0, *, check: bool = True) -> list[Frame | str]:
    reader = FrameReader(check=check, limit=1 << 20)
    found: list[Frame | str] = []
    for segment in segments(data, size):
        reader.feed(segment)
        while (item := reader.next(True)) is not None:
            found.append(item)
    return found


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_the_checksum_is_the_sum_of_all_bytes_modulo_256(data: bytes) -> None:
    # conformance: A09
    assert checksum(data) == sum(data) % 256


@pytest.mark.parametrize("end", [b"\x03", b"\x17", b"\x02", b"\x04", b"\x05"])
@pytest.mark.parametrize("at", [10, 1023, 1024, 1025, 1026, 66_560, 66_561, 200_000])
def test_the_end_of_a_long_frame_is_found_wherever_it_is(at: int, end: bytes) -> None:
    """The nearest of what ends or breaks a frame, near or far, whatever follows."""
    data = bytearray(b"\x02" + b"A" * (at - 1) + end + b"A\x03\x17\x02\x04\x05" + b"A" * 70_000)
    assert _end_of_frame(data, 1) == at
    assert _end_of_frame(data[:at], 1) == -1


def test_a_message_is_cut_into_numbered_frames_with_checksum() -> None:
    # conformance: A07 A09 A10
    assert cut(b"H|\\^&\rP|1\rL|1|N\r", 240) == [b"\x021H|\\^&\r\x03E5\r\n", b"\x022P|1\r\x033F\r\n", b"\x023L|1|N\r\x0306\r\n"]


def test_frame_numbers_run_modulo_eight() -> None:
    # conformance: A08
    numbers = b"".join(part[1:2] for part in cut(b"R|1\r" * 20, 240))
    assert numbers == b"12345670123456701234"


@pytest.mark.parametrize(("size", "length", "frames"), [(240, 240, 1), (240, 241, 2), (63_993, 63_993, 1), (63_993, 63_994, 2)])
def test_a_record_beyond_the_frame_size_goes_on_in_the_next_frame(size: int, length: int, frames: int) -> None:
    # conformance: A11
    made = cut(b"M|1|" + b"x" * (length - 5), size)
    assert len(made) == frames
    assert [part[-5:-4] for part in made] == [b"\x17"] * (frames - 1) + [b"\x03"]
    assert max(len(part) for part in made) <= size + 7


def test_a_frame_size_beyond_the_standard_is_refused() -> None:
    # conformance: A11
    for size in (0, 63_994):
        with pytest.raises(LocalProtocolError):
            Lis01Settings(frame_size=size)


@pytest.mark.parametrize("character", b"\x01\x02\x03\x04\x05\x06\x10\x15\x16\x17\x0a\x11\x12\x13\x14")
def test_text_with_a_forbidden_control_character_is_not_sent(character: int) -> None:
    # conformance: A21
    with pytest.raises(LocalProtocolError):
        cut(b"R|1|a%cb\r" % character, 240)


def test_a_payload_without_a_record_is_not_sent() -> None:
    for payload in (b"", b"\r\r"):
        with pytest.raises(LocalProtocolError):
            cut(payload, 240)


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1), st.integers(1, 300), st.booleans(), st.sampled_from(SIZES))
def test_what_was_cut_reads_back(records: list[bytes], size: int, check: bool, segment: int) -> None:
    stream = b"".join(cut(b"\r".join(records), size, check=check))
    frames = read(stream, segment, check=check)
    assert b"".join(part.text for part in frames if isinstance(part, Frame)) == b"".join(text + b"\r" for text in records)
    assert all(isinstance(part, Frame) for part in frames)


@pytest.mark.parametrize("size", SIZES)
def test_every_flipped_byte_of_a_frame_is_noticed(size: int) -> None:
    # conformance: A09 A12
    good = frame(1, b"R|1|5.4")
    for at in range(1, len(good) - 2):
        bad = good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :]
        assert not any(isinstance(item, Frame) for item in read(bad, size))


@pytest.mark.parametrize("size", SIZES)
def test_what_readers_of_frames_forgive(size: int) -> None:
    # conformance: A10, A22
    good, lower, wanted = frame(1, b"kl"), b"\x021kl\x030b\r\n", Frame(1, b"kl", True)
    assert read(good, size) == read(lower, size) == [wanted]
    assert read(b"garbage" + good + b"more" + good, size) == [wanted, wanted]
    for tail in (b"", b"\r", b"\n", b"\r\n\r\n"):
        assert read(frame(1, b"kl", tail=tail) * 2, size) == [wanted, wanted]
    assert read(b"\x021broken" + good, size) == [wanted]
    assert read(b"\x02" * 3000 + good, size) == [wanted]


@pytest.mark.parametrize("size", SIZES)
def test_a_checksum_is_optional_only_when_so_configured(size: int) -> None:
    # conformance: A26
    bare = b"\x021kl\x03\r\n\x022mn\x03\r\n"
    assert read(bare, size) == ["bad frame", "bad frame"]
    assert read(bare, size, check=False) == [Frame(1, b"kl", True), Frame(2, b"mn", True)]
    assert read(frame(1, b"kl"), size, check=False) == [Frame(1, b"kl", True)]


def test_a_frame_without_number_is_bad() -> None:
    assert read(frame(8, b"x")) == [Frame(0, b"x", True)]
    for digit in b"89xH":
        body = b"%cx\x03" % digit
        assert read(b"\x02" + body + b"%02X" % (sum(body) % 256)) == ["bad frame"]


def test_controls_inside_a_frame_make_it_a_bad_one_and_of_them_only_eot_is_heard() -> None:
    assert read(b"\x05\x021ab\x05c\x04\x021ab\x04") == ["ENQ", "bad frame", "EOT", "bad frame", "EOT"]


def test_only_the_l_record_ends_a_message_by_default() -> None:
    assert [is_terminator(record) for record in (b"L|1|N", b"l", b"L", b"LX|", b"R|1", b"")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_record_begins_with_letter_and_number_or_with_a_header() -> None:
    begins = (b"P|1|", b"R|12|x", b"h|\\^&|")
    others = (b"45|mg", b"H||F", b"L||F", b"R^1", b"", b"F|")
    assert [begins_record(text, b"|") for text in begins + others] == [True] * 3 + [False] * 6
