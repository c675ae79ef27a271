"""HL7 v2 acknowledgements: made for any bytes, from the header line alone, and read from a hospital's answer.

What the codes mean here: A stored, E not stored and to be sent again, R stored but not of a type or version of ours.
Nothing here decides that. The reply is made of the sender's own bytes, each taken for a character of Latin-1, so that
no character set can spoil MSA-2.
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
        delimiters, fields = _header(message)
        for answer in _owed(delimiters, fields, code):
            number = f"{control_id[:17]}-{len(replies)}" if replies else control_id
            replies.append(_reply(delimiters, fields, answer, stamp, number, error_code or "207", text))
    return tuple(replies)


def read_answer(payload: bytes) -> HisAnswer:
    """A hospital's acknowledgement (MSA, ERR), or one without a code when the bytes are none; never raises."""
    plain = _ACCEPTED.fullmatch(payload)
    if plain:  # nearly always
        return HisAnswer(plain[1].decode(), plain[2].decode())
    try:
        message = er7.parse(charset.decode(payload)[0])
    except RemoteProtocolError:
        return HisAnswer()
    msa = message.first("MSA")
    code = msa.component(1).strip().upper() if msa else ""
    if msa is None or not re.fullmatch("[AC][AER]", code):
        return HisAnswer()
    errors, texts = [msa.component(6)], [msa.component(3)]
    for err in message.all("ERR"):
        repeats = err.field(1).count(message.delimiters.repeat) + 1
        errors += [err.component(3), *(err.component(1, 4, rep=rep + 1) for rep in range(repeats))]
        texts += [err.component(8), err.component(7), err.component(3, 2)]
    known = dict.fromkeys(filter(None, map(str.strip, errors)))
    return HisAnswer(code, msa.component(2), tuple(known), next(filter(None, texts), ""))


_ACCEPTED = re.compile(rb"MSH\|\^~\\&\|[^\r\n]*\rMSA\|([AC]A)\|([0-9A-Za-z._-]+)\|*\r?")
# HL7 table 0155: which codes are answered.
_CONDITIONS = {"AL": "AER", "NE": "", "ER": "ER", "SU": "A"}
# HL7 table 0357, as far as labbridge uses it.
_ERRORS = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "203": "Unsupported version id",
    "207": "Application internal error",
}
_HEADER_BYTES = 65536
_FIELDS = 19


def _header(message: bytes) -> tuple[er7.Delimiters, list[str]]:
    """The delimiters and fields of a message's header line, blank where there are none; MSH-9 says ACK of any answer."""
    start = max(message.find(b"MSH"), 0)
    end = message.find(b"\r", start, start + _HEADER_BYTES)
    line = message[start : end if end >= 0 else start + _HEADER_BYTES].partition(b"\n")[0]
    head = line.translate(None, b"\x0b\x1c").decode("latin-1")  # which would break the frame of the reply
    if head[:3] != "MSH":
        return er7.DEFAULT, [""] * _FIELDS
    try:
        delimiters = er7.delimiters(head[:20])
    except RemoteProtocolError:  # the usual ones, with the sender's own separator if that will do
        usable = re.fullmatch(r"[!-%'-/:-@\[\]_`{|}]", head[3:4])
        delimiters = er7.DEFAULT._replace(field=head[3]) if usable else er7.DEFAULT
    fields = [*er7.Segment(head, delimiters).fields, *[""] * _FIELDS]
    if not fields[9] and message[end + 1 : end + 4] == b"MSA":
        fields[9] = "ACK"
    return delimiters, fields


def _owed(delimiters: er7.Delimiters, fields: list[str], code: Code) -> tuple[str, ...]:
    if fields[9].split(delimiters.component)[0] in ("ACK", "MCF"):
        return ()
    accept, application = _CONDITIONS.get(fields[15]), _CONDITIONS.get(fields[16])
    if accept is None and application is None:
        return ("A" + code,)
    return tuple(kind + code for kind, codes in (("C", accept), ("A", application)) if code in (codes or ""))


def _reply(
    delimiters: er7.Delimiters, fields: list[str], answer: str, stamp: str, control_id: str, error_code: str, text: str
) -> bytes:
    """The header, with sender and receiver the other way round, MSA, and ERR where it is no positive answer."""
    version = fields[12] or "2.3.1"
    level = _level(version)
    event = er7.nth(fields[9], delimiters.component, 2)
    kind = delimiters.component.join(["ACK", event, "ACK"][: 1 if not event else 3 if level >= (2, 3, 1) else 2])
    header = ["MSH", "".join(delimiters[1:]), fields[5], fields[6], fields[3], fields[4], stamp, "", kind, control_id]
    segments = [[*header, fields[11] or "P", version, "", "", "", "", "", fields[18]], ["MSA", answer, fields[10]]]
    if answer[1] != "A":
        # Our own words in the sender's character set; where it has them not, with question marks.
        parts = [er7.escape(part, delimiters) for part in (error_code, _ERRORS.get(error_code, ""), "HL70357")]
        shown = er7.escape(text, delimiters)
        try:
            shown = charset.encode(shown, fields[18] or "ASCII").decode("latin-1")
        except (LookupError, UnicodeEncodeError):
            shown = shown.encode("ascii", "replace").decode()
        if level < (2, 7):
            segments[1].append(shown)
        if level >= (2, 5):
            segments.append(["ERR", "", "", delimiters.component.join(parts), "E", "", "", "", shown])
        else:  # ERR-1.4 (HL7 2.4, 2.15.6)
            segments.append(["ERR", delimiters.component * 3 + delimiters.sub.join(parts)])
    lines = [delimiters.field.join(segment).rstrip(delimiters.field) + "\r" for segment in segments]
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=64)
def _level(version: str) -> tuple[int, ...]:
    """2.5.1 as numbers; what follows the version's own component does not count."""
    return tuple(map(int, re.findall(r"\d{1,3}", version[:8], re.ASCII)))
