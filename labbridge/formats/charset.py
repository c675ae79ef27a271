"""Character sets: the names of HL7 table 0211 and what vendors write instead, to Python's codecs.

Bytes come in, text goes out, with a Reason when the text is not to be trusted. What is undecodable is shown with
backslash escapes and held, never replaced: the bytes themselves are in the journal.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from labbridge.model import Reason

_ESC = b"\x1b"
_HEADER_BYTES = 65536
# No text of an ISO 8859 set has these: they tell UTF-8 or a Windows code page under a wrong name.
_C1 = re.compile("[\x80-\x9f]")
_UNREADABLE = re.compile(r"UTF.?(16|32)|CNS", re.IGNORECASE)

# HL7 table 0211 and its aliases, written without blanks, dashes and slashes. The code extensions of ISO 2022 (Japanese
# senders repeat MSH-18 for them) are one codec.
NAMES = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    "ISOIR100": "iso8859-1",
    "LATIN1": "iso8859-1",
    "ISOIR13": "shift_jis",
    "ISOIR14": "iso2022_jp_ext",
    "ISOIR87": "iso2022_jp_ext",
    "ISOIR159": "iso2022_jp_ext",
    "SHIFTJIS": "shift_jis",
    "SJIS": "shift_jis",
    "CP932": "cp932",
    "EUCJP": "euc_jp",
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "CP936": "gbk",
    "GB2312": "gb2312",
    "KSX1001": "euc_kr",
    "EUCKR": "euc_kr",
    "CP949": "cp949",
    "BIG5": "big5",
    "CP950": "cp950",
    "BIG5HKSCS": "big5hkscs",
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
}
for _part in (*range(1, 10), 15):
    NAMES[f"8859{_part}"] = NAMES[f"ISO8859{_part}"] = f"iso8859-{_part}"
for _page in range(1250, 1259):
    NAMES[f"CP{_page}"] = NAMES[f"WINDOWS{_page}"] = f"cp{_page}"

# Senders that name the older set use characters of the newer one, which contains it.
_READ_AS = {"gb2312": "gb18030", "gbk": "gb18030"}
_TABLE_0211 = {
    "ascii": "ASCII",
    "utf-8": "UNICODE UTF-8",
    "gb18030": "GB 18030-2000",
    "gbk": "GB 18030-2000",
    "gb2312": "GB 18030-2000",
    "euc_kr": "KS X 1001",
    "big5": "BIG-5",
    "shift_jis": "ISO IR13",
    "iso2022_jp_ext": "ISO IR87",
}


def decode(payload: bytes, default: Sequence[str] = ()) -> tuple[str, Reason | None]:
    """The text of a message, and why it cannot be trusted if it cannot.

    A payload that begins with MSH names its set in MSH-18 (HL7 2.5, 2.15.9.18); any other (ASTM) has the link's
    ``default`` alone. A declared set that the bytes contradict, or none, gives way to the defaults in their order, each
    strictly; ASCII is the standard's own default. Where nothing fits: the text with backslash escapes, and the reason
    ``undecodable`` (charset, offset of the first wrong byte) or ``unsupported-charset`` (charset): UTF-16 and UTF-32
    collide with the framing, and Python has no codec for CNS 11643-1992. Raises
    LookupError for an unknown name in ``default``.
    """
    name = _declared(payload) if payload[:3] == b"MSH" else ""
    if _UNREADABLE.search(name):
        return payload.decode("ascii", "backslashreplace"), Reason("unsupported-charset", {"charset": name})
    if payload.isascii() and _ESC not in payload:
        return payload.decode("ascii"), None
    declared = _understood(name)
    for candidate in (declared or "ascii", *map(codec, default)):
        text = _strictly(payload, candidate)
        if text is not None:
            return text, None
    text = payload.decode(declared or "ascii", "backslashreplace")
    if name and not declared:
        return text, Reason("unsupported-charset", {"charset": name})
    offset = _first_wrong(payload, declared or "ascii")
    return text, Reason("undecodable", {"charset": name or "ASCII", "offset": str(offset)})


def encode(text: str, name: str) -> bytes:
    """The bytes of what we send, strictly; raises LookupError for an unknown set, UnicodeEncodeError for the text."""
    return text.encode(codec(name))


def codec(name: str) -> str:
    """Python's codec for a character set by any of its names; raises LookupError."""
    found = NAMES.get(_plain(name))
    if found is None:
        raise LookupError(f"unknown character set {name!r}")
    return found


def table_name(name: str) -> str:
    """What MSH-18 calls this set (HL7 table 0211); the name itself where the table has none. Raises LookupError."""
    found = codec(name)
    part = found.removeprefix("iso8859-")
    return f"8859/{part}" if part != found else _TABLE_0211.get(found, name)


def _declared(payload: bytes) -> str:
    """MSH-18 as it is written, without empty repeats at its ends (Japanese senders write ``~ISO IR87``)."""
    end = payload.find(b"\r", 0, _HEADER_BYTES)
    header = payload[: end if end >= 0 else _HEADER_BYTES].partition(b"\n")[0]
    fields = header.split(header[3:4] or b"|", 18)
    return fields[17].decode("ascii", "replace").strip(" ~")[:40] if len(fields) > 17 else ""


@lru_cache(maxsize=256)
def _understood(name: str) -> str:
    """The codec of MSH-18, of several repeats that of the last; empty for none and for an unknown name."""
    return NAMES.get(_plain(name.rpartition("~")[2]), "")


def _plain(name: str) -> str:
    return re.sub("[^A-Z0-9]", "", name.upper())


def _strictly(payload: bytes, codec_name: str) -> str | None:
    try:
        text = payload.decode(_READ_AS.get(codec_name, codec_name))
    except UnicodeDecodeError:
        return None
    return None if codec_name.startswith("iso8859") and _C1.search(text) else text


def _first_wrong(payload: bytes, codec_name: str) -> int:
    try:
        text = payload.decode(_READ_AS.get(codec_name, codec_name))
    except UnicodeDecodeError as error:
        return error.start
    found = _C1.search(text)
    return found.start() if found else 0
