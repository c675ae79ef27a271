"""Acknowledgements: what each sender is owed, on any bytes, and what a hospital's answer says."""

import hl7
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.formats.acknowledgement import Code, HisAnswer, acknowledge, read_answer

STAMP, ID = "20261121201530+0800", "ABCDEFGHIJKLMNOPQRST"


def header(accept: str = "", application: str = "", version: str = "2.5.1", kind: str = "ORU^R01^ORU_R01") -> bytes:
    return f"MSH|^~\\&|XN|LAB|LIS|HOSP|20260101||{kind}|M1|P|{version}|||{accept}|{application}\rPID|1\r".encode()


def answers(payload: bytes, code: Code = "A") -> list[bytes]:
    return [reply.split(b"\rMSA|")[1].split(b"|")[0].rstrip() for reply in reply_all(payload, code)]


def reply_all(payload: bytes, code: Code = "A", error_code: str = "", text: str = "") -> tuple[bytes, ...]:
    return acknowledge(payload, code, stamp=STAMP, control_id=ID, error_code=error_code, text=text)


def test_a_positive_acknowledgement_has_exactly_these_bytes() -> None:  # conformance: C07, C12
    assert reply_all(header()) == (
        b"MSH|^~\\&|LIS|HOSP|XN|LAB|20261121201530+0800||ACK^R01^ACK|ABCDEFGHIJKLMNOPQRST|P|2.5.1\rMSA|AA|M1\r",
    )


@pytest.mark.parametrize("code", ["A", "E", "R"])
@pytest.mark.parametrize("asked", [("", ""), ("", "0"), ("", "2"), ("9", "1")])
def test_original_mode_gets_one_answer(code: Code, asked: tuple[str, str]) -> None:  # conformance: C07, C11
    assert answers(header(*asked), code) == [f"A{code}".encode()]


def test_enhanced_mode_gets_what_it_asks_for() -> None:  # conformance: C08, C09, C10
    owed = {"AL": "AER", "NE": "", "ER": "ER", "SU": "A", "": ""}
    for accept in owed:
        for application in owed:
            if not accept and not application:
                continue
            for code in ("A", "E", "R"):
                expected = [f"C{code}"] * (code in owed[accept]) + [f"A{code}"] * (code in owed[application])
                assert answers(header(accept, application), code) == [a.encode() for a in expected]


def test_two_replies_have_two_control_ids() -> None:
    first, second = (hl7.parse(reply.decode()) for reply in reply_all(header("AL", "AL")))
    assert [str(first["MSH"][0][10]), str(second["MSH"][0][10])] == [ID, "ABCDEFGHIJKLMNOPQ-1"]


@pytest.mark.parametrize("control_id", [b"{3F2504E0-4F89}", b" a b ", b"Mixed Case", "号1".encode("gbk"), b"\xff\xfe", b"x" * 300])
def test_msa2_is_the_received_msh10_exactly(control_id: bytes) -> None:  # conformance: C12
    (reply,) = reply_all(header().replace(b"|M1|", b"|" + control_id + b"|"))
    assert reply.endswith(b"\rMSA|AA|" + control_id + b"\r")


@pytest.mark.parametrize("kind", ["ACK", "ACK^R01", "ACK^R01^ACK", "MCF"])
def test_an_acknowledgement_is_never_acknowledged(kind: str) -> None:  # conformance: C13
    for code in ("A", "E", "R"):
        assert reply_all(header("AL", "AL", kind=kind), code) == ()
    assert reply_all(b"MSH|^~\\&|\rMSA|AA|1\r") == ()


def test_the_senders_own_delimiters_version_and_charset_are_kept() -> None:
    (reply,) = reply_all(b"MSH$*!%@$A@1$B$C$D$2026$$ORU*R01$7$T$2.3.1$$$$$$UTF-8$\rPID$1\r", "E", "101", "no $")
    assert reply == (
        b"MSH$*!%@$C$D$A@1$B$20261121201530+0800$$ACK*R01*ACK$ABCDEFGHIJKLMNOPQRST$T$2.3.1$$$$$$UTF-8\r"
        b"MSA$AE$7$no %F%\rERR$***101@Required field missing@HL70357\r"
    )


def test_an_error_is_named_as_the_version_demands() -> None:  # conformance: C15
    (reply,) = reply_all(header(), "R", "203", "version | 9")
    assert reply.split(b"\r")[1:3] == [
        b"MSA|AR|M1|version \\F\\ 9",
        b"ERR|||203^Unsupported version id^HL70357|E||||version \\F\\ 9",
    ]
    (reply,) = reply_all(header(version="2.7"), "E", "", "full")
    assert reply.split(b"\r")[1:3] == [b"MSA|AE|M1", b"ERR|||207^Application internal error^HL70357|E||||full"]


def test_text_is_in_the_senders_character_set() -> None:
    for name, shown in ((b"GBK", "满"), (b"ASCII", "?"), (b"", "?"), (b"KLINGON", "?")):
        payload = b"MSH|^~\\&|||||||ORU^R01|1|P|2.3.1||||||" + name + b"\r"
        (reply,) = reply_all(payload, "E", text="满")
        assert reply.split(b"\r")[1] == b"MSA|AE|1|" + shown.encode("gbk")


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
@pytest.mark.parametrize("code", ["A", "E", "R"])
def test_hl7apy_finds_every_acknowledgement_valid(version: str, code: Code) -> None:
    for reply in reply_all(header(version=version, kind="ORU^R01"), code, "207", "not stored"):
        message = parse_message(reply.decode(), find_groups=True)
        assert message.validate()
        assert message.version == version
        assert message.msa.msa_1.value == f"A{code}"


def test_no_msh9() -> None:
    payload = b"MSH|^~\\&|A||||20260101|||7|P|2.5.1\rOBX|1\r"
    assert reply_all(payload)[0].split(b"|")[8] == b"ACK"
    assert answers(payload) == [b"AA"]
    assert answers(b"MSH|^~\\&|A||||20260101||ORU|7\r") == [b"AA"]


@pytest.mark.parametrize(
    ("payload", "control_id"),
    [
        (b"", b""),
        (b"\x00\xff garbage", b""),
        (b"MSH", b""),
        (b"MSH|", b""),
        (b"MSH|^~", b""),
        (b"MSH|^~\\&|A|B|C|D|2026||ORU^R01", b""),
        (b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|9", b"9"),
        (b"MSH|^~&|A|B|C|D|2026||ORU^R01|9|P", b"9"),
        (b"MSH|^~\\\\&|A|B|C|D|2026||ORU^R01|9|P", b"9"),
        (b"MSHx^~\\&xAxBxCxDx2026xxORU^R01x9xP", b""),
        (b"MSH^|~\\&^A^B^C^D^2026^^ORU|R01^9^P", b"9"),
        (b"MSH^^^^A^B^C^D^2026^^ORU|R01^9^P", b""),
        (b"\xef\xbb\xbf\r\nMSH|^~\\&|A|B|C|D|2026||ORU^R01|9\nPID|1", b"9"),
        (b"junk\rMSH|^~\\&|A|B|C|D|2026||ORU^R01|9\r", b"9"),
        (b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|9\x1c|P\x0b|\r", b"9"),
        (b"FHS|^~\\&\rBHS|^~\\&\rBTS|0\rFTS|1\r", b""),
    ],
)
def test_every_byte_string_has_its_answer(payload: bytes, control_id: bytes) -> None:
    for code in ("A", "E", "R"):
        (reply,) = reply_all(payload, code)
        separator = reply[3:4]
        msa = reply.split(b"\r")[1].split(separator)
        assert msa[:2] == [b"MSA", f"A{code}".encode()]
        assert (msa[2:3] or [b""]) == [control_id]
        assert not {0x0B, 0x1C} & set(reply)


@given(st.binary(max_size=80), st.sampled_from(["A", "E", "R"]))
@settings(max_examples=150)
def test_no_bytes_make_it_fail(rest: bytes, code: Code) -> None:
    for payload in (rest, b"MSH" + rest, b"MSH|^~\\&|" + rest, header() + rest):
        for reply in reply_all(payload, code, "207", "text"):
            assert reply.startswith(b"MSH")
            assert reply.endswith(b"\r")
            assert read_answer(reply).code in {f"A{code}", f"C{code}"}
        read_answer(payload)


def test_each_message_of_a_batch_is_answered_in_its_order() -> None:  # conformance: C23
    second = header("AL", "NE").replace(b"|M1|", b"|M2|")
    payload = b"FHS|^~\\&\rBHS|^~\\&\r" + header() + second + header(kind="ACK") + b"BTS|9\rFTS|1\r"
    replies = reply_all(payload)
    assert [(a.code, a.control_id) for a in map(read_answer, replies)] == [("AA", "M1"), ("CA", "M2")]


def test_a_header_without_end_costs_a_bounded_reply() -> None:
    (reply,) = reply_all(b"MSH|^~\\&|" + b"A" * 10_000_000)
    assert len(reply) < 70_000


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"MSH|^~\\&|||||||ACK^R01|9|P|2.5.1\rMSA|AA|X1\r", HisAnswer("AA", "X1")),
        (b"MSH|^~\\&|H\nMSA|ca |X1|taken\n", HisAnswer("CA", "X1", (), "taken")),
        (
            b"MSH|^~\\&|H\rMSA|AE|X1\rERR||OBX^3|103^bad^HL70357|E||||unknown code\rERR|||200|E\r",
            HisAnswer("AE", "X1", ("103", "200"), "unknown code"),
        ),
        (b"MSH|^~\\&|H\rMSA|AR|X1|no|||203\rERR|^^^203&x~^^^101\r", HisAnswer("AR", "X1", ("203", "101"), "no")),
        (b"MSH|^~\\&|H\rMSA|ZZ|X1\r", HisAnswer()),
        (b"MSH|^~\\&|H\rPID|1\r", HisAnswer()),
        (b"\xff\xfe", HisAnswer()),
        (b"", HisAnswer()),
        (b"MSH|^~\\&|H\xff\rMSA|AA|X\\T\\1\r", HisAnswer("AA", "X&1")),
    ],
)
def test_a_hospitals_answer_is_read(payload: bytes, answer: HisAnswer) -> None:
    assert read_answer(payload) == answer
