"""Character sets: every name that is seen, and bytes that do not keep to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.formats import charset
from labbridge.formats.charset import decode, decode_part, encode, table_name
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
        ("ISO IR13", "cp932", "髙﨑①"),
        ("ISO IR14", "ascii", "MORGAN"),
        ("ISO IR87", "iso2022_jp", "山田^太郎"),
        ("~ISO IR87", "iso2022_jp", "山田^太郎"),
        ("ISO IR159", "iso2022_jp_2", "丂"),
        ("ISO IR6~ISO IR87", "iso2022_jp", "山田"),
        ("JIS X 0202", "iso2022_jp", "山田"),
        ("ISO-2022-JP", "iso2022_jp", "山田"),
        ("GB 18030-2000", "gb18030", "㐂𠮷王"),
        ("GB18030", "gb18030", "王"),
        ("GBK", "gbk", "王镕"),
        ("GB2312", "gbk", "王镕"),
        ("MS936", "gbk", "王镕"),
        ("KS X 1001", "euc_kr", "김철수"),
        ("KS X 1001", "cp949", "뷁쫓"),
        ("BIG-5", "big5", "王大明"),
        ("BIG-5", "cp950", "恒裏"),
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
    assert "Zo<C3><AB>" in text


def test_latin1_byte() -> None:
    payload = message("UNICODE", b"M\xdcLLER")
    text, reason = decode(payload)
    assert reason == Reason("undecodable", {"charset": "UNICODE", "offset": str(payload.index(b"\xdc"))})
    assert "M<DC>LLER" in text
    assert decode(payload, ["UTF-8", "8859/1"]) == (payload.decode("latin-1"), None)


def test_utf8_under_the_name_of_an_iso_8859_set_is_not_taken_for_it() -> None:  # conformance: D10
    payload = message("8859/1", "王".encode())
    text, reason = decode(payload)
    assert reason == Reason("undecodable", {"charset": "8859/1", "offset": str(payload.index("王".encode()))})
    assert decode(payload, ["UTF-8"]) == (payload.decode(), None)
    assert "王" not in text
    cyrillic = message("8859/5", "Иван".encode())
    offset = cyrillic.index("И".encode()) + 1  # a control character of the upper half
    assert decode(cyrillic)[1] == Reason("undecodable", {"charset": "8859/5", "offset": str(offset)})


@pytest.mark.parametrize("name", ["8859/1", "8859/9", "8859/15", "CP1252"])
def test_a_western_text_that_is_good_utf8_is_utf8(name: str) -> None:  # conformance: D10
    """Read as what it calls itself it would be é, two characters that nobody wrote."""
    payload = message(name, "Zoé".encode())
    assert decode(payload, ["UTF-8"]) == (payload.decode(), None)
    assert decode(payload)[1] == Reason("undecodable", {"charset": name, "offset": str(payload.index(b"\xc3"))})
    plain = message(name, "Zoé".encode("latin-1"))
    assert decode(plain, ["UTF-8"]) == (plain.decode("latin-1"), None)


@pytest.mark.parametrize(
    ("name", "guesses", "text"),
    [
        ("", ["UTF-8", "GB18030"], "王Y"),  # what the analyzer did not name is the first of the link's that fits
        ("", ["GB18030", "UTF-8"], "鐜媃"),
        ("ASCII", ["UTF-8", "GB18030"], "王Y"),
        ("GBK", ["UTF-8"], "鐜媃"),  # what it named is what it meant, where the bytes allow it
        ("KS X 1001", ["UTF-8"], "王Y"),
        ("~ISO IR87", ["UTF-8"], "王Y"),
    ],
)
def test_the_guesses_of_a_link_are_made_in_their_order(name: str, guesses: list[str], text: str) -> None:  # conformance: D09
    assert decode(message(name, b"\xe7\x8e\x8b\x59"), guesses)[0].split("||P1||")[1] == text + "\r"


def test_what_the_sender_has_replaced_already_is_held() -> None:  # conformance: D10
    for name in ("UTF-8", "GB18030"):
        payload = message(name, "M\ufffdLLER".encode(name))
        offset = payload.index("\ufffd".encode(name))
        told = Reason("undecodable", {"charset": table_name(name), "offset": str(offset)})
        assert decode(payload, ["GB18030"]) == (payload.decode(name), told)


@pytest.mark.parametrize("before", [b"\n", b"\x1c\r", b"\xef\xbb\xbf", b" \r\n"])
def test_the_name_counts_whatever_stands_before_the_header(before: bytes) -> None:
    assert decode(before + message("GBK", "王".encode("gbk")), ["UTF-8"])[1] is None


def test_a_real_header_that_says_utf8_in_its_own_way() -> None:  # conformance: D09
    header = "MSH|^~\\&|||||20261117141503||ORU^R01|1|P|2.3.1|||||CHA|UTF-8|||\rPID|1||P1||王小明\r"
    assert decode(header.encode(), ["8859/1"]) == (header, None)


KANJI, KATAKANA, BACK = b"\x1b$B", b"\x1b(I", b"\x1b(B"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("~ISO IR87", KANJI + b";3ED" + BACK + b"^" + KANJI + b"B@O:" + BACK, "山田^太郎"),
        ("", KANJI + b";3ED" + BACK, "山田"),  # a switch tells what it is, even where no name does
        ("~ISO IR87", KANJI + b";3ED\x1b(J^~\\F\\", "山田^~\\F\\"),  # back to Roman: its delimiters are the message's
        ("~ISO IR87", b"\x1b$@;3ED" + BACK, "山田"),
        ("ISO IR6~ISO IR87~ISO IR159", b"\x1b$(D0!" + KANJI + b";3" + BACK, "丂山"),
        ("ISO IR13~ISO IR87", b"\xd4\xcf\xc0\xde=" + KANJI + b";3ED" + BACK, "ﾔﾏﾀﾞ=山田"),
        ("~ISO IR13", KATAKANA + b"TO@^" + BACK + b"^x", "ﾔﾏﾀﾞ^x"),
        ("~ISO IR87", KANJI + b";3K\\^!" + BACK + b"|x", "山本沺|x"),  # bytes that are separators elsewhere
        ("~ISO IR87", KANJI + b"-!yu" + BACK, "①﨑"),  # rows that Windows adds
        ("~KS X 1001", b"\x1b$)C\xb1\xe8", "김"),
        ("~8859/5", b"\x1b-L\xb8\xd2", "Ив"),
        ("ISO IR6~ISO IR87", b"\\M2442\\;3ED\\C2842\\^x", "山田^x"),
        ("", b"\\M2442\\;3ED\\C2842\\", "山田"),
        ("~ISO IR159", b"\\M242844\\0!\\C2842\\", "丂"),
        ("~ISO IR13", b"\\C2949\\\xd4\xcf", "ﾔﾏ"),
        ("~ISO IR14", b"\\C284A\\abc\\C2842\\", "abc"),
        ("~ISO IR87", b"\\M2442\\;3K\\^!\\C2842\\|x", "山本沺|x"),
        ("~ISO IR87", b"\\M2442\\;3K\\E\\\\S\\!\\C2842\\|x", "山本沺|x"),  # the same, escaped
        ("ASCII~8859/1", b"\\C2D41\\\xc4", "Ä"),
        ("8859/1~8859/2~8859/5", b"\xe6\\C2D42\\\xe6\\C2D4C\\\xe6", "æćц"),
        ("8859/1~8859/7", b"\\C2D46\\\xe1\rOBX|1|ST|A||\xe1", "α\rOBX|1|ST|A||á"),  # the end of a segment switches back
        ("UNICODE UTF-8", "\\C2D41\\Ä\\C2842\\".encode(), "Ä"),
    ],
)
def test_text_switches_its_character_set(name: str, content: bytes, text: str) -> None:  # conformance: D04, D08
    assert decode(message(name, content)) == (message(name, b"").decode()[:-1] + text + "\r", None)


@pytest.mark.parametrize(
    ("name", "content", "at"),
    [
        ("~ISO IR87", KANJI + b";3E" + BACK, 3),  # half a character
        ("~ISO IR87", KANJI + b"~~" + BACK, 3),
        ("~CNS 11643-1992", b"\x1b$(GAA" + BACK, 0),
        ("ASCII", b"\\M242847\\AA\\C2842\\", 0),
        ("ASCII", b"\\C2D5A\\A", 0),
        ("~ISO IR87", KANJI + b";3ED" + BACK + b"\xc4", 10),
        ("GB 18030-2000", "王".encode("gbk") + KANJI + b";3ED" + BACK, 0),  # not a set that ISO 2022 switches from
    ],
)
def test_a_switch_that_cannot_be_followed_holds_the_report(name: str, content: bytes, at: int) -> None:
    """# conformance: D04, D10."""
    payload = message(name, content)
    text, reason = decode(payload, ["UTF-8", "GB18030"])
    start = payload.index(content) + at if name[:2] != "GB" else 0
    assert reason == Reason("undecodable", {"charset": name, "offset": str(start)})
    assert "\ufffd" not in text


@given(st.text(st.characters(codec="iso2022_jp_ext", exclude_characters="\x1b\r\n¥‾"), max_size=12), st.sampled_from("\r\n"))
@settings(max_examples=100)
def test_iso_2022_is_read_as_python_writes_it(text: str, end: str) -> None:  # conformance: D04, D08
    written = encode(text, "ISO IR87")
    assert decode(message("~ISO IR87", written, end.encode()))[0].split("||P1||")[1] == text + end
    assert decode(b"P|1||" + written)[0] == "P|1||" + text


def test_bytes_in_hexadecimal_are_of_the_first_set_that_they_fit() -> None:  # conformance: B04, D03
    assert decode_part(b"\xc4\xe3", ["KLINGON", "UTF-8", "GB18030"]) == "你"
    assert decode_part(b"\xc2\xb5", ["8859/1", "UTF-8"]) == "µ"
    for names in ([], ["UTF-8"]):
        with pytest.raises(UnicodeError):
            decode_part(b"\xb5", names)


def test_hostile_switches_cost_linear_time() -> None:  # conformance: K17
    for piece in (b"\x1b$B", b"\x1b$B;3", b"\\M2442\\", b"\\C2842", b"\x1b", b"\x1b!!!", b"\\M2442\\\\F\\", b"\r\x1b(B"):
        decode(message("~ISO IR87", piece * 100_000), ["GB18030"])


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
