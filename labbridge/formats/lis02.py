"""Reads the records of CLSI LIS02-A2 (ASTM E1394), and writes the answer that there is no order.

A payload comes in as the joined text of its frames, records ended by CR (LF is tolerated); a Reading goes out. A record
opens or fills the scope it belongs to::

    H                 the message: its delimiters, the sender
      P               a patient
        O             an order for one specimen
          R           a result
      Q               a question for orders
    C                 belongs to the record before it; M and S are kept in the journal alone
    L                 the end, and whether it is a good one

What stands where in a record is the profile's part.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from functools import lru_cache

from labbridge.formats import charset, values
from labbridge.formats.er7 import Delimiters
from labbridge.formats.reading import NO_RESULTS, Assembly, Dialect, Item, Reader, joined, reader_for
from labbridge.formats.rules import Fields, Scope
from labbridge.model import Query, Reading, Reason, RemoteProtocolError
from labbridge.profiles import Profile

_ENDS = {"": "", "N": "", "F": "", "I": "", "Q": "", "T": "sender aborted", "R": "receiver aborted", "E": "error"}


def read(payload: bytes, profile: Profile, zone: tzinfo) -> Reading:
    """Read a message, or several one after the other; ``zone`` is the sender's, since these times carry none.

    What is missing, disagrees, or did not end well is in the problems of its report, which is held. Raises
    RemoteProtocolError for what does not begin with a usable header record.
    """
    text, undecodable = charset.decode(payload, profile.charsets)
    problems = (undecodable,) if undecodable else ()
    lines = [line for line in re.split("[\r\n]+", text.strip(_BLANK)) if line.strip(_BLANK)]
    starts = [number for number, line in enumerate(lines) if line[0] in "Hh" and _is_header(line)]
    if not starts or starts[0]:
        raise RemoteProtocolError(Reason("no-header"), error_code="100")
    messages = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    readings = [_read(message, profile, zone, problems) for message in messages]
    if len(readings) == 1:
        return readings[0]
    return joined(readings)


_BLANK = " \t\r\n\0"


def write_no_order(queries: Sequence[Query], payload: bytes, profile: Profile, *, stamp: str) -> bytes:
    """Write the one answer to queries for which there is no order: a header and ``L|1|I`` (CONFORMANCE B16).

    Nothing for no queries. The header has the query's own delimiters and, the other way round, its sender and receiver.
    ``stamp`` is YYYYMMDDHHMMSS, the sender's local time. Raises RemoteProtocolError when ``payload`` has no header.
    """
    if not queries:
        return b""
    text, _ = charset.decode(payload, profile.charsets)
    line = re.split("[\r\n]", text.strip(_BLANK), maxsplit=1)[0]
    bar = _delimiters(line).field
    asked = line.split(bar)
    header = ["H", asked[1]] + [""] * 12
    header[4], header[9] = (asked + [""] * 15)[9], (asked + [""] * 15)[4]
    header[11:] = "P", "LIS2-A2", stamp
    return "".join(f"{bar.join(record)}\r" for record in (header, ["L", "1", "I"])).encode("ascii", "backslashreplace")


def _read(lines: Sequence[str], profile: Profile, zone: tzinfo, problems: Sequence[Reason]) -> Reading:
    delimiters = _delimiters(lines[0])
    reader = reader_for(profile, delimiters, LIS02)
    header = Scope(H=reader.fitted("H", lines[0].split(delimiters.field)))
    clock = values.clock_for(profile, zone, reader.sent(header))
    assembly = Assembly(reader, clock, problems)
    walk = _Walk(header, reader, assembly, delimiters.field)
    walk.through(lines[1:])
    if walk.end is None and profile.ends_message == "L":
        assembly.problems.append(Reason("incomplete", {"why": "no L record"}))
    elif walk.end:
        assembly.problems.append(Reason("incomplete", {"why": f"L record: {walk.end}"}))
    reports = assembly.reports(header)
    if not reports and walk.patient is not header and not walk.queries:
        assembly.problems.append(NO_RESULTS)
    fields = header["H"]
    kind = " ".join(filter(None, (fields[10].strip(), fields[11].strip())))
    return Reading(reports, tuple(walk.queries), fields[2].strip(), kind, tuple(assembly.problems))


def _is_header(line: str) -> bool:
    return len(line) > 4 and not line[1].isalnum() and line[1] not in " \t"


def _delimiters(header: str) -> Delimiters:
    """The characters that H names: field, then repeat, component and escape (CONFORMANCE B01)."""
    field = header[1:2]
    named = header[2:6].split(field)[0] if field else ""
    if len(named) < 2 or len({field, *named}) != len(named) + 1 or any(c.isalnum() for c in named):
        raise RemoteProtocolError(Reason("unusable-delimiters"), error_code="102")
    return Delimiters(field, component=named[1], repeat=named[0], escape=named[2:3], sub="")


def unescape(text: str, delimiters: Delimiters) -> str:
    """Resolve ``&F& &S& &R& &E&`` and ``&Xhh..&``; an unknown escape is dropped, a lone mark is kept (CONFORMANCE B04).

    The letters mean the header's own delimiters, whatever they are; the hexadecimal bytes are ASCII or Latin-1.
    """
    letters = {"F": delimiters.field, "S": delimiters.component, "R": delimiters.repeat, "E": delimiters.escape}

    def resolve(match: re.Match[str]) -> str:
        letter, digits = match[1][:1], match[1][1:]
        if letter == "X" and _HEX.fullmatch(digits):
            return bytes.fromhex(digits).decode("latin-1")
        return letters.get(match[1], "")

    return _escaped(delimiters.escape).sub(resolve, text)


_HEX = re.compile("(?:[0-9A-Fa-f]{2})+")


@lru_cache(maxsize=16)
def _escaped(mark: str) -> re.Pattern[str]:
    mark = re.escape(mark)
    return re.compile(f"{mark}([A-Z][0-9A-Fa-f]*){mark}")


LIS02 = Dialect(1, "C", unescape, {})


class _Walk:
    """Goes through the records of a message and hands each order, once it is whole, to the assembly."""

    def __init__(self, header: Scope, reader: Reader, assembly: Assembly, bar: str) -> None:
        self.header = self.patient = header
        self.reader = reader
        self.assembly = assembly
        self.bar = bar
        self.order: Scope | None = None
        self.items: list[Item] = []
        self.patient_notes: list[Fields] = []
        self.order_notes: list[Fields] = []
        self.notes: list[Fields] = []  # of the record before: where a C record belongs
        self.queries: list[Query] = []
        self.end: str | None = None

    def through(self, lines: Iterable[str]) -> None:
        """Read every record."""
        steps = {"R": self.result, "C": self.comment, "O": self.start_order, "P": self.start_patient}
        steps |= {"Q": self.query, "L": self.terminate, "M": self.other, "S": self.other}
        for line in lines:
            fields = line.split(self.bar)
            letter = fields[0].strip().upper()
            step = steps.get(letter)
            if step is None:
                self.assembly.problems.append(Reason("unknown-record"))
                continue
            step(self.reader.fitted(letter, fields))
        self.finish()

    def finish(self) -> None:
        """The order is whole."""
        if self.order is not None or self.items:
            scope = Scope(self.patient) if self.order is None else self.order
            self.assembly.add(scope, self.items, (*self.patient_notes, *self.order_notes))
        self.order = None
        self.items = []
        self.order_notes = []

    def start_patient(self, fields: Fields) -> None:
        """A patient begins."""
        self.finish()
        self.patient = Scope(self.header)
        self.patient["P"] = fields
        self.notes = self.patient_notes = []

    def start_order(self, fields: Fields) -> None:
        """An order begins."""
        self.finish()
        self.order = Scope(self.patient)
        self.order["O"] = fields
        self.notes = self.order_notes

    def result(self, fields: Fields) -> None:
        """A result of the order before it."""
        self.notes = []
        self.items.append((fields, self.notes))

    def comment(self, fields: Fields) -> None:
        """A comment on the record before it, another comment not counted."""
        self.notes.append(fields)

    def other(self, fields: Fields) -> None:
        """The maker's own or a scientific record: the journal has it, and a comment on it is not ours."""
        self.notes = []

    def query(self, fields: Fields) -> None:
        """A question for orders."""
        scope = Scope(self.header)
        scope["Q"] = fields
        query = self.reader.query(scope)
        if query is not None:
            self.queries.append(query)
        self.notes = []

    def terminate(self, fields: Fields) -> None:
        """The end: how the sender says that it went."""
        code = fields[2].strip().upper() if len(fields) > 2 else ""
        self.end = _ENDS.get(code, "unknown code")
