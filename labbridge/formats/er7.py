"""The pipe encoding of HL7 v2 (ER7), read lazily and in linear time.

Text comes in, segments come out; each is split into fields when it is first asked for, and an escape is resolved only
after its component was cut out. Nothing here knows what a segment means: that is ``hl7v2``'s part. ``messages`` works
on bytes, before any character set is known, and takes batches apart.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from labbridge.model import Reason, RemoteProtocolError


class Delimiters(NamedTuple):
    r"""The characters that a message's own header names in MSH-1 and MSH-2; by default ``|^~\&`` (HL7 2.5.4)."""

    field: str = "|"
    component: str = "^"
    repeat: str = "~"
    escape: str = "\\"
    sub: str = "&"


DEFAULT = Delimiters()


class Segment:
    """One segment: its name, its raw text and its raw fields, ``fields[n]`` being field n as in the standard."""

    __slots__ = ("delimiters", "fields", "name", "raw")

    def __init__(self, raw: str, delimiters: Delimiters) -> None:
        self.raw = raw
        self.name = raw[:3]
        self.delimiters = delimiters
        self.fields = raw.split(delimiters.field)
        if self.name == "MSH":
            self.fields.insert(1, delimiters.field)

    def field(self, n: int) -> str:
        """The raw text of field ``n``, repeats and escapes included; empty when it was not sent."""
        return self.fields[n] if n < len(self.fields) else ""

    def component(self, n: int, c: int = 1, s: int = 1, rep: int = 1) -> str:
        """One subcomponent, escapes resolved; empty when it was not sent.

        ``s=0`` gives the whole component, for text in which somebody forgot to escape the subcomponent separator.
        MSH-1 and MSH-2 are never cut.
        """
        text = self.field(n)
        return text if n <= 2 and self.name == "MSH" else component(text, self.delimiters, c, s, rep)


class Message(NamedTuple):
    """One message: its delimiters and the raw text of its segments, in the order in which they were sent."""

    delimiters: Delimiters
    lines: list[str]

    @property
    def segments(self) -> list[Segment]:
        """Every segment."""
        return [Segment(line, self.delimiters) for line in self.lines]

    def all(self, name: str) -> list[Segment]:
        """Every segment of this name."""
        return [Segment(line, self.delimiters) for line in self.lines if line[:3] == name]

    def first(self, name: str) -> Segment | None:
        """The first segment of this name, or None."""
        return next((Segment(line, self.delimiters) for line in self.lines if line[:3] == name), None)


def parse(text: str) -> Message:
    r"""Take a message that begins with MSH apart into its segments.

    Segments end with CR; LF and CRLF are tolerated. A line that is no segment goes on with the one before it, LF
    between them: some senders break long text so, and what was sent must not be lost. Raises RemoteProtocolError when
    there is no MSH or its delimiters are unusable.
    """
    text = text.lstrip("\ufeff \t\r\n\x0b\x1c")
    if text[:3] != "MSH":
        raise RemoteProtocolError(Reason("no-header"), error_code="100")
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    found = delimiters(text[:20])
    lines = text.rstrip("\r").split("\r")
    if set(map(_SEPARATOR, lines)) != {found.field}:
        lines = _mended(lines, found.field)
    return Message(found, lines)


def _mended(lines: list[str], separator: str) -> list[str]:
    mended = []
    for line in lines:
        bare = line.strip(" \t\x0b\x1c")
        if bare[3:4] == separator or _NAME.fullmatch(bare):
            mended.append(line if line[3:4] == separator else bare)
        elif bare:
            mended.append(f"\n{line}")
    return "\r".join(mended).replace("\r\n", "\n").split("\r")


@lru_cache(maxsize=256)
def delimiters(header: str) -> Delimiters:
    """The delimiters that a header line names; raises RemoteProtocolError when they are unusable."""
    field = header[3:4]
    encoding = header[4:20].partition(field or "|")[0].partition("\r")[0]
    # An escape character doubled by a careless program means one: ^~\\& is seen in the field.
    encoding = re.sub(r"(.)\1", r"\1", encoding)
    distinct = {field, *encoding}
    if len(encoding) not in (4, 5) or len(distinct) != len(encoding) + 1 or not all(map(_USABLE.fullmatch, distinct)):
        raise RemoteProtocolError(Reason("unusable-delimiters"), error_code="102")
    return Delimiters(field, *encoding[:4])


def component(field: str, delimiters: Delimiters, c: int = 1, s: int = 1, rep: int = 1) -> str:
    """One subcomponent of a raw field, escapes resolved; the whole component where ``s`` is 0."""
    text = nth(nth(field, delimiters.repeat, rep), delimiters.component, c)
    return unescape(nth(text, delimiters.sub, s) if s else text, delimiters)


def nth(text: str, separator: str, n: int) -> str:
    """The nth piece of a text, counted from 1; empty where there is none. No separator cuts nothing."""
    if not separator or separator not in text:
        return text if n == 1 else ""
    parts = text.split(separator, n)
    return parts[n - 1] if n <= len(parts) else ""


def escape(text: str, delimiters: Delimiters = DEFAULT) -> str:
    r"""Escape whatever would be read as a delimiter or end a segment or an MLLP block; CR is ``\X0D\`` (HL7 2.7).

    What ``unescape`` keeps of formatting (``\H\ \N\ \.br\ \Z..\``) is kept here too, so that it passes through.
    """
    special, sequences = _escapes(delimiters)
    return special.sub(lambda match: sequences.get(match[0], match[0]), text) if special.search(text) else text


def escaped(*texts: str) -> Sequence[str]:
    """Several texts escaped for the usual delimiters; looked at together, since nearly none has anything to escape."""
    special, _ = _escapes(DEFAULT)
    return [escape(text) for text in texts] if special.search("".join(texts)) else texts


def rewritten(raw: str, delimiters: Delimiters, resolve: Callable[[str], str]) -> str:
    """A raw field with the usual delimiters: the same parts, each escaped anew; ``resolve`` takes the escapes of one out.

    Linear, and without taking it apart where the sender's delimiters are the usual ones and nothing is escaped.
    """
    if delimiters == DEFAULT and DEFAULT.escape not in raw:
        return _CONTROL.sub(lambda match: f"\\X{ord(match[0]):02X}\\", raw)
    usual = dict(zip(delimiters[1:3] + delimiters[4:], DEFAULT[1:3] + DEFAULT[4:], strict=True))
    marks = re.escape("".join(usual))
    return re.sub(f"[{marks}]|[^{marks}]+", lambda match: usual.get(match[0]) or escape(resolve(match[0])), raw)


def unescape(text: str, delimiters: Delimiters = DEFAULT, decode: Callable[[bytes], str] = bytes.decode) -> str:
    r"""Resolve ``\F\ \S\ \T\ \R\ \E\`` and ``\Xdd..\``.

    Every other sequence, and a lone escape character, is kept (HL7 2.5, 2.7): ``\C..\`` and ``\M..\`` are resolved with
    the character set, before. Adjacent ``\X..\`` are decoded together, since a character may be spread over them.
    ``decode`` is that of the message's character set, UTF-8 by default; bytes that it refuses stay as they were sent.
    """
    if delimiters.escape not in text:
        return text
    pattern, characters = _unescapes(delimiters)

    def resolve(match: re.Match[str]) -> str:
        if match[1]:
            return characters[match[1]]
        if match[2]:
            with suppress(UnicodeError):
                return decode(bytes.fromhex("".join(_HEX.findall(match[2]))))
        return match[0]

    return pattern.sub(resolve, text)


def has_lone_escape(message: Message) -> bool:
    """Whether anything after the header has an escape character that belongs to no sequence (it is kept as text)."""
    mark = message.delimiters.escape
    pattern, _ = _unescapes(message.delimiters)
    texts = (text for line in message.lines[1:] if mark in line for text in line.split(message.delimiters.field))
    return any(mark in pattern.sub("", text) for text in texts if mark in text)


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


_SEPARATOR = itemgetter(slice(3, 4))
_CONTROL = re.compile("[\r\n\x0b\x1c]")
_NAME = re.compile("[A-Z][A-Z0-9]{2}")
_USABLE = re.compile("[!-/:-@[-`{-~]")
_BLANK = b" \t\r\n\x0b\x1c\xef\xbb\xbf"
_MARK = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n\x0b\x1c])[ \t]?(MSH|FHS|BHS|BTS|FTS)(?=[^0-9A-Za-z]|\Z)")
_HEX = re.compile(r"(?<=X)(?:[0-9A-Fa-f]{2})+")


def _verify_count(trailer: bytes, found: int) -> None:
    said = trailer.split(trailer[3:4], 2)[1].strip(_BLANK) if trailer[3:4].strip(_BLANK) else b""
    if said and not (said.isdigit() and int(said) == found):
        params = {"segment": trailer[:3].decode(), "found": str(found)}
        raise RemoteProtocolError(Reason("batch-count", params), error_code="102")


@lru_cache(maxsize=64)
def _escapes(delimiters: Delimiters) -> tuple[re.Pattern[str], dict[str, str]]:
    mark = delimiters.escape
    sequences = {character: f"{mark}{letter}{mark}" for character, letter in zip(delimiters, "FSRET", strict=True)}
    sequences |= {control: f"{mark}X{ord(control):02X}{mark}" for control in "\r\n\x0b\x1c"}
    inside = f"[^{re.escape(''.join(sequences))}]*"
    kept = f"{re.escape(mark)}(?:[HN]|[.Z]{inside}){re.escape(mark)}"
    return re.compile(f"{kept}|[{re.escape(''.join(sequences))}]"), sequences


@lru_cache(maxsize=64)
def _unescapes(delimiters: Delimiters) -> tuple[re.Pattern[str], dict[str, str]]:
    mark = re.escape(delimiters.escape)
    data = f"((?:{mark}X(?:[0-9A-Fa-f]{{2}})+{mark})+)"
    # The last kind is matched only to be kept: its closing mark must not open the next sequence.
    kept = f"{mark}(?:[HN]|[.CMZ][^{mark}]*){mark}"
    return re.compile(f"{mark}([FSRET]){mark}|{data}|{kept}"), dict(zip("FSRET", delimiters, strict=True))
