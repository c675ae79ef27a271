"""Reads the records of CLSI LIS02-A2 (ASTM E1394), and writes the answer that there is no order.

A payload comes in as the joined text of its frames, records ended by CR (LF is tolerated); a Reading goes out. A record
opens or fills the level it belongs to::

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
from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter

from labbridge.formats import charset
from labbridge.formats.assembly import NO_RESULTS, ORDER, PATIENT, Assembly, joined
from labbridge.formats.er7 import Delimiters
from labbridge.formats.reading import Reader
from labbridge.formats.rules import Rules, Scope
from labbridge.model import Query, Reading, Reason, RemoteProtocolError
from labbridge.profiles import Profile

_ENDS = {"": "", "N": "", "F": "", "I": "", "Q": "", "T": "sender aborted", "R": "receiver aborted", "E": "error"}
_LEVELS = {"P": PATIENT, "O": ORDER}
# The records there are, and how many of their fields the reader itself looks at.
_KNOWN = {"H": 12, "P": 0, "O": 0, "R": 0, "C": 0, "Q": 0, "M": 0, "S": 0, "L": 3}
_BEGINNING = itemgetter(slice(2))
_BLANK = " \t\r\n\0"
_HEADER = re.compile(r"H(?!\s)[\W_]...", re.IGNORECASE)


def read(payload: bytes, profile: Profile, zone: tzinfo) -> Reading:
    """Read a message, or several one after the other; ``zone`` is the sender's, since these times carry none.

    What is missing, disagrees, or did not end well is in the problems of its report, which is held. Raises
    RemoteProtocolError for what does not begin with a usable header record.
    """
    text, undecodable = charset.decode(payload, profile.charsets)
    lines = [record for line in text.replace("\n", "\r").split("\r") if (record := line.strip(_BLANK))]
    starts = [number for number, line in enumerate(lines) if line[0] in "Hh" and _HEADER.match(line)]
    if not starts or starts[0]:
        raise RemoteProtocolError(Reason("no-header"), error_code="100")
    readings = [
        _read(lines[start:end], profile, zone, (undecodable,) if undecodable else ())
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]
    return readings[0] if len(readings) == 1 else joined(readings)


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
    asked = (line + bar * 15).split(bar)
    header = ["H", asked[1], "", "", asked[9], "", "", "", "", asked[4], "", "P", "LIS2-A2", stamp]
    return "".join(f"{bar.join(record)}\r" for record in (header, ["L", "1", "I"])).encode("ascii", "backslashreplace")


def _read(lines: Sequence[str], profile: Profile, zone: tzinfo, problems: Sequence[Reason]) -> Reading:
    delimiters = _delimiters(lines[0])
    bar = delimiters.field
    reader = _readers(profile)(delimiters)
    # A bar in front of a record makes its letter field 1, as LIS02 counts.
    header = reader.fields("H", bar + lines[0])
    assembly = Assembly(reader, Scope(H=header), zone, problems)
    queries: list[Query] = []
    strange, end = False, None if profile.ends_message == "L" else ""
    for beginning, run in groupby(lines[1:], _BEGINNING):
        if beginning == "R" + bar:  # nearly always
            assembly.results([bar + line for line in run])
            continue
        for line in run:
            name = line.partition(bar)[0].rstrip()
            letter = line[0].upper()
            if letter not in _KNOWN or len(name) > 1:
                strange = True
                continue
            fields = reader.fields(letter, bar + line)
            if letter == "R":
                assembly.results([bar + line])
            elif letter == "C":
                assembly.notes.append(fields)
            elif letter in _LEVELS:
                assembly.begin(_LEVELS[letter], letter, fields)
            else:
                assembly.notes = []  # a comment on such a record is in the journal alone
                if letter == "Q":
                    queries += reader.query(Scope(H=header, Q=fields))
                elif letter == "L":
                    end = _ENDS.get(fields[3].strip().upper(), "unknown code")
    if strange:
        assembly.problems.append(Reason("unknown-record"))
    if end != "":
        assembly.problems.append(Reason("incomplete", {"why": f"L record: {end}" if end else "no L record"}))
    reports = assembly.reports()
    if not reports and not queries and any(line[0] in "Pp" for line in lines):
        assembly.problems.append(NO_RESULTS)
    kind = " ".join(filter(None, (header[11].strip(), header[12].strip())))
    return Reading(reports, tuple(queries), header[3].strip(), kind, tuple(assembly.problems))


@lru_cache(maxsize=256)
def _readers(profile: Profile) -> Callable[[Delimiters], Reader]:
    """The last few readers of a profile: each remembers much, and it is the sender who names the delimiters."""
    return lru_cache(maxsize=4)(partial(_reader, profile))


def _reader(profile: Profile, delimiters: Delimiters) -> Reader:
    return Reader(
        profile, Rules(delimiters, partial(unescape, charsets=profile.charsets), dict(_KNOWN), profile.local_escapes), "C"
    )


def _delimiters(header: str) -> Delimiters:
    """The characters that H names: field, then repeat, component and escape (CONFORMANCE B01)."""
    field = header[1:2]
    named = header[2:6].split(field)[0] if field else ""
    if len(named) < 2 or len({field, *named}) != len(named) + 1 or any(c.isalnum() for c in named):
        raise RemoteProtocolError(Reason("unusable-delimiters"), error_code="102")
    return Delimiters(field, component=named[1], repeat=named[0], escape=named[2:3], sub="")


def unescape(text: str, delimiters: Delimiters, charsets: Sequence[str] = ()) -> str:
    """Resolve ``&F& &S& &R& &E&`` and ``&Xhh..&``; an unknown escape is dropped, a lone mark is kept (CONFORMANCE B04).

    The letters mean the header's own delimiters, whatever they are; the hexadecimal bytes are of the first of ``charsets``
    that they fit, else Latin-1.
    """
    mark = delimiters.escape
    if not mark or mark not in text:
        return text
    letters = {"F": delimiters.field, "S": delimiters.component, "R": delimiters.repeat, "E": mark}

    def resolve(match: re.Match[str]) -> str:
        if not match[2]:
            return letters.get(match[1], "")
        data = bytes.fromhex(match[2])
        try:
            return charset.decode_part(data, charsets)
        except UnicodeError:
            return data.decode("latin-1")

    mark = re.escape(mark)
    return re.sub(f"{mark}(X((?:[0-9A-Fa-f]{{2}})+)|[A-Z][0-9A-Fa-f]*){mark}", resolve, text)
