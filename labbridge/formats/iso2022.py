r"""Text that changes its character set as it goes: the code extension of ISO 2022, as Japanese senders use it.

A switch is written in one of two ways: ESC and the bytes that designate a set (MSH-20 is ``ISO 2022-1994``), or these
bytes in hexadecimal between two of HL7's escape characters, ``\C2842\`` or ``\M2442\`` (HL7 2.5, 2.7.2). Bytes come in,
and the set that they begin with; text goes out. The end of a segment switches back to where it began.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_Set = tuple[str, bytes]  # the codec that knows its characters with their eighth bit set, and what it wants before each
# JIS X 0201's Roman is ASCII here: it has a yen sign where the sender means HL7's escape character.
_ASCII: _Set = ("ascii", b"")
_KANJI: _Set = ("euc_jp", b"")
_KATAKANA: _Set = ("euc_jp", b"\x8e")
_GB2312: _Set = ("gb2312", b"")
_KS_X_1001: _Set = ("euc_kr", b"")
# What each designation means, for bytes below 80 and for those above (ISO-IR numbers as in HL7 table 0211).
_LOWER: dict[bytes, _Set] = {
    **dict.fromkeys((b"(B", b"(J"), _ASCII),  # ISO IR6, IR14
    **dict.fromkeys((b"$B", b"$@", b"$(B"), _KANJI),  # ISO IR87: JIS X 0208
    b"$(D": ("euc_jp", b"\x8f"),  # ISO IR159: JIS X 0212
    b"(I": _KATAKANA,  # ISO IR13
    **dict.fromkeys((b"$A", b"$(A"), _GB2312),
    b"$(C": _KS_X_1001,
}
_UPPER: dict[bytes, _Set] = {
    **{b"-" + final.encode(): (f"iso8859-{part}", b"") for part, final in zip((*range(1, 10), 15), "ABCDLGFHMb", strict=True)},
    b")I": _KATAKANA,
    b"$)A": _GB2312,
    b"$)C": _KS_X_1001,
}
_EIGHTH_BIT = bytes(byte | 0x80 for byte in range(256))
_RUN = re.compile(rb"(?P<lower>[!-~]+)|(?P<upper>[\x80-\xff]+)|[\x00-\x20\x7f]+")


class Switches(NamedTuple):
    """What finds the switches of a payload, the ends of its segments, and delimiters that are escaped between switches."""

    switch: re.Pattern[bytes]
    end: re.Pattern[bytes]
    escaped: re.Pattern[bytes]
    delimiters: dict[bytes, bytes]


def switches(payload: bytes, delimiters: bytes = b"") -> Switches | None:
    """Finds whether a payload has switches at all; None, as for nearly every one, where it has not.

    ``delimiters`` are the five characters of MSH-1 and MSH-2; without them only ESC is looked for.
    """
    mark = delimiters[3:4]
    if b"\x1b" not in payload and (not mark or payload.find(mark, 8) < 0):  # the usual case, quickly: MSH-2 has the only one
        return None
    found = _patterns(delimiters if mark else b"")
    return found if found.switch.search(payload) else None


def decode(payload: bytes, base: str, found: Switches) -> str:
    """The text of a payload that begins in a set whose lower half is ASCII, given by its codec.

    UTF-8 keeps its upper half whatever is designated. Raises UnicodeDecodeError, whose ``start`` is that of the run of
    bytes that have no meaning, or of a switch that is not known.
    """
    text: list[str] = []
    for line in found.end.finditer(payload):
        at, lower, upper, own = line.start(), _ASCII, (base, b""), False
        for match in found.switch.finditer(payload, *line.span()):
            text += _run(payload, at, match.start(), (lower, upper), found if own else None)
            at, name = match.end(), match[1] or bytes.fromhex(match[2].decode())
            if name in _LOWER:
                lower, own = _LOWER[name], bool(match[2])
            elif name not in _UPPER:
                raise UnicodeDecodeError("iso2022", payload, match.start(), at, "designates no known set")
            elif base != "utf-8":
                upper = _UPPER[name]
        text += _run(payload, at, line.end(), (lower, upper), found if own else None)
    return "".join(text)


@lru_cache(maxsize=64)
def _patterns(delimiters: bytes) -> Switches:
    mark = re.escape(delimiters[3:4]) or rb"(?!)"
    switch = rb"\x1b([ -/]{1,3}[0-~])|%b[CM]((?:[0-9A-Fa-f]{2}){2,3})%b" % (mark, mark)
    characters = {letter.encode(): delimiters[n : n + 1] for n, letter in enumerate("FSRET")}
    escaped = re.compile(rb"%b([FSRET])%b" % (mark, mark))
    return Switches(re.compile(switch), re.compile(rb"[^\r\n]*[\r\n]*"), escaped, characters)


def _run(payload: bytes, at: int, end: int, sets: tuple[_Set, _Set], own: Switches | None) -> list[str]:
    """What stands between two switches; ``own`` where they are HL7's, for only then its delimiters are escaped there."""
    run, (lower, upper) = payload[at:end], sets
    if own and lower is not _ASCII:
        run = own.escaped.sub(lambda match: own.delimiters[match[1]], run)
    text = []
    for piece in _RUN.finditer(run):
        try:
            text.append(_decoded(piece[0], {"lower": lower, "upper": upper}.get(piece.lastgroup or "", _ASCII)))
        except UnicodeDecodeError as error:
            raise UnicodeDecodeError(error.encoding, payload, at + piece.start(), end, error.reason) from None
    return text


def _decoded(piece: bytes, of: _Set) -> str:
    codec, before = of
    if of is _ASCII:
        return piece.decode()
    piece = piece.translate(_EIGHTH_BIT)
    if before:
        size = 1 if of is _KATAKANA else 2
        piece = b"".join(before + piece[n : n + size] for n in range(0, len(piece), size))
    try:
        return piece.decode(codec)
    except UnicodeDecodeError:
        if of is not _KANJI or len(piece) % 2:
            raise
        return _vendors_kanji(piece)


def _vendors_kanji(pairs: bytes) -> str:
    """JIS X 0208 with the rows that Windows adds to it (13, 89 to 92): 髙 and 﨑 stand there."""
    shifted = bytearray()
    for row, cell in zip(pairs[::2], pairs[1::2], strict=True):
        shifted.append((row - 0x7F >> 1) + (0x70 if row < 0xDF else 0xB0))
        shifted.append(cell - 2 if row % 2 == 0 else cell - (0x61 if cell < 0xE0 else 0x60))
    return shifted.decode("cp932")
