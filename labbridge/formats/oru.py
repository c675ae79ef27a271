"""Writes ORU^R01 as one hospital wants it: the form is compiled once, so that each report costs little.

A form and the hospital's codes come in, a ``Writer`` comes out; a report with the laboratory's decided results goes in
and bytes come out. Which results leave, and when, is decided elsewhere. Structure: HL7 2.3 to 2.6, chapter 7, ORU^R01;
from 2.5 an SPM follows the OBX of each OBR.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import msgspec

from labbridge.formats import charset
from labbridge.formats.er7 import escape
from labbridge.model import Decided, Patient, Reason, Report, Specimen

Version = Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"]


class FormError(Exception):
    """The form cannot be compiled; ``key`` is its place in ``[destination.oru]``."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class UnwritableError(Exception):
    """The report holds a character that the form's character set has not; ``reason`` does not say which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


class OruForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[destination.oru]``, as far as it shapes the bytes."""

    version: Version = "2.5.1"
    charset: str = "UTF-8"
    msh18: str = ""  # empty: the standard's name of the charset
    obr: Literal["panel", "test", "specimen"] = "panel"
    units: Literal["ucum", "print"] = "ucum"
    flags: Literal["computed", "analyzer"] = "computed"
    fields: dict[str, str] = {}  # "OBR-3" = "{specimen.id}"
    segments: Sequence[str] = ()  # "ZLB|{specimen.id}|{run.number}"


class Coded(msgspec.Struct, frozen=True):
    """What the hospital calls one test and its panel; without a panel the test stands alone."""

    code: str
    name: str = ""
    loinc: str = ""
    panel: str = ""
    panel_name: str = ""


class Message(NamedTuple):
    """The values of one message that a template may name."""

    report: Report
    control_id: str
    stamp: str
    site: str
    analyzer: str


PLACEHOLDERS: Mapping[str, Callable[[Message], str]] = {
    "site.name": lambda message: message.site,
    "analyzer.name": lambda message: message.analyzer,
    "specimen.id": lambda message: message.report.specimen.id,
    "specimen.type": lambda message: message.report.specimen.type,
    "specimen.rack": lambda message: message.report.specimen.rack,
    "specimen.position": lambda message: message.report.specimen.position,
    "patient.id": lambda message: message.report.patient.id,
    "patient.location": lambda message: message.report.patient.location,
    "order.id": lambda message: message.report.order,
    "run.number": lambda message: next((result.run for result in message.report.results if result.run), ""),
    "message.id": lambda message: message.control_id,
    "message.time": lambda message: message.stamp,
}

Template = Callable[[Message], str]
Row = list[str]
Changes = Mapping[str, Sequence[tuple[int, str]]]

_SEGMENTS = ("MSH", "PID", "PV1", "ORC", "OBR", "OBX", "SPM")
_FIELD = re.compile(f"({'|'.join(_SEGMENTS)})-([1-9][0-9]?)")
_OURS = frozenset(("MSH-1", "MSH-2", "MSH-10", "OBX-1", "OBX-2", "OBX-5"))
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_STRUCTURED = re.compile(r"(<=|>=|<|>)?\s*([+-]?\d+(?:\.\d+)?)(?:\s*([:/])\s*(\d+(?:\.\d+)?))?")
_TIME = re.compile(r"\d{8}(?:\d{4}(?:\d\d(?:\.\d{1,4})?)?)?(?:[+-]\d{4})?")
_PRELIMINARY = frozenset("PRSI")
_WHOLE_REPORT = "11502-2^Laboratory report^LN"
_NO_NAME = "^^^^^^U"  # PID-5 is required: unspecified (HL7 table 0200)
_NO_TYPE = "^unspecified"  # SPM-4 is required


def compile(form: OruForm, catalogue: Mapping[str, Coded], *, zone: tzinfo = UTC) -> "Writer":
    """The writer of a form; raises FormError for an unknown placeholder, field or character set.

    ``catalogue`` gives the hospital's words for each test of the laboratory; a test that it lacks is written by its own
    name. Times are written in ``zone``. Templates are ER7 text in which the values named in braces are escaped.
    """
    try:
        standard_name = charset.table_name(form.charset)
    except LookupError as error:
        raise FormError("charset", str(error)) from None
    fields: dict[str, list[tuple[int, Template]]] = {}
    for key, text in form.fields.items():
        match = _FIELD.fullmatch(key)
        if match is None:
            raise FormError(f"fields.{key}", f"expected a field such as OBR-3, of {', '.join(_SEGMENTS)}")
        if key in _OURS:
            raise FormError(f"fields.{key}", "this field cannot be changed")
        # MSH-1 is the separator itself, so that MSH-3 is the second text after the name.
        number = int(match[2]) - (match[1] == "MSH")
        fields.setdefault(match[1], []).append((number, _template(f"fields.{key}", text)))
    for n, text in enumerate(form.segments):
        if re.match(r"[A-Z][A-Z0-9]{2}\|", text) is None:
            raise FormError(f"segments[{n}]", "expected a segment such as ZLB|{specimen.id}")
    extra = [_template(f"segments[{n}]", text) for n, text in enumerate(form.segments)]
    tests = {name: _Test.of(coded, form.obr) for name, coded in catalogue.items()}
    return Writer(form, form.msh18 or standard_name, tests, fields, extra, zone)


class Writer:
    """One hospital's form, compiled."""

    def __init__(
        self,
        form: OruForm,
        msh18: str,
        tests: Mapping[str, "_Test"],
        fields: Mapping[str, Sequence[tuple[int, Template]]],
        extra: Sequence[Template],
        zone: tzinfo,
    ) -> None:
        self.form = form
        self._msh18 = msh18
        self._tests = tests
        self._fields = fields
        self._extra = extra
        self._time = lru_cache(maxsize=1024)(partial(_stamp, zone))
        self._unit = lru_cache(maxsize=1024)(partial(_unit, form.units))
        self._level = tuple(map(int, form.version.split(".")))

    def write(
        self, report: Report, decided: Sequence[Decided], *, control_id: str, stamp: str, site: str = "", analyzer: str = ""
    ) -> bytes:
        """The ORU^R01 of these results of a report, in their order; those of one panel stand together.

        ``stamp`` (YYYYMMDDHHMMSS+ZZZZ) is MSH-7 and OBR-22; ``control_id`` is MSH-10. Raises UnwritableError.
        """
        message = Message(report, control_id, stamp, site, analyzer or report.sender)
        changes: Changes = {name: [(n, template(message)) for n, template in templates] for name, templates in self._fields.items()}
        lines = [_line(self._header(message), changes)]
        if report.patient.id or "PID" in changes:
            lines.append(_line(_patient(report.patient), changes))
            if "PV1" in changes:
                lines.append(_line(["PV1", "1", "U"], changes))
        for n, group in enumerate(self._groups(decided), 1):
            if "ORC" in changes:
                lines.append(_line(["ORC", "RE"], changes))
            lines.append(_line(self._request(n, group, message), changes))
            lines.extend(self._observations(group, message, changes))
            if self._level >= (2, 5):
                lines.append(_line(_specimen(report.specimen), changes))
        lines += [template(message) for template in self._extra]
        try:
            return charset.encode("\r".join(lines) + "\r", self.form.charset)
        except UnicodeEncodeError:
            raise UnwritableError(Reason("unwritable-charset", {"charset": self.form.charset})) from None

    def _header(self, message: Message) -> Row:
        kind = "ORU^R01" if self._level < (2, 3, 1) else "ORU^R01^ORU_R01"
        row = ["MSH", "^~\\&", "labbridge", "", "", "", message.stamp, "", kind, message.control_id, "P"]
        return [*row, self.form.version, "", "", "", "", "", self._msh18]

    def _groups(self, decided: Iterable[Decided]) -> list[list[tuple["_Test", Decided]]]:
        groups: dict[str, list[tuple[_Test, Decided]]] = {}
        tests = self._tests
        for one in decided:
            test = tests.get(one.test) or _Test.of(Coded(one.test), self.form.obr)
            group = groups.get(test.group)
            if group is None:
                groups[test.group] = [(test, one)]
            else:
                group.append((test, one))
        return list(groups.values())

    def _request(self, n: int, group: Sequence[tuple["_Test", Decided]], message: Message) -> Row:
        specimen = message.report.specimen
        row = [""] * 26
        row[:5] = ["OBR", str(n), "", escape(specimen.id), group[0][0].request]
        measured = [one.measured_at for _, one in group if one.measured_at is not None]
        if _TIME.fullmatch(specimen.collected):
            row[7] = specimen.collected
        elif measured:
            row[7] = self._time(min(measured))
        if self._level < (2, 5):
            row[15] = escape(specimen.type)
        row[22] = message.stamp
        row[25] = _status({one.status for _, one in group})
        if self._level < (2, 3, 1):
            row += ["", "1"]  # OBR-27 is required there: one, the standard's default
        return row

    def _observations(self, group: Sequence[tuple["_Test", Decided]], message: Message, changes: Changes) -> list[str]:
        lines: list[str] = []
        seen: dict[str, int] = {}
        results = message.report.results if self.form.flags == "analyzer" else None
        equipment = _escaped(message.analyzer) if self._level >= (2, 4) else ""
        always = self.form.version == "2.3.1"  # which requires OBX-4
        for n, (test, one) in enumerate(group, 1):
            times = seen[one.test] = seen.get(one.test, 0) + 1
            kind, value = _value(one)
            if results is None:
                flags = one.flag
            else:
                flags = "~".join(map(_escaped, results[one.index].flags))
            unit = self._unit(one.unit, one.print_unit)
            when = "" if one.measured_at is None else self._time(one.measured_at)
            sub = times if always or times > 1 else ""
            lines.append(
                f"OBX|{n}|{kind}|{test.observation}|{sub}|{value}|{unit}|{_escaped(one.reference)}|{flags}|||{one.status}"
                f"|||{when}||||{equipment}"
            )
        if "OBX" in changes:
            return [_line(line.split("|"), changes) for line in lines]
        return lines if equipment else [line.rstrip("|") for line in lines]


class _Test(NamedTuple):
    """A test's fields, escaped: OBX-3, OBR-4, and which results share its OBR."""

    observation: str
    request: str
    group: str

    @classmethod
    def of(cls, coded: Coded, obr: str) -> "_Test":
        own = f"{escape(coded.code)}^{escape(coded.name)}^L"
        if coded.loinc:
            own += f"^{escape(coded.loinc)}^^LN"
        if obr == "specimen":
            return cls(own, _WHOLE_REPORT, "")
        if obr == "panel" and coded.panel:
            return cls(own, f"{escape(coded.panel)}^{escape(coded.panel_name)}^L", f"panel {coded.panel}")
        return cls(own, own, f"test {coded.code}")


def _template(key: str, text: str) -> Template:
    if re.search(r"[\r\n]", text):
        raise FormError(key, "a field ends with its line")
    parts = re.split(r"\{([^{}]*)\}", text)
    first, literals, names = parts[0], parts[2::2], parts[1::2]
    if re.search("[{}]", "".join((first, *literals))):
        raise FormError(key, "a brace without its other half")
    for name in names:
        if name not in PLACEHOLDERS:
            raise FormError(key, f"unknown placeholder {{{name}}}; known are {', '.join(PLACEHOLDERS)}")
    pieces = [(PLACEHOLDERS[name], literal) for name, literal in zip(names, literals, strict=True)]

    def fill(message: Message) -> str:
        return first + "".join(escape(value(message)) + literal for value, literal in pieces)

    return fill


def _line(row: Row, changes: Changes) -> str:
    for n, text in changes.get(row[0], ()):
        row.extend([""] * (n + 1 - len(row)))
        row[n] = text
    return "|".join(row).rstrip("|")


def _patient(patient: Patient) -> Row:
    name = f"{escape(patient.family)}^{escape(patient.given)}".rstrip("^") or _NO_NAME
    return ["PID", "1", "", escape(patient.id), "", name, "", escape(patient.birth), escape(patient.sex)]


def _specimen(specimen: Specimen) -> Row:
    row = ["SPM", "1", escape(specimen.id), "", escape(specimen.type) or _NO_TYPE]
    return [*row, *[""] * 12, specimen.collected] if _TIME.fullmatch(specimen.collected) else row


def _value(one: Decided) -> tuple[str, str]:
    """OBX-2 and OBX-5: NM, SN (HL7 2.5, 2.A.71), or ST for all that is no number."""
    text = one.value
    if one.kind in ("number", "comparator", "ratio"):
        if _NUMBER.fullmatch(text):
            return "NM", text
        match = _STRUCTURED.fullmatch(text)
        if match:
            return "SN", "^".join(part or "" for part in match.groups()).rstrip("^")
    return "ST", escape(text)


def _status(statuses: set[str]) -> str:
    """OBR-25 of the OBX-11 below it (HL7 table 0123): corrected, else preliminary, else final."""
    if "C" in statuses:
        return "C"
    if statuses & _PRELIMINARY:
        return "P"
    return "X" if statuses == {"X"} else "F"


def _unit(units: str, ucum: str, printed: str) -> str:
    if units == "print":
        return escape(printed)
    return f"{escape(ucum)}^^UCUM" if ucum else ""


def _stamp(zone: tzinfo, at: int) -> str:
    return datetime.fromtimestamp(at, zone).strftime("%Y%m%d%H%M%S%z")


_escaped = lru_cache(maxsize=4096)(escape)  # units, flags, ranges: few, and no patient's
