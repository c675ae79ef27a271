"""The pipe encoding of HL7 v2 (ER7), read lazily and in linear time.

Text comes in, segments come out; each is split into fields when one of them is first asked for, and an escape is
resolved only after its component was cut out. Nothing here knows what a segment means: that is ``hl7v2``'s part.
``messages`` works on bytes, before any character set is known, and takes batches apart.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from labbridge.model import Reason, RemoteProtocolError

Decode = Callable[[bytes], str]


class Delimiters(NamedTuple):
    r"""The characters that a message's own header names in MSH-1 and MSH-2; by default ``|^~\&`` (HL7 2.5.4)."""

    field: str = "|"
    component: str = "^"
    repeat: str = "~"
    escape: str = "\\"
    sub: str = "&"


DEFAULT = Delimiters()


class Segment:
    """One segment: its name and its raw text; fields are numbered as in the standard."""

    __slots__ = ("_decode", "_fields", "delimiters", "name", "raw")

    def __init__(self, raw: str, delimiters: Delimiters, decode: Decode | None = None) -> None:
        self.raw = raw
        self.name = raw[:3]
        self.delimiters = delimiters
        self._decode = decode
        self._fields: list[str] | None = None

    @property
    def fields(self) -> list[str]:
        """The raw fields; the name stands at 0, so that ``fields[n]`` is field n (in MSH, 1 is the separator)."""
        fields = self._fields
        if fields is None:
            separator = self.delimiters.field
            fields = self._fields = self.raw.split(separator)
            if self.name in _HEADERS:
                fields.insert(1, separator)
        return fields

    def field(self, n: int) -> str:
        """The raw text of field ``n``, repeats and escapes included; empty when it was not sent."""
        fields = self._fields or self.fields
        return fields[n] if n < len(fields) else ""

    def repeats(self, n: int) -> list[str]:
        """The raw repeats of field ``n``; none when it is empty."""
        text = self.field(n)
        return text.split(self.delimiters.repeat) if text else []

    def component(self, n: int, c: int = 1, s: int = 1, rep: int = 1) -> str:
        """One subcomponent, escapes resolved; empty when it was not sent.

        ``s=0`` gives the whole component, for text in which somebody forgot to escape the subcomponent separator.
        MSH-1 and MSH-2 are never cut.
        """
        text = self.field(n)
        if not text or (n <= 2 and self.name in _HEADERS):
            return text
        _, component, repeat, mark, sub = self.delimiters
        if rep != 1 or repeat in text:
            text = _nth(text, repeat, rep)
        if c != 1 or component in text:
            text = _nth(text, component, c)
        if s > 1 or (s and sub in text):
            text = _nth(text, sub, s)
        return unescape(text, self.delimiters, self._decode) if mark in text else text

    def __repr__(self) -> str:
        return f"Segment({self.name!r})"  # never the content: it may be a patient's


class Message:
    """One message: its delimiters and its segments in the order in which they were sent."""

    __slots__ = ("delimiters", "segments")

    def __init__(self, delimiters: Delimiters, segments: list[Segment]) -> None:
        self.delimiters = delimiters
        self.segments = segments

    def all(self, name: str) -> list[Segment]:
        """Every segment of this name."""
        return [segment for segment in self.segments if segment.name == name]

    def first(self, name: str) -> Segment | None:
        """The first segment of this name, or None."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        return None


def parse(text: str, decode: Decode | None = None) -> Message:
    r"""Split a message that begins with MSH into its segments.

    Segments end with CR; LF and CRLF are tolerated. A line that is no segment goes on with the one before it, LF
    between them: some senders break long text so, and what was sent must not be lost. ``decode`` turns the bytes of
    ``\Xdd..\`` into text (UTF-8 by default). Raises RemoteProtocolError when there is no MSH or its delimiters are
    unusable.
    """
    text = text.lstrip("\ufeff \t\r\n\x0b\x1c")
    if text[:3] != "MSH":
        raise RemoteProtocolError(Reason("no-header"), error_code="100")
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    found = delimiters(text[:20])
    separator = found.field
    segments: list[Segment] = []
    broken: list[str] = []
    for line in text.split("\r"):
        if line[3:4] != separator and not _NAME.fullmatch(line):
            bare = line.strip(" \t\x0b\x1c")
            if bare[3:4] != separator:
                if bare:
                    broken.append(line)
                continue
            line = bare
        if broken:
            _go_on(segments[-1], broken)
        segments.append(Segment(line, found, decode))
    if broken:
        _go_on(segments[-1], broken)
    return Message(found, segments)


def delimiters(header: str) -> Delimiters:
    """The delimiters that a header line names; raises RemoteProtocolError when they are unusable."""
    field = header[3:4]
    encoding = header[4:20].partition(field or "|")[0].partition("\r")[0]
    # An escape character doubled by a careless program means one: ^~\\& is seen in the field.
    encoding = re.sub(r"(.)\1", r"\1", encoding)
    distinct = {field, *encoding}
    if len(encoding) not in (4, 5) or len(distinct) != len(encoding) + 1 or not all(map(_usable, distinct)):
        raise RemoteProtocolError(Reason("unusable-delimiters"), error_code="102")
    return Delimiters(field, *encoding[:4])


def escape(text: str, delimiters: Delimiters = DEFAULT) -> str:
    r"""Escape whatever would be read as a delimiter or end a segment or an MLLP block; CR is ``\X0D\`` (HL7 2.7)."""
    special, sequences = _escapes(delimiters)
    if special.search(text) is None:
        return text
    return special.sub(lambda match: sequences[match[0]], text)


def unescape(text: str, delimiters: Delimiters = DEFAULT, decode: Decode | None = None) -> str:
    r"""Resolve ``\F\ \S\ \T\ \R\ \E\``, ``\Xdd..\`` and Japanese text between ``\Mxxyy\`` and ``\C2842\``.

    Every other sequence, and a lone escape character, is kept (HL7 2.5, 2.7). Adjacent ``\X..\`` are decoded together,
    since a character may be spread over them. ``decode`` is that of the message's character set, UTF-8 by default;
    bytes that it refuses stay as they were sent.
    """
    if delimiters.escape not in text:
        return text
    pattern, plain, characters = _unescapes(delimiters)

    def resolve(match: re.Match[str]) -> str:
        if match[1]:
            return characters[match[1]]
        try:
            if match[2]:
                data = bytes.fromhex("".join(_HEX.findall(match[2])))
                return decode(data) if decode else data.decode()
            if match[3]:
                shifted = plain.sub(lambda found: characters[found[1]], match[4])
                return (b"\x1b" + bytes.fromhex(match[3]) + shifted.encode("ascii")).decode("iso2022_jp_ext")
        except UnicodeError:
            pass
        return match[0]

    return pattern.sub(resolve, text)


def messages(payload: bytes, *, verify: bool = True) -> list[bytes]:
    """Take a payload apart into its messages, the envelope of a batch removed (HL7 2.5, 2.10.3).

    A payload of one message is given back as it is; several may follow each other with or without FHS and BHS; a
    batch of none is legal. Bytes before the first header stay with the first message. Raises RemoteProtocolError
    when BTS-1 or FTS-1 is not what was found, for then the whole batch is refused; not so without ``verify``.
    """
    if payload[:3] == b"MSH" and payload.rfind(b"MSH") == 0:
        return [payload]
    marks = [match.start(1) for match in _MARK.finditer(payload)]
    if not marks:
        return [payload]
    found: list[bytes] = []
    count = batches = 0
    for start, end in zip(marks, [*marks[1:], len(payload)], strict=True):
        name = payload[start : start + 3]
        if name == b"MSH":
            found.append(payload[start:end])
            count += 1
        elif name == b"BHS":
            batches += 1
            count = 0
        elif verify and name == b"BTS":
            _verify_count(payload[start:end], count)
        elif verify and name == b"FTS":
            _verify_count(payload[start:end], batches or min(len(found), 1))
    before = payload[: marks[0]]
    if before.strip(_BLANK):
        found[:1] = [before + b"".join(found[:1])]
    return found


_HEADERS = frozenset(("MSH", "FHS", "BHS"))
_NAME = re.compile("[A-Z][A-Z0-9]{2}")
_BLANK = b" \t\r\n\x0b\x1c\xef\xbb\xbf"
_MARK = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n\x0b\x1c])[ \t]?(MSH|FHS|BHS|BTS|FTS)(?=[^0-9A-Za-z]|\Z)")
_HEX = re.compile(r"(?<=X)(?:[0-9A-Fa-f]{2})+")


def _usable(character: str) -> bool:
    return "!" <= character <= "~" and not character.isalnum()


def _go_on(segment: Segment, lines: list[str]) -> None:
    segment.raw = "\n".join((segment.raw, *lines))
    lines.clear()


def _nth(text: str, separator: str, n: int) -> str:
    if n == 1:
        return text.partition(separator)[0]
    parts = text.split(separator, n)
    return parts[n - 1] if n <= len(parts) else ""


def _verify_count(trailer: bytes, found: int) -> None:
    said = trailer.split(trailer[3:4], 2)[1].strip(_BLANK) if trailer[3:4].strip(_BLANK) else b""
    if said and not (said.isdigit() and int(said) == found):
        params = {"segment": trailer[:3].decode(), "found": str(found)}
        raise RemoteProtocolError(Reason("batch-count", params), error_code="102")


@lru_cache(maxsize=64)
def _escapes(delimiters: Delimiters) -> tuple[re.Pattern[str], dict[str, str]]:
    mark = delimiters.escape
    letters = zip(delimiters, "FSRET", strict=True)
    sequences = {character: f"{mark}{letter}{mark}" for character, letter in letters}
    sequences |= {control: f"{mark}X{ord(control):02X}{mark}" for control in "\r\n\x0b\x1c"}
    return re.compile(f"[{re.escape(''.join(sequences))}]"), sequences


@lru_cache(maxsize=64)
def _unescapes(delimiters: Delimiters) -> tuple[re.Pattern[str], re.Pattern[str], dict[str, str]]:
    mark = re.escape(delimiters.escape)
    plain = f"{mark}([FSRET]){mark}"
    data = f"((?:{mark}X(?:[0-9A-Fa-f]{{2}})+{mark})+)"
    shifted = rf"{mark}M(24(?:[0-9A-Fa-f]{{2}}){{1,2}}){mark}(.*?)(?:{mark}C2842{mark}|\Z)"
    # The last kind is matched only to be kept: its closing mark must not open the next sequence.
    kept = f"{mark}(?:[HN]|[.CMZ][^{mark}]*){mark}"
    pattern = re.compile(f"{plain}|{data}|{shifted}|{kept}", re.DOTALL)
    return pattern, re.compile(plain), dict(zip("FSRET", delimiters, strict=True))
