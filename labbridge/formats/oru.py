"""Writes ORU^R01 as one hospital wants it: the form is compiled once, so that each report costs little.

A form and the hospital's codes come in, a ``Writer`` comes out; a report with the laboratory's decided results goes in
and bytes come out. Which results leave, and when, is decided elsewhere. Structure: HL7 2.3 to 2.6, chapter 7, ORU^R01;
from 2.5 an SPM follows the OBX of each OBR.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import msgspec

from labbridge.formats import charset, templates
from labbridge.formats.er7 import escape, escaped
from labbridge.formats.templates import Changes, FormError, Message, completed
from labbridge.model import Decided, Patient, Reason, Report, Specimen

Version = Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"]


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


class Attachment(NamedTuple):
    """A file that belongs to a report: OBX-2 (ED, RP) and OBX-5 as they are written."""

    result: int  # its index in the report
    test: str  # of the laboratory; empty where the analyzer's code is all there is
    kind: str
    content: str


_REMEMBERED, _LONGEST, _MANY = 8192, 64, 200  # values, the characters of one, the results of one message
_NO_NOTES: Mapping[int, str] = {}
_TIME = 40  # characters of a time: what goes beyond says nothing of its precision
_NUMERIC = frozenset(("number", "comparator", "ratio"))
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_STRUCTURED = re.compile(r"(<=|>=|<|>)?\s*([+-]?\d+(?:\.\d+)?)(?:\s*([:/])\s*(\d+(?:\.\d+)?))?")
_PRECISION = re.compile(r"\d{10}(?:\d\d)?(?:\d\d(\.\d{1,4})\d*)?(?:[+-]\d{4})?")  # of a time, where it is not the second
_WHOLE_REPORT = "11502-2^Laboratory report^LN"
_NO_NAME = "^^^^^^U"  # PID-5 is required: unspecified (HL7 table 0200)
_NO_TYPE = "^unspecified"  # SPM-4 is required


class _Test(NamedTuple):
    """A test's fields, escaped: OBX-3, OBR-4, and which results share its OBR."""

    observation: str
    request: str
    group: str


_Place = tuple[int, str, str]  # of a result among those of a message; what stands before and behind its OBX-2
_Group = tuple[str, Sequence[_Place]]  # OBR-4, and the results below it


def compile(form: OruForm, catalogue: Mapping[str, Coded], *, zone: tzinfo = UTC) -> "Writer":
    """The writer of a form; raises FormError for an unknown placeholder, field or character set.

    ``catalogue`` gives the hospital's words for each test of the laboratory; a test that it lacks is written by its own
    name. Times are written in ``zone``.
    """
    return Writer(form, catalogue, zone)


class Writer:
    """One hospital's form, compiled."""

    def __init__(self, form: OruForm, catalogue: Mapping[str, Coded], zone: tzinfo) -> None:
        try:
            self._msh18 = form.msh18 or charset.table_name(form.charset)
            self._codec = charset.codec(form.charset)
        except LookupError as error:
            raise FormError("charset", str(error)) from None
        self._fields, self._extra = templates.of_fields(form.fields), templates.of_segments(form.segments)
        self.form = form
        self._level = tuple(map(int, form.version.split(".")))
        self._tests = {name: self._test(coded) for name, coded in catalogue.items()}
        kind = "ORU^R01" if self._level < (2, 3, 1) else "ORU^R01^ORU_R01"
        # What stands before, between and behind the time and the id of a message.
        self._header = "MSH|^~\\&|labbridge||||", f"||{kind}|", f"|P|{form.version}||||||{self._msh18}"
        self._time = lru_cache(maxsize=1024)(partial(_stamp, zone))
        self._groups = lru_cache(maxsize=128)(self._grouped)  # by the tests, which an analyzer sends in one order
        self._tail = lru_cache(maxsize=4096)(self._after_value)  # units, flags, ranges: few, and no patient's
        self._said: dict[tuple[str, ...], tuple[str, str]] = {}

    def write(
        self,
        report: Report,
        decided: Sequence[Decided],
        *,
        control_id: str,
        stamp: str,
        site: str = "",
        analyzer: str = "",
        attachments: Sequence[Attachment] = (),
        notes: Mapping[int, str] = _NO_NOTES,
    ) -> bytes:
        """The ORU^R01 of these results of a report, in their order; those of one panel stand together.

        Attachments stand behind the results of their test's panel, or of the first OBR; a note (by the result's index) in an
        NTE behind its OBX. ``stamp`` (YYYYMMDDHHMMSS+ZZZZ) is MSH-7 and OBR-22; ``control_id`` is MSH-10. Raises UnwritableError.
        """
        message = Message(report, control_id, stamp, site, analyzer or report.sender)
        changes = {name: [(n, template(message)) for n, template in templates] for name, templates in self._fields.items()}
        lines = [completed(f"{self._header[0]}{stamp}{self._header[1]}{control_id}{self._header[2]}", changes)]
        if report.patient.id or "PID" in changes:
            lines.append(completed(_patient(report.patient), changes))
            if "PV1" in changes:
                lines.append(completed("PV1|1|U", changes))
        lines += self._body(message, decided, changes, attachments, notes)
        lines += [template(message) for template in self._extra]
        try:
            return ("\r".join(lines) + "\r").encode(self._codec)
        except UnicodeEncodeError:
            raise UnwritableError(Reason("unwritable-charset", {"charset": self.form.charset})) from None

    def code_of(self, test: str) -> bytes:
        """A test's code as it stands in OBX-3."""
        known = self._tests.get(test) or self._test(Coded(test))
        return known.observation.partition("^")[0].encode(self._codec, "replace")

    def _test(self, coded: Coded) -> _Test:
        own = f"{escape(coded.code)}^{escape(coded.name)}^L"
        if coded.loinc:
            own += f"^{escape(coded.loinc)}^^LN"
        if self.form.obr == "specimen":
            return _Test(own, _WHOLE_REPORT, "")
        if self.form.obr == "panel" and coded.panel:
            return _Test(own, f"{escape(coded.panel)}^{escape(coded.panel_name)}^L", f"panel {coded.panel}")
        return _Test(own, own, f"test {coded.code}")

    def _grouped(self, names: tuple[str, ...]) -> list[_Group]:
        """Results of these tests parted by their OBR; those that share one are numbered in OBX-4 where a test repeats."""
        always = self.form.version == "2.3.1"  # which requires OBX-4
        groups: dict[str, tuple[str, list[_Place], Counter[str]]] = {}
        for place, name in enumerate(names):
            test = self._tests.get(name) or self._test(Coded(name))
            _, places, times = groups.setdefault(test.group, (test.request, [], Counter()))
            times[name] += 1
            sub = times[name] if always or times[name] > 1 else ""
            places.append((place, f"OBX|{len(places) + 1}|", f"|{test.observation}|{sub}|"))
        return [(request, places) for request, places, _ in groups.values()]

    def _body(
        self,
        message: Message,
        decided: Sequence[Decided],
        changes: Changes,
        attachments: Sequence[Attachment],
        notes: Mapping[int, str],
    ) -> list[str]:
        """The OBR of every group of results, its OBX, and the specimen."""
        report, stamp, level = message.report, message.stamp, self._level
        work_out = self._groups if len(decided) <= _MANY else self._grouped
        observe = self._observation_of(message, changes, notes)
        collected = self._collected(report.specimen)
        specimen = [completed(_specimen(report.specimen, collected), changes)] if level >= (2, 5) else []
        request = self._request_of(report, collected, decided)
        order = [completed("ORC|RE", changes)] if "ORC" in changes else []
        lines: list[str] = []
        groups = work_out(tuple([one.test for one in decided]))
        attached = self._attached(message, attachments, groups, decided, changes) if attachments else {}
        for n, (service, places) in enumerate(groups, 1):
            lines += order
            lines.append(completed(request(n, service, places, stamp), changes))
            lines += observe(decided, places)
            lines += attached.get(n, ())
            lines += specimen
        return lines

    def _attached(
        self,
        message: Message,
        attachments: Sequence[Attachment],
        groups: Sequence[_Group],
        decided: Sequence[Decided],
        changes: Changes,
    ) -> dict[int, list[str]]:
        """The OBX of attachments, by the number of their OBR; those of one name are numbered in OBX-4, as in ``_grouped``."""
        numbers = {request: n for n, (request, _) in enumerate(groups, 1)}
        times = Counter((n, decided[place].test) for n, (_, places) in enumerate(groups, 1) for place, _, _ in places)
        lines: dict[int, list[str]] = {}
        for number, name, kind, content in attachments:
            result = message.report.results[number]
            test = (self._tests.get(name) or self._test(Coded(name))) if name else None
            n = numbers.get(test.request, 1) if test else 1
            observation = test.observation if test else "^".join(escaped(result.code, result.name, "L"))
            key = n, name or f" {result.code}"
            times[key] += 1
            sub = times[key] if self.form.version == "2.3.1" or times[key] > 1 else ""
            time = self._time(result.measured_at, result.measured[:_TIME])
            mine = lines.setdefault(n, [])
            place = len(groups[n - 1][1]) + len(mine) + 1
            line = f"OBX|{place}|{kind}|{observation}|{sub}|{content}||||||F|||{time}{self._equipment(message)}"
            mine.append(completed(line, changes))
        return lines

    def _equipment(self, message: Message) -> str:
        """OBX-15 to OBX-18, with the bar before them."""
        return f"||||{_escaped(message.analyzer)}" if self._level >= (2, 4) and message.analyzer else ""

    def _collected(self, specimen: Specimen) -> str:
        """When a specimen was drawn: a time, or the day alone."""
        if specimen.collected_at is not None:
            return self._time(specimen.collected_at, specimen.collected[:_TIME])
        return specimen.collected if specimen.collected and _is_day(specimen.collected) else ""

    def _request_of(
        self, report: Report, collected: str, decided: Sequence[Decided]
    ) -> Callable[[int, str, Sequence[_Place], str], str]:
        """The OBR of each group of a report's results."""
        specimen, results = report.specimen, report.results
        name, kind = escaped(specimen.id, specimen.type if self._level < (2, 5) else "")
        required = "||1" if self._level < (2, 3, 1) else ""  # OBR-27: one, the standard's default
        statuses = {one.status for one in decided}
        common = _status(statuses) if len(statuses) == 1 else ""

        def request(n: int, service: str, places: Sequence[_Place], stamp: str) -> str:
            when, status = collected, common or _status({decided[place].status for place, _, _ in places})
            if not when:
                group = [decided[place] for place, _, _ in places]
                times = [(one.measured_at, one.index) for one in group if one.measured_at is not None]
                at, index = min(times, default=(None, 0))
                when = self._time(at, results[index].measured[:_TIME] if times else "")
            return f"OBR|{n}||{name}|{service}|||{when}||||||||{kind}|||||||{stamp}|||{status}{required}"

        return request

    def _observation_of(
        self, message: Message, changes: Changes, notes: Mapping[int, str]
    ) -> Callable[[Sequence[Decided], Sequence[_Place]], list[str]]:
        """The OBX of each group of a report's results, each with its note."""
        results, said, say = message.report.results, self._said, self._say
        ucum, analyzers_flags = self.form.units == "ucum", self.form.flags == "analyzer"
        equipment = self._equipment(message)
        plain = bool(equipment) and not changes

        def observe(decided: Sequence[Decided], places: Sequence[_Place]) -> list[str]:
            lines = []
            measured, sent, time = None, "", ""
            for place, number, observation in places:
                one = decided[place]
                result = results[one.index]
                if one.measured_at != measured or result.measured != sent:  # one instant may be told more or less exactly
                    measured, sent = one.measured_at, result.measured
                    time = self._time(measured, sent[:_TIME])
                flags = "~".join(map(escape, result.flags)) if analyzers_flags else one.flag
                what = one.value, one.kind, one.unit if ucum else one.print_unit, one.reference, flags, one.status
                kind, rest = said.get(what) or say(*what)
                line = f"{number}{kind}{observation}{rest}{time}{equipment}"
                lines.append(line if plain else completed(line, changes))
                if one.index in notes:
                    lines.append(f"NTE|1|L|{escape(' '.join(notes[one.index].split()))}")
            return lines

        return observe

    def _say(self, value: str, kind: str, unit: str, reference: str, flags: str, status: str) -> tuple[str, str]:
        """OBX-2, and OBX-5 to OBX-13, remembered since most values come again; no patient is in them."""
        after_value = self._tail if len(flags) <= _LONGEST else self._after_value
        name, text = _numeric(value) if kind in _NUMERIC else ("ST", escape(value))
        found = name, f"{text}|{after_value(unit, reference, flags, status)}"
        if len(value) + len(flags) <= _LONGEST:
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said[value, kind, unit, reference, flags, status] = found
        return found

    def _after_value(self, unit: str, reference: str, flags: str, status: str) -> str:
        """OBX-6 to OBX-13."""
        return f"{_unit(self.form.units, unit)}|{_escaped(reference)}|{flags}|||{status}|||"


def _patient(patient: Patient) -> str:
    number, family, given, birth, sex = escaped(patient.id, patient.family, patient.given, patient.birth, patient.sex)
    name = f"{family}^{given}".rstrip("^") or _NO_NAME
    return f"PID|1||{number}||{name}||{birth}|{sex}"


def _specimen(specimen: Specimen, collected: str) -> str:
    name, kind = escaped(specimen.id, specimen.type)
    return f"SPM|1|{name}||{kind or _NO_TYPE}|||||||||||||{collected}"


def _is_day(text: str) -> bool:
    """Whether a text is a day as HL7 writes it, YYYYMMDD."""
    try:
        return len(text) == 8 and text.isdecimal() and date.fromisoformat(text) is not None
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _numeric(text: str) -> tuple[str, str]:
    """OBX-2 and OBX-5 of what is called a number: NM, SN (HL7 2.5, 2.A.71), or ST for what is none."""
    match = _STRUCTURED.fullmatch(text)
    if _NUMBER.fullmatch(text):
        return "NM", text
    if match:
        return "SN", "^".join(part or "" for part in match.groups()).rstrip("^")
    return "ST", escape(text)


def _status(statuses: set[str]) -> str:
    """OBR-25 of the OBX-11 below it (HL7 table 0123): corrected or withdrawn, else preliminary, else final."""
    if statuses & set("CW"):
        return "C"
    if statuses & set("PRSI"):
        return "P"
    return "X" if statuses == {"X"} else "F"


def _unit(units: str, text: str) -> str:
    return f"{escape(text)}^^UCUM" if text and units == "ucum" else escape(text)


def _stamp(zone: tzinfo, at: int | None, sent: str = "") -> str:
    """A time in the site's zone, as precise as it was sent: without seconds, to the second, or with fractions of it."""
    if at is None:
        return ""
    whole, told = datetime.fromtimestamp(at, zone).strftime("%Y%m%d%H%M%S%z"), _PRECISION.fullmatch(sent)
    if told is None:
        return whole
    return whole[:14] + told[1] + whole[14:] if told[1] else whole[:12] + whole[14:]


_escaped = lru_cache(maxsize=4096)(escape)  # units, flags, ranges: few, and no patient's
