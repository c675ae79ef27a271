"""Reads what analyzers say in HL7 v2: results (ORU, OUL), queries, and device events, versions 2.3 to 2.6.

A payload comes in as bytes, one message or a batch; a Reading goes out. The reader knows how segments hang together
and nothing of what stands in them: that is the profile's part. A segment opens or fills the level it belongs to::

    MSH                       the message
      PID PV1                 a patient
        SPM SAC               a specimen, where SPM comes before its orders (OUL^R22, R23)
          OBR ORC TQ1 SPM     an order; an SPM after an OBR belongs to that order (ORU, OUL^R21, R24)
            OBX NTE           a result with its notes

ORC stands before its OBR or after it, and no result is given to another order for it. Acknowledgements are made in
``acknowledgement``.
"""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter

from labbridge.formats import charset, er7
from labbridge.formats.assembly import NO_RESULTS, ORDER, PATIENT, SPECIMEN, Assembly, joined
from labbridge.formats.er7 import Delimiters, Segment
from labbridge.formats.reading import SPECIMEN_CONFLICT, Reader
from labbridge.formats.rules import Fields, Rules, Scope
from labbridge.model import Reading, Reason, RemoteProtocolError
from labbridge.profiles import Profile

_RESULTS = frozenset(("ORU^R01", "ORU^R30", "ORU^R31", "ORU^R32", "OUL^R21", "OUL^R22", "OUL^R23", "OUL^R24"))
# Stored and acknowledged, and nothing follows: a query taken back, device status and events (CONFORMANCE F07, F08).
_EVENTS = frozenset(("QCN^J01", "SSU^U03", "ESU^U01", "INU^U05", "TCU^U10", "EAN^U09", "LSU^U12"))
_VERSIONS = frozenset(("2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"))
_NOTES = (Reason("lone-escape"),)
# The segments that the reader itself knows, and how many of their fields it looks at.
_LONGEST = 100  # characters of MSH-9 and MSH-12 that are worth remembering
_NAME = itemgetter(slice(3))
_KNOWN = {"MSH": 18, "PID": 0, "SPM": 2, "OBR": 0, "ORC": 0, "OBX": 5, "NTE": 0}


def read(payload: bytes, profile: Profile, zone: tzinfo, *, whole: bool = False) -> Reading:
    """Read one message, or a batch as one Reading; ``zone`` is the sender's, for times without an offset.

    An attachment (OBX-2 ED, RP) is described; where ``whole``, its value is OBX-5 for the usual delimiters, its number OBX-2.

    What disagrees or is missing is in the problems of its report, which is held. Raises RemoteProtocolError for what is
    not ours (``supported`` False: type, event, version) and for what cannot be read at all; in a batch, only when that
    is so of every message.
    """
    readings, errors = [], []
    for message in er7.messages(payload):
        try:
            readings.append(_read(message, profile, zone, whole))
        except RemoteProtocolError as error:
            errors.append(error)
    if errors and not readings:
        raise errors[0]
    if len(readings) == 1 and not errors:
        return readings[0]
    return joined(readings, [error.reason for error in errors])


def _read(payload: bytes, profile: Profile, zone: tzinfo, whole: bool) -> Reading:
    text, undecodable = charset.decode(payload, profile.charsets)
    message = er7.parse(text)
    delimiters, (head, *lines) = message
    header = Segment(head, delimiters)
    escaped = text.find(delimiters.escape) != text.rfind(delimiters.escape)  # MSH-2 has the first
    notes = _NOTES if escaped and er7.has_lone_escape(message) else ()
    told = header.field(9), header.field(12), delimiters, profile
    kind = _kind(*told) if len(told[0]) + len(told[1]) <= _LONGEST else _kind.__wrapped__(*told)
    number = header.field(10)
    control_id = number if number.isalnum() else header.component(10, s=0).strip()
    problems = (undecodable,) if undecodable else ()
    # Bytes written as \X..\ are of the message's own character set; that is rare enough to be looked up only then.
    sets = header.field(18)[:40] if escaped and f"{delimiters.escape}X" in text else ""
    reader = _readers(profile)(delimiters, sets, whole)
    scope = Scope(MSH=header.fields + [""] * reader.widths["MSH"])
    if kind in _EVENTS:
        return Reading((), (), control_id, kind, problems, notes)
    if kind in profile.query["types"]:
        scope.update((line[:3], reader.fields(line[:3], line)) for line in lines)
        return Reading((), reader.query(scope), control_id, kind, problems, notes)
    assembly = Assembly(reader, scope, zone, problems)
    _walk(lines, reader, assembly)
    reports = assembly.reports()
    return Reading(reports, (), control_id, kind, problems if reports else (*problems, NO_RESULTS), notes)


@lru_cache(maxsize=256)
def _kind(message: str, version: str, delimiters: Delimiters, profile: Profile) -> str:
    """The type and event in MSH-9 and MSH-12; raises RemoteProtocolError for what is not ours (CONFORMANCE C14, C15)."""
    code, event = (er7.component(message, delimiters, place).strip() for place in (1, 2))
    version = er7.component(version, delimiters).strip()
    if not code:
        raise RemoteProtocolError(Reason("no-message-type"), error_code="101")
    kind = f"{code}^{event}" if event or code != "ORU" else "ORU^R01"
    ours = (*_RESULTS, *_EVENTS, *profile.query["types"])
    if kind not in ours:
        known = any(each.startswith(f"{code}^") for each in ours)
        reason = Reason("unsupported-type", {"type": kind[:20]})
        raise RemoteProtocolError(reason, supported=False, error_code="201" if known else "200")
    if not version:
        raise RemoteProtocolError(Reason("no-version"), error_code="101")
    if version not in _VERSIONS:
        reason = Reason("unsupported-version", {"version": version[:20]})
        raise RemoteProtocolError(reason, supported=False, error_code="203")
    return kind


@lru_cache(maxsize=256)
def _readers(profile: Profile) -> Callable[..., Reader]:
    """The last few readers of a profile: each remembers much, and it is the sender who names delimiters and sets."""
    return lru_cache(maxsize=4)(partial(_reader, profile))


def _reader(profile: Profile, delimiters: Delimiters, named: str, whole: bool = False) -> Reader:
    """The compiled reader of a profile; hexadecimal escapes are in the sets that MSH-18 names, else the profile's."""
    sets = (*named.split(delimiters.repeat), *profile.charsets)

    def unescape(text: str, delimiters: Delimiters) -> str:
        return er7.unescape(text, delimiters, lambda data: charset.decode_part(data, sets))

    return Reader(profile, Rules(delimiters, unescape, dict(_KNOWN), profile.local_escapes), "NTE", whole)


def _walk(lines: Sequence[str], reader: Reader, assembly: Assembly) -> None:
    """Go through the segments of a message and open the levels that they belong to."""
    record, widths = reader.plain.results.record, reader.widths
    early_orc: Fields | None = None  # it came before its OBR
    specimen_first = False
    for name, run in groupby(lines, _NAME):
        if name not in widths:
            continue
        if name == record:
            assembly.results(run)
            continue
        for fields in [reader.fields(name, line) for line in run]:
            order = assembly.level
            if name == "NTE":
                assembly.notes.append(fields)
            elif name == "OBR":
                assembly.begin(ORDER, name, fields)
                if early_orc:
                    assembly.level.scope["ORC"], early_orc = early_orc, None
            elif name == "ORC":
                # Right after its OBR it is that order's; any other is the next one's (CONFORMANCE F09).
                if order.depth == ORDER and not order.items and "OBR" in order.scope and "ORC" not in order.scope:
                    order.scope["ORC"] = fields
                else:
                    early_orc = fields
            elif name == "SPM" and order.depth == ORDER and not specimen_first:
                if order.scope.setdefault("SPM", fields)[2] != fields[2]:
                    order.doubts.append(SPECIMEN_CONFLICT)
            elif name == "SPM":
                assembly.begin(SPECIMEN, name, fields)
                specimen_first = True
            elif name == "PID":
                assembly.begin(PATIENT, name, fields)
                early_orc, specimen_first = None, False
            else:
                order.scope[name] = fields
