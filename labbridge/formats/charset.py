"""Character sets: the names of HL7 table 0211 and what vendors write instead, to Python's codecs.

Bytes come in, text goes out, with a Reason when the text is not to be trusted. What is undecodable is shown with
backslash escapes and held, never replaced: the bytes themselves are in the journal.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from labbridge.model import Reason

_HEADER_BYTES = 65536
# No text of an ISO 8859 set has these: they tell UTF-8 or a Windows code page under a wrong name.
_C1 = re.compile("[\x80-\x9f]")
_UNREADABLE = re.compile(r"UTF.?(16|32)|CNS", re.IGNORECASE)

# Python's codec: its name in HL7 table 0211 (its own where the table has none), and what else it is called, blanks,
# dashes and slashes left out. The code extensions of ISO 2022 (Japanese senders repeat MSH-18 for them) are one codec.
_SETS: dict[str, tuple[str, ...]] = {
    "ascii": ("ASCII", "USASCII", "ISOIR6"),
    "utf-8": ("UNICODE UTF-8", "UNICODE", "UTF8"),
    "gb18030": ("GB 18030-2000", "GB18030"),
    "gbk": ("GB 18030-2000", "GBK", "CP936"),
    "gb2312": ("GB 18030-2000", "GB2312"),
    "big5": ("BIG-5",),
    "big5hkscs": ("BIG5-HKSCS",),
    "cp950": ("CP950",),
    "euc_kr": ("KS X 1001", "EUCKR"),
    "cp949": ("CP949",),
    "shift_jis": ("ISO IR13", "SHIFTJIS", "SJIS"),
    "cp932": ("CP932",),
    "euc_jp": ("EUC-JP",),
    "iso2022_jp_ext": ("ISO IR87", "ISOIR14", "ISOIR159"),
    "iso8859-1": ("8859/1", "ISO88591", "ISOIR100", "LATIN1"),
    **{f"iso8859-{part}": (f"8859/{part}", f"ISO8859{part}") for part in (*range(2, 10), 15)},
    **{f"cp{page}": (f"CP{page}", f"WINDOWS{page}") for page in range(1250, 1259)},
}
# Senders that name the older set use characters of the newer one, which contains it.
_READ_AS = {"gb2312": "gb18030", "gbk": "gb18030"}


def decode(payload: bytes, default: Sequence[str] = ()) -> tuple[str, Reason | None]:
    """The text of a message, and why it cannot be trusted if it cannot.

    A payload that begins with MSH names its set in MSH-18 (HL7 2.5, 2.15.9.18); any other (ASTM) has the link's
    ``default`` alone. A declared set that the bytes contradict, or none, gives way to the defaults in their order, each
    strictly; ASCII is the standard's own default. Where nothing fits: the text with backslash escapes, and the reason
    ``undecodable`` (charset, offset of the first wrong byte) or ``unsupported-charset`` (charset): UTF-16 and UTF-32
    collide with the framing, and Python has no codec for CNS 11643-1992. Raises LookupError for an unknown name in
    ``default``.
    """
    name = _declared(payload) if payload[:3] == b"MSH" else ""
    if _UNREADABLE.search(name):
        return payload.decode("ascii", "backslashreplace"), Reason("unsupported-charset", {"charset": name})
    if payload.isascii() and b"\x1b" not in payload:
        return payload.decode("ascii"), None
    # Of several repeats (code extensions) the last one.
    declared = NAMES.get(_plain(name.rpartition("~")[2]), "")
    settled = 0 if declared else 1  # what the sender named, else what the link is set to; the rest are guesses
    for number, candidate in enumerate((declared or "ascii", *map(codec, default))):
        text, _ = _strictly(payload, candidate)
        if text is not None and (number <= settled or not _swallows(payload, text)):
            return text, None
    text = payload.decode(declared or "ascii", "backslashreplace")
    if name and not declared:
        return text, Reason("unsupported-charset", {"charset": name})
    _, offset = _strictly(payload, declared or "ascii")
    return text, Reason("undecodable", {"charset": name or "ASCII", "offset": str(offset)})


def _swallows(payload: bytes, text: str) -> bool:
    """Whether a guessed set has taken separators for halves of its characters: fields would shift."""
    return any(text.count(separator) < payload.count(separator.encode()) for separator in "|^~\\")


def encode(text: str, name: str) -> bytes:
    """The bytes of what we send, strictly; raises LookupError for an unknown set, UnicodeEncodeError for the text."""
    return text.encode(codec(name))


@lru_cache(maxsize=256)
def codec(name: str) -> str:
    """Python's codec for a character set by any of its names; raises LookupError."""
    found = NAMES.get(_plain(name))
    if found is None:
        raise LookupError(f"unknown character set {name!r}")
    return found


def table_name(name: str) -> str:
    """What MSH-18 calls this set (HL7 table 0211); Python's name where the table has none. Raises LookupError."""
    return _SETS[codec(name)][0]


def _plain(name: str) -> str:
    return re.sub("[^A-Z0-9]", "", name.upper())


# Reversed, because the first of those that share a name is meant by it.
NAMES = {_plain(name): codec for codec, names in reversed(_SETS.items()) for name in names}


def _declared(payload: bytes) -> str:
    """MSH-18 as it is written, without empty repeats at its ends (Japanese senders write ``~ISO IR87``)."""
    end = payload.find(b"\r", 0, _HEADER_BYTES)
    header = payload[: end if end >= 0 else _HEADER_BYTES].partition(b"\n")[0]
    fields = header.split(header[3:4] or b"|", 18)
    return fields[17].decode("ascii", "replace").strip(" ~")[:40] if len(fields) > 17 else ""


def _strictly(payload: bytes, codec: str) -> tuple[str | None, int]:
    """The text, or where its first wrong byte stands."""
    try:
        text = payload.decode(_READ_AS.get(codec, codec))
    except UnicodeDecodeError as error:
        return None, error.start
    wrong = _C1.search(text) if codec.startswith("iso8859") else None
    return (text, 0) if wrong is None else (None, wrong.start())
