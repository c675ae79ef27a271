"""What is known of a specimen's results, test by test: runs side by side, earlier values, alarms decoded. No screen here."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path

import msgspec

from labbridge import model, profiles, revision
from labbridge.config import Settings
from labbridge.context import identity_of
from labbridge.mapping import Catalogue, Test
from labbridge.model import Decided, Decision, Patient, Reason, Report, Result, Specimen
from labbridge.pipeline import standing
from labbridge.profiles import Alarm, ProfileError
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.rows import Earlier
from labbridge.verification.callback import called_back, is_critical

AlarmOf = Callable[[str, str], Alarm | None]  # of an analyzer and a code

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 8  # of a trend
EARLIER = 30  # reports of the same patient that are looked at


class Run(msgspec.Struct, frozen=True):
    """One measurement of a test, as it stands now."""

    report: int
    at: int  # received, microseconds since 1970
    analyzer: str
    decided: Decided
    result: Result  # as it was sent; empty where a person entered the value
    alarms: tuple[tuple[str, Alarm | None], ...] = ()
    told: bool = False  # somebody was told of this value and read it back

    @property
    def value(self) -> str:
        """What is reported, or else what was sent."""
        return self.decided.value or self.result.value

    @property
    def held(self) -> bool:
        """Whether it waits for a person."""
        return self.decided.verdict.action == "hold"

    @property
    def critical(self) -> bool:
        """Whether the laboratory's limits call it critical."""
        return is_critical(self.decided)


class Point(msgspec.Struct, frozen=True):
    """A value that this patient had before."""

    at: int  # seconds since 1970
    value: str
    specimen: str


class Line(msgspec.Struct, frozen=True):
    """One test: its runs, the one that counts first, and what the patient had before, the oldest first."""

    test: str  # or the analyzer's code, where that is not mapped
    about: Test | None
    runs: tuple[Run, ...]
    earlier: tuple[Point, ...] = ()

    @property
    def now(self) -> Run:
        """The run that counts: the newest that is held, or else the newest."""
        return self.runs[0]

    @property
    def change(self) -> str:
        """How far the value is from the last one, and in hundredths of that; empty where one is no plain number."""
        before = number(self.earlier[-1].value) if self.earlier else None
        value = number(self.now.value)
        if before is None or value is None:
            return ""
        share = f" ({(value - before) / before * 100:+.0f} %)" if before > 0 else ""
        return f"{value - before:+f}{share}"

    @property
    def trend(self) -> str:
        """The last values and this one as small bars; empty where there are not two numbers."""
        every = [number(point.value) for point in self.earlier[1 - _POINTS :]] + [number(self.now.value)]
        return bars([one for one in every if one is not None])


class Head(msgspec.Struct, frozen=True):
    """One report, without its results."""

    at: int
    analyzer: str
    state: str
    specimen: Specimen
    problems: tuple[Reason, ...] = ()
    comments: tuple[str, ...] = ()


class Sheet(msgspec.Struct, frozen=True):
    """Everything that is shown of a specimen's results."""

    patient: Patient
    heads: tuple[Head, ...]  # the newest first
    lines: tuple[Line, ...]
    notes: tuple[Decision, ...]  # what people did or wrote, the oldest first
    several: bool = False  # its reports name more than one patient

    @property
    def held(self) -> tuple[Line, ...]:
        """The tests of which something waits for a person."""
        return tuple(line for line in self.lines if line.now.held)

    def judges(self, test: str, value: str, catalogue: Catalogue, days: int | None) -> bool:
        """Whether the laboratory's limits call a value critical for this patient, who is so many days old."""
        limits = catalogue.limits(test, self.patient.sex, days, self.heads[0].specimen.type)
        return limits is not None and limits.judge(value).critical


def read_sheet(reader: Reader, settings: Settings, catalogue: Catalogue, rules: str, specimen: str, report: int) -> Sheet:
    """What is stored of a specimen, or of the one ``report`` meant; ``rules`` is the revision in force."""
    folders, used = tuple(revision.folders(settings, "analyzers")), {one.name: one.profile for one in settings.analyzers}
    reports = reader.reports([report]) if report else reader.reports_of(specimen)
    patient = next((row.patient for row in reversed(reports) if row.patient), "")
    before = reader.reports_of_patient(patient, reports[0].report_id, EARLIER) if patient else []
    return sheet_of(
        specimen, reports, before, catalogue, lambda analyzer, code: _alarms(used.get(analyzer, ""), folders, rules).get(code)
    )


@lru_cache(maxsize=64)
def _alarms(profile: str, folders: Sequence[Path], _rules: str) -> Mapping[str, Alarm]:
    try:
        return profiles.load(profile, folders).alarms
    except (ProfileError, OSError):
        return {}


def number(text: str) -> Decimal | None:
    """A plain number of reasonable length."""
    try:
        value = Decimal(text) if 0 < len(text) <= 20 else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def bars(values: Sequence[Decimal]) -> str:
    """Numbers as a line of bars, the least lowest."""
    if len(values) < 2:
        return ""
    least, most = min(values), max(values)
    step = (most - least) / (len(_BARS) - 1)
    return "".join(_BARS[int((value - least) / step) if step else 0] for value in values)


def sheet_of(
    specimen: str, reports: Sequence[Earlier], before: Sequence[Earlier], catalogue: Catalogue, alarm_of: AlarmOf
) -> Sheet:
    """What ``reports`` say of a specimen, and of the same patient's tests what ``before`` released; both oldest first."""
    runs: dict[str, list[Run]] = {}
    heads, notes, patients = [], [], []
    for row in reports:
        if erased(row.document):
            heads.append(Head(row.at, row.analyzer, row.state, Specimen(row.specimen)))
            continue
        report = model.decode(row.document, Report)
        decisions = [model.decode(one, Decision) for one in row.decisions if not erased(one)]
        heads.append(Head(row.at, row.analyzer, row.state, report.specimen, report.problems, report.comments))
        patients.append(report.patient)
        notes += [one for one in decisions if one.actor != "rules"]
        called = called_back(decisions)
        for one in standing(decisions):
            result = report.results[one.index] if one.index < len(report.results) else Result(one.code)
            if one.verdict.action != "ignore":
                alarms = tuple((code, alarm_of(row.analyzer, code)) for code in dict.fromkeys(result.alarms))
                run = Run(row.report_id, row.at, row.analyzer, one, result, alarms, one.index in called)
                runs.setdefault(one.test or one.code, []).append(run)
    patient = patients[-1] if patients else Patient()
    several = any(_differ(patient, other) for other in patients)
    points = _points(before, patient, specimen)
    lines = []
    for test, found in runs.items():
        found.sort(key=lambda run: (run.held, run.decided.measured_at or 0, run.at, run.report), reverse=True)
        lines.append(Line(test, catalogue.tests.get(test), tuple(found), tuple(points.get(test, ()))))
    lines.sort(key=lambda line: (line.about is None, line.about.sort if line.about else 0, line.test))
    return Sheet(patient, tuple(reversed(heads)), tuple(lines), tuple(notes), several)


def _differ(one: Patient, other: Patient) -> bool:
    both = zip(identity_of(one), identity_of(other), strict=True)
    return any(mine and theirs and mine != theirs for mine, theirs in both)


def _points(before: Sequence[Earlier], patient: Patient, specimen: str) -> dict[str, list[Point]]:
    """What was released of this patient's other specimens, by test, the oldest first."""
    found: dict[str, list[Point]] = {}
    for row in before:
        if row.specimen == specimen or erased(row.document):
            continue
        report = model.decode(row.document, Report)
        if _differ(patient, report.patient):
            continue  # a patient id that was given again
        for one in standing([model.decode(each, Decision) for each in row.decisions if not erased(each)]):
            if one.verdict.action == "release" and one.value:
                found.setdefault(one.test, []).append(Point(one.measured_at or row.at // 1_000_000, one.value, row.specimen))
    for points in found.values():
        points.sort(key=lambda point: point.at)
    return found
