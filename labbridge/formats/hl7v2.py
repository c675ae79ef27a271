"""Reads what analyzers say in HL7 v2: results (ORU, OUL), queries, and device events, versions 2.3 to 2.6.

A payload comes in as bytes, one message or a batch; a Reading goes out. The reader knows how segments hang together
and nothing of what stands in them: that is the profile's part. A segment opens or fills the scope it belongs to::

    MSH                       the message
      PID PV1                 a patient
        SPM SAC               a specimen, where SPM comes before its orders (OUL^R22, R23)
          OBR ORC TQ1 SPM     an order; an SPM after an OBR belongs to that order (ORU, OUL^R21, R24)
            OBX NTE           a result with its notes

ORC stands before its OBR or after it, and no result is given to another order for it. Acknowledgements are made in
``acknowledgement``.
"""

from collections.abc import Sequence
from datetime import tzinfo
from functools import lru_cache

from labbridge.formats import charset, er7, values
from labbridge.formats.er7 import Delimiters, Segment
from labbridge.formats.reading import NO_RESULTS, SPECIMEN_CONFLICT, Assembly, Dialect, Item, Reader, joined, reader_for
from labbridge.formats.rules import Fields, Scope
from labbridge.model import Query, Reading, Reason, RemoteProtocolError
from labbridge.profiles import Profile

_RESULTS = frozenset(("ORU^R01", "ORU^R30", "ORU^R31", "ORU^R32", "OUL^R21", "OUL^R22", "OUL^R23", "OUL^R24"))
# Stored and acknowledged, and nothing follows: a query taken back, device status and events (CONFORMANCE F07, F08).
_EVENTS = frozenset(("QCN^J01", "SSU^U03", "ESU^U01", "INU^U05", "TCU^U10", "EAN^U09", "LSU^U12"))
_VERSIONS = frozenset(("2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"))
_TYPED = {
    "SN": values.structured,
    "CE": values.coded,
    "CWE": values.coded,
    "CNE": values.coded,
    "ED": values.encapsulated,
    "RP": values.pointer,
}


def read(payload: bytes, profile: Profile, zone: tzinfo) -> Reading:
    """Read one message, or a batch as one Reading; ``zone`` is the sender's, for times without an offset.

    What disagrees or is missing is in the problems of its report, which is held. Raises RemoteProtocolError for what is
    not ours (``supported`` False: type, event, version) and for what cannot be read at all; in a batch, only when that
    is so of every message.
    """
    readings, errors = [], []
    for message in er7.messages(payload):
        try:
            readings.append(_read(message, profile, zone))
        except RemoteProtocolError as error:
            errors.append(error)
    if errors and not readings:
        raise errors[0]
    if len(readings) == 1 and not errors:
        return readings[0]
    return joined(readings, [error.reason for error in errors])


def _read(payload: bytes, profile: Profile, zone: tzinfo) -> Reading:
    text, undecodable = charset.decode(payload, profile.charsets)
    message = er7.parse(text)
    header, *segments = message.segments
    kind = _kind(header, profile)
    control_id = header.component(10, s=0).strip()
    problems = (undecodable,) if undecodable else ()
    # Bytes written as \X..\ are of the message's own character set; that is rare enough to be looked up only then.
    named = header.field(18) if message.delimiters.escape + "X" in text else ""
    reader = reader_for(profile, message.delimiters, _dialect(named))
    scope = Scope(MSH=reader.fitted("MSH", header.fields))
    if kind in _EVENTS:
        return Reading((), (), control_id, kind, problems)
    if kind in profile.query.types:
        return Reading((), _queries(segments, scope, reader), control_id, kind, problems)
    clock = values.clock_for(profile, zone, reader.sent(scope))
    assembly = Assembly(reader, clock, problems)
    _Walk(scope, reader, assembly).through(segments)
    reports = assembly.reports(scope)
    return Reading(reports, (), control_id, kind, problems if reports else (*problems, NO_RESULTS))


def _kind(header: Segment, profile: Profile) -> str:
    """The message's type and event; raises RemoteProtocolError for one that is not ours (CONFORMANCE C14, C15)."""
    code, event = header.component(9).strip(), header.component(9, 2).strip()
    if not code:
        raise RemoteProtocolError(Reason("no-message-type"), error_code="101")
    kind = f"{code}^{event}" if event or code != "ORU" else "ORU^R01"
    if kind not in _RESULTS and kind not in _EVENTS and kind not in profile.query.types:
        known = any(each.startswith(code + "^") for each in (*_RESULTS, *_EVENTS, *profile.query.types))
        reason = Reason("unsupported-type", {"type": kind[:20]})
        raise RemoteProtocolError(reason, supported=False, error_code="201" if known else "200")
    version = header.component(12).strip()
    if not version:
        raise RemoteProtocolError(Reason("no-version"), error_code="101")
    if version not in _VERSIONS:
        reason = Reason("unsupported-version", {"version": version[:20]})
        raise RemoteProtocolError(reason, supported=False, error_code="203")
    return kind


@lru_cache(maxsize=16)
def _dialect(named: str) -> Dialect:
    """The pipe encoding, its hexadecimal escapes in the character set that MSH-18 names."""
    try:
        codec = charset.codec(named) if named else "utf-8"
    except LookupError:
        codec = "utf-8"

    def unescape(text: str, delimiters: Delimiters) -> str:
        return er7.unescape(text, delimiters, lambda data: data.decode(codec))

    return Dialect(0, "NTE", unescape, _TYPED)


def _queries(segments: Sequence[Segment], scope: Scope, reader: Reader) -> tuple[Query, ...]:
    """The one question of a query message."""
    for segment in segments:
        if segment.name in reader.widths:
            scope[segment.name] = reader.fitted(segment.name, segment.fields)
    query = reader.query(scope)
    return (query,) if query else ()


class _Order:
    """An order in the making: its scope, its results, the notes about it."""

    __slots__ = ("doubts", "items", "notes", "scope")

    def __init__(self, scope: Scope, notes: Sequence[Fields]) -> None:
        self.scope = scope
        self.notes = list(notes)
        self.items: list[Item] = []
        self.doubts: list[Reason] = []


class _Walk:
    """Goes through the segments of a message and hands each order, once it is whole, to the assembly."""

    def __init__(self, message: Scope, reader: Reader, assembly: Assembly) -> None:
        self.message = message
        self.reader = reader
        self.assembly = assembly
        self.base = message  # what the next order starts from: the patient's scope or the specimen's
        self.patient = message
        self.order: _Order | None = None
        self.specimen_first = False
        self.early_orc: Fields | None = None
        self.notes: list[Fields] = []  # about the patient

    def through(self, segments: Sequence[Segment]) -> None:
        """Read every segment."""
        steps = {"PID": self.pid, "SPM": self.spm, "OBR": self.obr, "ORC": self.orc, "NTE": self.nte}
        record, widths, fitted = self.reader.plain.record, self.reader.widths, self.reader.fitted
        for segment in segments:
            name = segment.name
            if name == record:
                order = self.order
                if order is None:
                    order = self.order = _Order(Scope(self.base), self.notes)
                order.items.append((fitted(name, segment.fields), []))
            elif name in steps:
                steps[name](fitted(name, segment.fields))
            elif name in widths:
                (self.order.scope if self.order else self.base)[name] = fitted(name, segment.fields)
        self.finish()

    def finish(self) -> None:
        """The order is whole."""
        order, self.order = self.order, None
        if order is not None:
            self.assembly.add(order.scope, order.items, order.notes, order.doubts)

    def pid(self, fields: Fields) -> None:
        """A patient begins."""
        self.finish()
        self.patient = self.base = Scope(self.message)
        self.patient["PID"] = fields
        self.specimen_first = False
        self.early_orc = None
        self.notes = []

    def spm(self, fields: Fields) -> None:
        """A specimen begins, or the order's own is told."""
        if self.order is not None and not self.specimen_first:
            own = self.order.scope
            if "SPM" in own and own["SPM"][2:3] != fields[2:3]:
                self.order.doubts.append(SPECIMEN_CONFLICT)
            own.setdefault("SPM", fields)
            return
        self.finish()
        self.specimen_first = True
        self.base = Scope(self.patient)
        self.base["SPM"] = fields

    def obr(self, fields: Fields) -> None:
        """An order begins, with the ORC that came before it."""
        self.finish()
        self.order = _Order(Scope(self.base), self.notes)
        self.order.scope["OBR"] = fields
        if self.early_orc is not None:
            self.order.scope["ORC"] = self.early_orc
            self.early_orc = None

    def orc(self, fields: Fields) -> None:
        """An ORC right after its OBR is that order's; any other is the next one's (CONFORMANCE F09)."""
        order = self.order
        if order is not None and not order.items and "OBR" in order.scope and "ORC" not in order.scope:
            order.scope["ORC"] = fields
        else:
            self.early_orc = fields

    def nte(self, fields: Fields) -> None:
        """A note about the result, the order or the patient before it."""
        order = self.order
        if order is None:
            self.notes.append(fields)
        elif order.items:
            order.items[-1][1].append(fields)
        else:
            order.notes.append(fields)
