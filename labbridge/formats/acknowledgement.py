"""HL7 v2 acknowledgements: made for any bytes, from the header line alone, and read from a hospital's answer.

What the codes mean here: A stored, E not stored and to be sent again, R stored but not of a type or version of ours.
Nothing here decides that. The reply is made of the sender's own bytes, so that no character set can spoil MSA-2.
"""

import re
from functools import lru_cache
from typing import Literal

import msgspec

from labbridge.formats import charset, er7
from labbridge.model import RemoteProtocolError

Code = Literal["A", "E", "R"]


class HisAnswer(msgspec.Struct, frozen=True):
    """A hospital's acknowledgement; ``code`` is empty when the bytes are none. ``text`` may name a patient."""

    code: str = ""  # HL7 table 0008: AA AE AR CA CE CR
    control_id: str = ""  # MSA-2: the MSH-10 that is answered
    errors: tuple[str, ...] = ()  # HL7 table 0357, or the hospital's own
    text: str = ""


def acknowledge(
    payload: bytes, code: Code, *, stamp: str, control_id: str, error_code: str = "", text: str = ""
) -> tuple[bytes, ...]:
    """The replies that a payload is owed, in the order in which they are sent; any bytes have one.

    Original mode (HL7 2.5, 2.9.2), when neither MSH-15 nor MSH-16 is of table 0155: one AA, AE or AR. Enhanced mode
    (2.9.3): CA, CE or CR as MSH-15 asks, then AA, AE or AR as MSH-16 asks; none when neither does. An acknowledgement
    gets none. Each message of a batch gets its own. What has no MSH is answered with an empty MSA-2.

    ``stamp`` is YYYYMMDDHHMMSS+ZZZZ; ``control_id`` becomes MSH-10, numbered when several replies leave.
    ``error_code`` (HL7 table 0357, 207 by default) and ``text`` go with E and R.
    """
    replies: list[bytes] = []
    for message in er7.messages(payload, verify=False) or [b""]:
        header = _Header(message)
        for answer in header.owed(code):
            number = f"{control_id[:17]}-{len(replies)}" if replies else control_id
            replies.append(header.reply(answer, stamp, number, error_code or "207", text))
    return tuple(replies)


def read_answer(payload: bytes) -> HisAnswer:
    """A hospital's acknowledgement (MSA, ERR), or one without a code when the bytes are none; never raises."""
    try:
        message = er7.parse(charset.decode(payload)[0])
    except RemoteProtocolError:
        return HisAnswer()
    msa = message.first("MSA")
    code = msa.component(1).strip().upper() if msa else ""
    if msa is None or code not in _CODES:
        return HisAnswer()
    errors = [msa.component(6)]
    texts = [msa.component(3)]
    for err in message.all("ERR"):
        errors.append(err.component(3))
        errors += [err.component(1, 4, rep=rep + 1) for rep in range(len(err.field(1).split(message.delimiters.repeat)))]
        texts += [err.component(8), err.component(7), err.component(3, 2)]
    found = dict.fromkeys(code.strip() for code in errors)
    found.pop("", None)
    return HisAnswer(code, msa.component(2), tuple(found), next(filter(None, texts), ""))


# HL7 table 0155: which codes are answered.
_CONDITIONS = {b"AL": "AER", b"NE": "", b"ER": "ER", b"SU": "A"}
_CODES = frozenset(("AA", "AE", "AR", "CA", "CE", "CR"))
# HL7 table 0357.
_ERRORS = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}
_HEADER_BYTES = 65536
_USUAL = b"|^~\\&|"
_ANSWERS = (b"ACK", b"MCF")
_FRAMING = b"\x0b\x1c"  # would break the frame that the reply travels in


class _Header:
    """The header line of one received message, as far as its acknowledgement needs it."""

    __slots__ = ("component", "delimiters", "event", "fields", "is_answer")

    def __init__(self, message: bytes) -> None:
        if message[:3] != b"MSH":
            message = message[max(message.find(b"MSH"), 0) :]
        end = message.find(b"\r", 0, _HEADER_BYTES)
        head = message[: end if end >= 0 else _HEADER_BYTES].partition(b"\n")[0].translate(None, _FRAMING)
        self.delimiters = er7.DEFAULT if head[3:9] == _USUAL else _delimiters(head)
        self.component = self.delimiters.component.encode()
        fields = head.split(self.delimiters.field.encode()) if head[:3] == b"MSH" else []
        self.fields = fields if len(fields) >= 18 else fields + [b""] * (18 - len(fields))
        kind = self.fields[8].split(self.component)
        self.event = kind[1] if len(kind) > 1 else b""
        self.is_answer = kind[0] in _ANSWERS or (not kind[0] and message[end + 1 : end + 4] == b"MSA")

    def owed(self, code: Code) -> tuple[str, ...]:
        if self.is_answer:
            return ()
        accept = _CONDITIONS.get(self.fields[14])
        application = _CONDITIONS.get(self.fields[15])
        if accept is None and application is None:
            return ("A" + code,)
        owed = ("C" + code,) if code in (accept or "") else ()
        return (*owed, "A" + code) if code in (application or "") else owed

    def reply(self, answer: str, stamp: str, control_id: str, error_code: str, text: str) -> bytes:
        separator, fields = self.delimiters.field.encode(), self.fields
        version = fields[11] or b"2.3.1"
        level = _level(version)
        kind = [b"ACK", self.event, b"ACK" if level >= (2, 3, 1) else b""] if self.event else [b"ACK"]
        encoding = "".join(self.delimiters[1:]).encode()
        header = [b"MSH", encoding, fields[4], fields[5], fields[2], fields[3], stamp.encode(), b""]
        header += [self.component.join(kind).rstrip(self.component), control_id.encode(), fields[10] or b"P", version]
        header += [b"", b"", b"", b"", b"", fields[17]]
        msa = [b"MSA", answer.encode(), fields[9]]
        if answer[1] == "A":
            return separator.join(header).rstrip(separator) + b"\r" + separator.join(msa) + b"\r"
        shown = self._encoded(text)
        if level < (2, 7):
            msa.append(shown)
        segments = (header, msa, self._error(level, error_code, shown))
        return b"".join(separator.join(segment).rstrip(separator) + b"\r" for segment in segments)

    def _error(self, level: tuple[int, ...], code: str, shown: bytes) -> list[bytes]:
        """ERR-3, 4 and 8 from version 2.5, before it ERR-1.4 (HL7 2.4, 2.15.6)."""
        parts = [self._encoded(part) for part in (code, _ERRORS.get(code, ""), "HL70357")]
        if level >= (2, 5):
            return [b"ERR", b"", b"", self.component.join(parts), b"E", b"", b"", b"", shown]
        return [b"ERR", self.component * 3 + self.delimiters.sub.encode().join(parts)]

    def _encoded(self, text: str) -> bytes:
        """Our own words in the sender's character set; where it has them not, with question marks."""
        text = er7.escape(text, self.delimiters)
        try:
            return charset.encode(text, self.fields[17].decode("ascii", "replace") or "ASCII")
        except (LookupError, UnicodeEncodeError):
            return text.encode("ascii", "replace")


def _delimiters(head: bytes) -> er7.Delimiters:
    """The sender's delimiters; where they are unusable the usual ones, with its own separator if that will do."""
    try:
        return er7.delimiters(head[:20].decode("ascii", "replace"))
    except RemoteProtocolError:
        separator = head[3:4].decode("ascii", "replace")
        usable = separator in set("!\"#$%'()*+,-./:;<=>?@[]_`{|}")
        return er7.DEFAULT._replace(field=separator) if usable else er7.DEFAULT


@lru_cache(maxsize=64)
def _level(version: bytes) -> tuple[int, ...]:
    """2.5.1 as numbers; what follows the version's own component does not count."""
    return tuple(map(int, re.findall(rb"\d{1,3}", version[:8])))
