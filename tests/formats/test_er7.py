"""The pipe encoding: what was sent is what is read, in linear time, and batches come apart."""

import re

import hl7
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbridge.formats.er7 import DEFAULT, Delimiters, escape, messages, parse, unescape
from labbridge.model import RemoteProtocolError

HEADER = "MSH|^~\\&|XN|LAB|LIS|HOSP|20260101120000||ORU^R01|1|P|2.5.1"
ORU = f"{HEADER}\rPID|1||P1^^^H~P2\rOBX|1|NM|6690-2^WBC^LN||7.3\rOBX|2|ST|X&Y^Z|1|a\\T\\b\r"

encodable = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.text(st.characters(exclude_characters="|^~\\&\r\n\x0b\x1c\ufeff", exclude_categories=("Cs", "Cc")), max_size=6)
components = st.lists(st.lists(plain, min_size=1, max_size=3).map("&".join), min_size=1, max_size=3).map("^".join)
fields = st.lists(components, min_size=1, max_size=2).map("~".join)
segments = st.builds(
    lambda name, values: "|".join((name, *values)),
    st.sampled_from(("PID", "OBR", "OBX", "ZXX")),
    st.lists(fields, min_size=1, max_size=6),
)


def test_fields_are_numbered_as_in_the_standard() -> None:
    message = parse(ORU)
    msh, obx = message.segments[0], message.all("OBX")[1]
    assert [msh.field(n) for n in (1, 2, 3, 10)] == ["|", "^~\\&", "XN", "1"]
    assert msh.component(2) == "^~\\&"
    assert (obx.field(4), obx.field(99), obx.fields[0]) == ("1", "", "OBX")
    assert (obx.component(3), obx.component(3, 1, 2), obx.component(3, 2), obx.component(3, 9)) == ("X", "Y", "Z", "")
    assert (obx.component(3, s=0), obx.component(3, 1, 3)) == ("X&Y", "")
    pid = message.first("PID")
    assert pid is not None
    assert (pid.component(3, rep=2), pid.component(3, rep=3)) == ("P2", "")
    assert message.first("SPM") is None
    assert "P1" not in repr(pid), "no patient data where it may be logged"


def test_escapes_are_resolved_after_splitting() -> None:
    segment = parse(f"{HEADER}\rOBX|1|ST|A||x\\S\\y\\R\\z^w\\F\\v\\E\\").segments[1]
    assert segment.component(5) == "x^y~z"
    assert segment.component(5, 2) == "w|v\\"


@given(st.lists(segments, max_size=5))
@settings(max_examples=60)
def test_reads_what_python_hl7_reads(lines: list[str]) -> None:
    text = "\r".join((HEADER, *lines)) + "\r"
    ours, oracle = parse(text), hl7.parse(text)
    assert [segment.name for segment in ours.segments] == [str(segment[0]) for segment in oracle]
    for mine, other in zip(ours.segments[1:], oracle[1:], strict=True):
        for n in range(1, len(other)):
            assert mine.field(n).strip() == str(other[n]).strip()  # python-hl7 strips the ends of a segment
            assert mine.field(n).split("~") == [str(repeat) for repeat in other[n]]
            assert mine.component(n, s=0) == str(other[n][0][0] if isinstance(other[n][0], list) else other[n][0])


@given(encodable | st.text("\\FEXHNCMZ.4|^", max_size=12))
@example("\\")
@example("\\M2442\\;3ED")
@example("\\X41\\\\X4")
@example("\\.br\\F\\H\\Z|\\")
@settings(max_examples=200)
def test_escape_and_unescape_are_inverse(text: str) -> None:  # conformance: D02, D06
    for delimiters in (DEFAULT, Delimiters("$", "^", "*", "%", "@")):
        sent = escape(text, delimiters)
        assert not {*delimiters[:3], delimiters.sub, *"\r\n\x0b\x1c"} & set(sent)
        assert unescape(sent, delimiters) == text


@pytest.mark.parametrize("text", ["one\\.br\\two\\.sp\\\\.in+4\\", "\\H\\bold\\N\\", "\\Z03BC\\g"])
def test_formatting_passes_through_unchanged(text: str) -> None:  # conformance: D05
    assert unescape(text) == text
    assert escape(text) == text
    assert escape(f"{text}|{text}") == f"{text}\\F\\{text}"
    assert escape("\\Za|b\\") == "\\E\\Za\\F\\b\\E\\", "a separator inside is escaped all the same"


def test_what_is_written_has_no_line_feed() -> None:  # conformance: D12
    assert escape("a\r\nb\nc") == "a\\X0D\\\\X0A\\b\\X0A\\c"


@given(st.lists(encodable, min_size=1, max_size=4))
@settings(max_examples=60)
def test_a_written_field_is_read_back(values: list[str]) -> None:
    line = "OBX|" + "^".join(map(escape, values))
    segment = parse(f"{HEADER}\r{line}\r").segments[1]
    assert [segment.component(1, n + 1) for n in range(len(values))] == values


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("a\\X0D0A\\b", "a\r\nb"),
        ("\\XE4BDA0\\", "你"),
        ("\\XE4\\\\XBDA0\\", "你"),
        ("\\XFF\\", "\\XFF\\"),
        ("\\H\\bold\\N\\", "\\H\\bold\\N\\"),
        ("one\\.br\\two\\.sp\\\\.in+4\\", "one\\.br\\two\\.sp\\\\.in+4\\"),
        ("\\Z03BC\\g", "\\Z03BC\\g"),
        ("\\H\\F\\N\\", "\\H\\F\\N\\"),
        ("5 \\ 3", "5 \\ 3"),
        ("5 \\ 3 \\F\\", "5 \\ 3 |"),
        ("\\E\\F\\E\\", "\\F\\"),
        ("\\M2442\\é\\C2842\\", "\\M2442\\é\\C2842\\"),
        ("\\C2D41\\Ä", "\\C2D41\\Ä"),
    ],
)
def test_each_escape_sequence_means_what_the_standard_says(sent: str, meant: str) -> None:
    # conformance: D02, D03, D05, D06
    assert unescape(sent) == meant


def test_hexadecimal_is_of_the_messages_character_set() -> None:  # conformance: D03
    assert unescape("\\XC4E3\\", decode=lambda data: data.decode("gb18030")) == "你"


def test_delimiters_are_the_headers_own() -> None:  # conformance: D01
    message = parse("MSH$*!%@$A*B!C\rOBX$1$ST$a@b*c%F%!d")
    assert message.delimiters == Delimiters("$", "*", "!", "%", "@")
    obx = message.segments[1]
    assert (obx.component(3), obx.component(3, 1, 2), obx.component(3, 2), obx.component(3, rep=2)) == ("a", "b", "c$", "d")


@pytest.mark.parametrize("header", ["MSH|^~\\&#|A", "MSH|^~\\\\&|A", "MSH|^~\\&"])
def test_the_truncation_character_and_a_doubled_escape_are_tolerated(header: str) -> None:  # conformance: D01
    assert parse(header).delimiters == DEFAULT


@pytest.mark.parametrize(
    "text", ["MSH", "MSH|", "MSH|^~&|A", "MSHA^~\\&A", "MSH|^^~\\|A", "MSH|^~\\|A", "MSH|a~\\&|A", "MSH|^|\\&|A", "MSH\r^~\\&"]
)
def test_unusable_delimiters_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(text)
    assert caught.value.reason.code == "unusable-delimiters"


@pytest.mark.parametrize("text", ["", "PID|1", "\x00MSH|^~\\&", "H|\\^&"])
def test_a_message_without_header_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(text)
    assert (caught.value.reason.code, caught.value.error_code) == ("no-header", "100")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\r\n\r\n"])
def test_every_end_of_segment_is_tolerated(end: str) -> None:  # conformance: D12
    message = parse("\x0b" + ORU.replace("\r", end) + "\x1c")
    assert [segment.raw for segment in message.segments] == ORU.split("\r")[:-1]


def test_a_broken_line_goes_on_with_its_segment() -> None:
    message = parse(f"{HEADER}\rOBX|1|ED|IMG||iVBO\r\nRw0K\r\nGgo=|F\r  OBX|2|NM|A||1\rDSC\rnot a segment\r")
    assert [segment.raw for segment in message.segments[1:]] == [
        "OBX|1|ED|IMG||iVBO\nRw0K\nGgo=|F",
        "OBX|2|NM|A||1",
        "DSC\nnot a segment",
    ]


def test_unknown_segments_and_more_fields_are_kept() -> None:  # conformance: D14
    message = parse(f"{HEADER}|||||||||||||new\rZPI|a|b\r")
    assert message.segments[0].field(25) == "new"
    assert message.all("ZPI")[0].field(2) == "b"


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"MSH|^~\\&|{text}", f"{HEADER}\r{text}"):
        try:
            message = parse(candidate)
        except RemoteProtocolError:
            continue
        for segment in message.segments:
            for n in range(len(segment.fields) + 1):
                segment.component(n)


def test_message_10mb() -> None:
    value = "iVBORw0KGgo\\E\\" * 700_000
    message = parse(f"{HEADER}\rOBX|1|ED|IMG||^IM^PNG^Base64^{value}\r")
    assert len(message.segments[1].component(5, 5)) == 12 * 700_000
    assert messages(f"{HEADER}\rOBX|1|ED|IMG||{value}MSH\r".encode())[0][:3] == b"MSH"
    for hostile in ("\\" * 1_000_000, "\\M2442\\" * 200_000, "\\X41" * 200_000, "\n" * 1_000_000, "\nab" * 200_000):
        unescape(hostile)
        escape(hostile)
        parse(f"{HEADER}\r{hostile}")


M1, M2 = f"{HEADER}\rOBX|1\r".encode(), b"MSH|^~\\&|B\r"


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (M1, [M1]),
        (M1 + M2, [M1, M2]),
        (M1 + b"\x0b" + M2, [M1, M2]),
        (b"FHS|^~\\&\rBHS|^~\\&\r" + M1 + M2 + b"BTS|2\rFTS|1\r", [M1, M2]),
        (b"BHS|^~\\&\r\n" + M1 + b"BTS\rBHS|^~\\&\r" + M2 + b"BTS|1|ok\rFTS|2\r", [M1, M2]),
        (b"FHS|^~\\&\r" + M1 + b"FTS|1\r", [M1]),
        (b"FHS|^~\\&\rBHS|^~\\&\rBTS|0\rFTS|1\r", []),
        (b"FHS|^~\\&\rFTS|0\r", []),
        (b"junk", [b"junk"]),
        (b"", [b""]),
        (b"\xef\xbb\xbf" + M1, [M1]),
        (b"\r\n" + M1, [M1]),
        (b"junk\r" + M1, [b"junk\r" + M1]),
        (b"junk\rFHS|^~\\&\rFTS|0\r", [b"junk"]),
        (b"MSH|^~\\&|A\rNTE|1||MSH|x\r", [b"MSH|^~\\&|A\rNTE|1||MSH|x\r"]),
    ],
)
def test_batches_come_apart(payload: bytes, found: list[bytes]) -> None:  # conformance: C23
    assert [message.rstrip(b"\r\n\x0b") for message in messages(payload)] == [m.rstrip(b"\r") for m in found]


@pytest.mark.parametrize("trailers", [b"BTS|1\rFTS|1", b"BTS|2\rFTS|2", b"BTS|-2", b"BTS|x", b"BTS|2 2", b"BTS|\xff"])
def test_a_wrong_count_refuses_the_whole_batch(trailers: bytes) -> None:  # conformance: C23
    payload = b"FHS|^~\\&\rBHS|^~\\&\r" + M1 + M2 + trailers + b"\r"
    with pytest.raises(RemoteProtocolError) as caught:
        messages(payload)
    assert caught.value.reason.code == "batch-count"
    assert len(messages(payload, verify=False)) == 2


@given(st.lists(st.sampled_from([b"FHS|", b"BHS|", b"BTS|1", b"FTS|1", b"MSH|^~\\&|", b"\r", b"\n", b"x", b"|"]), max_size=12))
@settings(max_examples=100)
def test_taking_apart_never_fails_but_by_count(pieces: list[bytes]) -> None:
    payload = b"".join(pieces)
    found = messages(payload, verify=False)
    assert sum(len(re.findall(rb"(?:\A|[\r\n])MSH\|", m)) for m in found) == len(re.findall(rb"(?:\A|[\r\n])MSH\|", payload))
