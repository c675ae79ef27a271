"""Character sets: every name that is seen, and bytes that do not keep to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.formats import charset
from labbridge.formats.charset import decode, encode, table_name
from labbridge.model import Reason


def message(name: str, content: bytes, end: bytes = b"\r") -> bytes:
    header = b"MSH|^~\\&|A||||20260101||ORU^R01|1|P|2.5.1||||||" + name.encode()
    return header + end + b"PID|1||P1||" + content + end


@pytest.mark.parametrize(
    ("name", "codec", "text"),
    [
        ("ASCII", "ascii", "MORGAN"),
        ("8859/1", "latin-1", "MÜLLER"),
        ("8859/2", "iso8859-2", "Łódź"),
        ("8859/3", "iso8859-3", "Ħal"),
        ("8859/4", "iso8859-4", "Ķīlis"),
        ("8859/5", "iso8859-5", "Иванов"),
        ("8859/6", "iso8859-6", "محمد"),
        ("8859/7", "iso8859-7", "Παπαδόπουλος"),
        ("8859/8", "iso8859-8", "כהן"),
        ("8859/9", "iso8859-9", "Yıldız"),
        ("8859/15", "iso8859-15", "Œuvré €"),
        ("ISO IR6", "ascii", "MORGAN"),
        ("ISO IR13", "shift_jis", "ﾔﾏﾀﾞ"),
        ("ISO IR14", "iso2022_jp_ext", "¥"),
        ("ISO IR87", "iso2022_jp", "山田^太郎"),
        ("~ISO IR87", "iso2022_jp", "山田^太郎"),
        ("ISO IR159", "iso2022_jp_2", "丂"),
        ("ISO IR6~ISO IR87", "iso2022_jp", "山田"),
        ("GB 18030-2000", "gb18030", "㐂𠮷王"),
        ("GB18030", "gb18030", "王"),
        ("GBK", "gbk", "王镕"),
        ("GB2312", "gbk", "王镕"),
        ("KS X 1001", "euc_kr", "김철수"),
        ("BIG-5", "big5", "王大明"),
        ("UNICODE UTF-8", "utf-8", "王𠮷 Müller"),
        ("UNICODE", "utf-8", "王"),
        ("UTF-8", "utf-8", "王"),
        ("utf8", "utf-8", "王"),
        ("CP1252", "cp1252", "Müller’s"),
        ("windows-1251", "cp1251", "Иванов"),
        ("ISO-8859-1", "latin-1", "MÜLLER"),
        ("ISO_8859-15", "iso8859-15", "€"),
    ],
)
def test_each_name_is_known(name: str, codec: str, text: str) -> None:  # conformance: D07, D08, D09
    decoded, reason = decode(message(name, text.encode(codec)))
    assert reason is None
    assert decoded.split("PID|1||P1||")[1] == text + "\r"


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_msh18_is_found_at_every_end_of_segment(end: bytes) -> None:
    assert decode(message("GBK", "王".encode("gbk"), end))[1] is None
    assert decode(b"MSH|^~\\&|" + "王".encode("gbk"), ["GBK"])[1] is None
    assert decode(b"MSH", ())[0] == "MSH"


@pytest.mark.parametrize("name", ["UNICODE UTF-16", "UTF-16", "UNICODE UTF-32", "UTF32LE", "CNS 11643-1992"])
def test_sets_that_cannot_be_read_are_refused_by_name(name: str) -> None:  # conformance: D07
    for content in (b"MORGAN", "王".encode()):
        assert decode(message(name, content), ["UTF-8"])[1] == Reason("unsupported-charset", {"charset": name})


def test_an_unknown_name_gives_way_to_the_default() -> None:
    assert decode(message("KLINGON", b"MORGAN"))[1] is None, "pure ASCII is the same in every set"
    assert decode(message("KLINGON", "é".encode()), ["UTF-8"])[1] is None
    assert decode(message("KLINGON", "é".encode()))[1] == Reason("unsupported-charset", {"charset": "KLINGON"})


def test_utf8_name_default_charset() -> None:
    payload = message("", "Zoë".encode())
    assert decode(payload, ["UTF-8"]) == (payload.decode(), None)
    text, reason = decode(payload)
    assert reason == Reason("undecodable", {"charset": "ASCII", "offset": str(payload.index(b"\xc3"))})
    assert "Zo\\xc3\\xab" in text


def test_latin1_byte() -> None:
    payload = message("UNICODE", b"M\xdcLLER")
    text, reason = decode(payload)
    assert reason == Reason("undecodable", {"charset": "UNICODE", "offset": str(payload.index(b"\xdc"))})
    assert "M\\xdcLLER" in text
    assert decode(payload, ["UTF-8", "8859/1"]) == (payload.decode("latin-1"), None)


def test_utf8_under_the_name_of_an_iso_8859_set_is_not_taken_for_it() -> None:  # conformance: D10
    payload = message("8859/1", "王".encode())
    text, reason = decode(payload)
    assert reason == Reason("undecodable", {"charset": "8859/1", "offset": str(payload.index("王".encode()) + 1)})
    assert decode(payload, ["UTF-8"]) == (payload.decode(), None)
    assert "王" not in text


@given(st.binary(max_size=30), st.sampled_from(["", "UTF-8", "GBK", "8859/1", "ISO IR87", "UTF-16", "?"]))
@settings(max_examples=150)
def test_no_byte_is_ever_replaced(content: bytes, name: str) -> None:  # conformance: D10
    payload = message(name, content)
    text, reason = decode(payload)
    assert "\ufffd" not in text or "\ufffd" in payload.decode("gb18030", "ignore") + payload.decode("utf-8", "ignore")
    assert reason is not None or not name.startswith(("UTF-16",))
    if reason is None and name == "UTF-8":
        assert text.encode() == payload


def test_what_has_no_header_is_of_the_links_default() -> None:
    record = "H|\\^&|||c311\rP|1||||王\r"
    assert decode(record.encode("gbk"), ["UTF-8", "GBK"]) == (record, None)
    assert decode(b"P|1||\xff")[1] == Reason("undecodable", {"charset": "ASCII", "offset": "5"})
    with pytest.raises(LookupError):
        decode(b"P|1||\xff", ["KLINGON"])


@given(st.text(st.characters(codec="utf-8"), max_size=20))
@settings(max_examples=60)
def test_gb18030_and_utf8_hold_every_character(text: str) -> None:  # conformance: D11
    for name in ("GB 18030-2000", "UTF-8"):
        payload = encode(text, name)
        assert decode(b"P|" + payload, [name]) == ("P|" + text, None)


def test_rare_names_survive_transcoding() -> None:  # conformance: D11
    name = "㐂𠮷"
    assert decode(message("GB 18030-2000", encode(name, "GB18030")))[0].endswith(f"{name}\r")


def test_sending_is_strict() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode("镕", "GB2312")
    with pytest.raises(UnicodeEncodeError):
        encode("王", "8859/1")
    with pytest.raises(LookupError, match="KLINGON"):
        encode("x", "KLINGON")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("UTF-8", "UNICODE UTF-8"),
        ("GBK", "GB 18030-2000"),
        ("gb18030", "GB 18030-2000"),
        ("latin1", "8859/1"),
        ("ISO-8859-15", "8859/15"),
        ("ascii", "ASCII"),
        ("CP1252", "CP1252"),
    ],
)
def test_what_we_send_is_named_as_in_table_0211(name: str, written: str) -> None:
    assert table_name(name) == written


def test_every_codec_of_the_table_exists() -> None:
    for name in charset.NAMES:
        assert "MSH|1".encode(charset.codec(name)) == b"MSH|1"


def test_a_guessed_set_never_swallows_a_separator() -> None:
    """One wrong byte before a separator must not join two fields into a character: that would shift the specimen."""
    damaged = b"MSH|^~\\&|||||||ORU^R01|1|P|2.3.1||||||UNICODE\rOBR|1|\x85|S1|00001^Count\r"
    text, reason = decode(damaged, ["UTF-8", "GB18030"])
    assert reason is not None
    assert reason.code == "undecodable"
    assert text.count("|") == damaged.count(b"|")
    named = damaged.replace(b"UNICODE", b"GBK")  # but a sender that names the set means it
    assert decode(named, ["UTF-8"])[1] is None
