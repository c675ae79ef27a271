"""Character sets: the names of HL7 table 0211 and what vendors write instead, to Python's codecs.

Bytes come in, text goes out, with a Reason when the text is not to be trusted. An undecodable byte is shown as ``<DC>``,
which no protocol takes for a separator, and held, never replaced: the bytes themselves are in the journal.
"""

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache

from labbridge.formats import iso2022
from labbridge.model import Reason

_HEADER_BYTES = 65536
_SHOWN = "labbridge.shown"  # an error handler of Python's codecs
_BLANK = b"\xef\xbb\xbf \t\r\n\x0b\x1c"
# No text of an ISO 8859 set has these: they tell UTF-8 or a Windows code page under a wrong name.
_C1 = re.compile("[\x80-\x9f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_UNREADABLE = re.compile(r"UTF.?(16|32)|CNS", re.IGNORECASE)

# Python's codec: its name in HL7 table 0211 (its own where the table has none), and what else it is called, blanks,
# dashes and slashes left out. The code extensions of ISO 2022 (Japanese senders repeat MSH-18 for them) are one codec.
_SETS: dict[str, tuple[str, ...]] = {
    "ascii": ("ASCII", "USASCII", "ISOIR6"),
    "utf-8": ("UNICODE UTF-8", "UNICODE", "UTF8"),
    "gb18030": ("GB 18030-2000", "GB18030", "GB180302005", "GB180302022"),
    "gbk": ("GB 18030-2000", "GBK", "CP936", "MS936"),
    "gb2312": ("GB 18030-2000", "GB2312", "EUCCN"),
    "big5": ("BIG-5",),
    "big5hkscs": ("BIG5-HKSCS",),
    "cp950": ("CP950", "MS950"),
    "euc_kr": ("KS X 1001", "EUCKR", "KSC5601"),
    "cp949": ("CP949", "MS949", "UHC"),
    "shift_jis": ("ISO IR13", "SHIFTJIS", "SJIS"),
    "cp932": ("CP932", "MS932", "WINDOWS31J"),
    "euc_jp": ("EUC-JP",),
    "iso2022_jp_ext": ("~ISO IR87", "ISOIR14", "ISOIR159", "ISO2022JP", "ISO2022JPEXT", "JISX0202", "JAS2020"),
    "iso8859-1": ("8859/1", "ISO88591", "ISOIR100", "LATIN1"),
    **{f"iso8859-{part}": (f"8859/{part}", f"ISO8859{part}") for part in (*range(2, 10), 15)},
    **{f"cp{page}": (f"CP{page}", f"WINDOWS{page}") for page in range(1250, 1259)},
}
_KNOWN = ", ".join(map(str.upper, _SETS))
# Senders that name the older set use characters of the newer one, which contains it. What ISO 2022 switches to is no
# part of the set that it begins with.
_READ_AS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "euc_kr": "cp949", "shift_jis": "cp932"}
_READ_AS |= {"iso2022_jp_ext": "ascii"}
# ISO 2022 can switch from these: their bytes below 80 are ASCII whatever stands before them.
_SWITCHABLE = re.compile("ascii|utf-8|iso.*|shift_jis|euc_..")
# A text of these that is good UTF-8 is UTF-8: it would have capital letters with signs after them and nothing else.
_WESTERN = frozenset(("iso8859-1", "iso8859-9", "iso8859-15", "cp1252"))


def decode(payload: bytes, default: Sequence[str] = ()) -> tuple[str, Reason | None]:
    """The text of a message, and why it cannot be trusted if it cannot.

    A payload that begins with MSH names its set in MSH-18 (HL7 2.5, 2.15.9.18): the first repeat is what it begins in,
    ASCII where that is empty, and the others are what it switches to. Any other payload (ASTM) has the link's ``default``
    alone. A declared set that the bytes contradict, or none, gives way to the defaults in their order, each strictly;
    ASCII is the standard's own default. Where nothing fits: the text with ``<DC>`` and the like, and the reason
    ``undecodable`` (charset, offset of the first wrong byte) or ``unsupported-charset`` (charset): UTF-16 and UTF-32
    collide with the framing, and Python has no codec for CNS 11643-1992. So is a text in which the sender itself has
    replaced characters by U+FFFD. Raises LookupError for an unknown name in ``default``.
    """
    head = payload.lstrip(_BLANK)
    name, delimiters = (_declared(head), head[3:8]) if head[:3] == b"MSH" else ("", b"")
    readable, declared = _sets(name)
    if not readable:
        return payload.decode("ascii", _SHOWN), Reason("unsupported-charset", {"charset": name})
    switches = iso2022.switches(payload, delimiters)
    if switches is None and payload.isascii():
        return payload.decode("ascii"), None
    settled = len(declared) - 1 if declared else 1  # what the sender named, else what the link is set to; the rest are guesses
    for number, candidate in enumerate((*(declared or ["ascii"]), *map(codec, default))):
        text, _ = _strictly(payload, candidate, switches)
        if text is not None and (number <= settled or not _swallows(payload, text)):
            return text, _lost(payload, candidate) if "\ufffd" in text else None
    first = declared[0] if declared else "ascii"
    text = payload.decode(_READ_AS.get(first, first), _SHOWN)
    if name and not declared:
        return text, Reason("unsupported-charset", {"charset": name})
    _, offset = _strictly(payload, first, switches)
    return text, Reason("undecodable", {"charset": name or "ASCII", "offset": str(offset)})


@lru_cache(maxsize=256)
def _sets(name: str) -> tuple[bool, Sequence[str]]:
    """Whether a set of the name in MSH-18 can be read at all, and the codecs of those that it names."""
    repeats = ["ASCII", *name.split("~")] if name[:1] == "~" else name.split("~")
    declared = [NAMES[plain] for repeat in repeats if (plain := _plain(repeat)) in NAMES]
    return not _UNREADABLE.search(name.partition("~")[0]), declared


def _lost(payload: bytes, codec: str) -> Reason:
    """Why a text is held whose sender had characters that it could not write."""
    offset = payload.find("\ufffd".encode(_READ_AS.get(codec, codec)))
    return Reason("undecodable", {"charset": _SETS[codec][0], "offset": str(offset)})


def _swallows(payload: bytes, text: str) -> bool:
    """Whether a guessed set has taken separators for halves of its characters: fields would shift."""
    return any(text.count(separator) < payload.count(separator.encode()) for separator in "|^~\\")


def _show(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"<{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_SHOWN, _show)


def decode_part(data: bytes, names: Sequence[str]) -> str:
    """The text of a few bytes in the first of these sets that they fit, unknown names passed over; raises UnicodeError."""
    for name in names:
        known = NAMES.get(_plain(name))
        text = _strictly(data, known, None)[0] if known else None
        if text is not None:
            return text
    raise UnicodeError


def encode(text: str, name: str) -> bytes:
    """The bytes of what we send, strictly; raises LookupError for an unknown set, UnicodeEncodeError for the text."""
    return text.encode(codec(name))


@lru_cache(maxsize=256)
def codec(name: str) -> str:
    """Python's codec for a character set by any of its names; raises LookupError."""
    found = NAMES.get(_plain(name))
    if found is None:
        raise LookupError(f"unknown character set {name!r}; known are: {_KNOWN}")
    return found


def table_name(name: str) -> str:
    """What MSH-18 calls this set (HL7 table 0211); Python's name where the table has none. Raises LookupError."""
    return _SETS[codec(name)][0]


def _plain(name: str) -> str:
    return re.sub("[^A-Z0-9]", "", name.upper())


# Reversed, because the first of those that share a name is meant by it.
NAMES = {_plain(name): codec for codec, names in reversed(_SETS.items()) for name in names}


def _declared(head: bytes) -> str:
    """MSH-18 as it is written, without empty repeats at its end."""
    end = head.find(b"\r", 0, _HEADER_BYTES)
    header = head[: end if end >= 0 else _HEADER_BYTES].partition(b"\n")[0]
    fields = header.split(header[3:4] or b"|", 18)
    if len(fields) <= 17:
        return ""
    return _name(fields[17]) if len(fields[17]) <= 100 else _name.__wrapped__(fields[17])


@lru_cache(maxsize=256)
def _name(field: bytes) -> str:
    return field.decode("ascii", "replace").rstrip(" ~").lstrip(" ")[:40]


def _strictly(payload: bytes, codec: str, switches: iso2022.Switches | None) -> tuple[str | None, int]:
    """The text, or where its first wrong byte stands."""
    read_as = _READ_AS.get(codec, codec)
    if switches is not None and not _SWITCHABLE.fullmatch(codec):
        return None, 0
    try:
        text = payload.decode(read_as) if switches is None else iso2022.decode(payload, read_as, switches)
    except UnicodeDecodeError as error:
        return None, error.start
    if codec in _WESTERN and switches is None and _is_utf8(payload):
        return None, next(match.start() for match in _HIGH.finditer(payload))
    wrong = _C1.search(text) if codec.startswith("iso8859") else None
    return (text, 0) if wrong is None else (None, wrong.start())


def _is_utf8(payload: bytes) -> bool:
    try:
        return len(payload.decode("utf-8")) < len(payload)
    except UnicodeDecodeError:
        return False
