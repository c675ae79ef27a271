"""Release or hold: the laboratory's verdict on each result, with reasons.

Pure: history, limits and the time come in as values. ``verify`` makes a verdict for each result on its own;
``keep_back`` then holds what a held result keeps back, its panels or its whole report (``[verification] hold``).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Literal

import msgspec
from msgspec.structs import replace

from labbridge.mapping import Catalogue, CodeMap, Limits, Mapped
from labbridge.model import Decided, Reason, Report, Result, Verdict
from labbridge.verification.ages import age_in_days

LimitsOf = Callable[[str], Limits | None]  # of a test

RELEASE = Verdict("release")
# HL7 table 0085, as it is delivered: A is an amended result, U a final one that was preliminary before.
_DELIVERABLE = {"F": "F", "P": "P", "C": "C", "A": "C", "U": "F"}
_AUTO_OFF = Reason("auto-release-off")
_MANUAL = Reason("manual")
_KINDS, _REMEMBERED, _LONGEST = 256, 16384, 200  # kinds of patients and specimens, results of all, characters of one


class Rules(msgspec.Struct, frozen=True):
    """``[verification]`` of the configuration; times in seconds."""

    auto_release: bool = False
    hold: Literal["result", "panel", "report"] = "panel"
    repeat: Literal["hold", "latest-measured", "first"] = "hold"
    stale: float = 72 * 3600.0
    duplicate_window: float = 600.0


class Known(msgspec.Struct, frozen=True, gc=False):
    """What has been released for one test of a specimen: of its measurements the last."""

    value: str
    measured_at: int | None = None
    final: bool = True  # not preliminary

    def is_later_than(self, measured_at: int | None) -> bool:
        """Tells whether it is known to have been measured later."""
        return self.measured_at is not None and measured_at is not None and measured_at < self.measured_at


class _Case(msgspec.Struct, frozen=True):
    """What is the same for every result of a report."""

    whole: tuple[Reason, ...]  # why all of it is held
    limits: LimitsOf  # of a test, for this patient and specimen
    released: Mapping[str, Known]
    oldest: float
    again: frozenset[str]


class _Alone(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a result by itself, in a report of which nothing else is known."""

    mapped: Mapped
    decided: Decided
    ignored: bool
    reports: str  # the test that it reports


class _Alike(msgspec.Struct):
    """Patients of one sex and age, specimens of one type and results by one map: what is remembered of such results."""

    codes: CodeMap
    specimen: str
    alone: _Case  # of a result by itself
    seen: dict[tuple[str, ...], _Alone] = {}


class Verifier:
    """The rules of one analyzer, compiled: verdicts on the mapped results of a report."""

    def __init__(
        self,
        rules: Rules,
        catalogue: Catalogue,
        held_alarm: Callable[[str], bool],
        zone: tzinfo = UTC,
        alarm_words: Mapping[str, Mapping[str, str]] = {},
    ) -> None:
        self.rules = rules
        self.catalogue = catalogue
        self.held_alarm = held_alarm
        self.alarm_words = alarm_words  # by code: what it means, by language
        self.zone = zone
        self._kinds: dict[tuple[CodeMap, LimitsOf, str], _Alike] = {}
        self._kept = 0  # of all their results

    def verify(
        self, report: Report, mapped: Sequence[Mapped], released: Mapping[str, Known], now: float, also: tuple[Reason, ...] = ()
    ) -> tuple[Decided, ...]:
        """The verdict on every result of a patient's report, each for itself alone.

        ``released`` is what the specimen's tests were released with before; ``also`` are further reasons to hold the
        whole report. ``now`` is in seconds since 1970.
        """
        case = self._case(report, released, now, also, _twice_in_report(mapped))
        return tuple([self._one(n, result, mapped[n], case) for n, result in enumerate(report.results)])

    def judge(
        self, report: Report, codes: CodeMap, released: Mapping[str, Known], now: float, also: tuple[Reason, ...] = ()
    ) -> tuple[Decided, ...]:
        """``verify`` of what a code map makes of the results: the same verdicts, which are remembered.

        What is made of a result that has no alarms or problems of its own depends, but for its time, on few texts; on the
        patient only as far as limits do. What an earlier report or the time itself may change is verified anew.
        """
        case = self._case(report, released, now, also, frozenset())
        oldest, whole, alike = case.oldest, case.whole, self._alike(codes, case.limits, report.specimen.type)
        seen, held = alike.seen, Verdict("hold", whole)
        tests, found = [], []
        for n, result in enumerate(report.results):
            value, at = result.value, result.measured_at
            what = result.code, value, result.kind, result.number, result.comparator, result.unit, result.status
            one = seen.get(what) or self._remember(alike, what, result)
            tests.append(one.reports)
            if released or result.alarms or result.problems or (at or oldest) < oldest:
                found.append(self._one(n, result, one.mapped, case))
            elif one.ignored:
                found.append(replace(one.decided, index=n))
            elif whole:
                reasons = one.decided.verdict.reasons
                verdict = Verdict("hold", whole + reasons) if reasons else held
                found.append(replace(one.decided, index=n, measured_at=at, verdict=verdict))
            else:
                found.append(replace(one.decided, index=n, measured_at=at))
        if len(set(tests)) < len(tests) and len(set(filter(None, tests))) < len(tests) - tests.count(""):  # one of them twice
            return self.verify(report, [codes.map(result, alike.specimen) for result in report.results], released, now, also)
        return tuple(found)

    def value_of(self, report: Report, index: int, code: str, mapped: Mapped, measured_at: int | None, now: float) -> Decided:
        """A value that a person gives: with its flag and reference, held where the limits alone would hold it."""
        limits = self.catalogue.limits_for(report.patient.sex, age_in_days(report.patient, now, self.zone), report.specimen.type)
        one = self._one(index, Result(code, measured_at=measured_at), mapped, _Case((), limits, {}, -math.inf, frozenset()))
        reasons = tuple(reason for reason in one.verdict.reasons if reason != _MANUAL)  # a person it is
        return replace(one, verdict=Verdict("hold", reasons) if reasons else RELEASE)

    def _case(
        self, report: Report, released: Mapping[str, Known], now: float, also: tuple[Reason, ...], again: frozenset[str]
    ) -> _Case:
        whole = report.problems + also + (() if self.rules.auto_release else (_AUTO_OFF,))
        age = age_in_days(report.patient, now, self.zone)
        limits = self.catalogue.limits_for(report.patient.sex, age, report.specimen.type)
        return _Case(whole, limits, released, now - self.rules.stale, again)

    def _alike(self, codes: CodeMap, limits: LimitsOf, specimen: str) -> _Alike:
        found = self._kinds.get((codes, limits, specimen))
        if found is None:
            found = _Alike(codes, specimen, _Case((), limits, {}, -math.inf, frozenset()))
            if len(self._kinds) >= _KINDS:
                self._kinds.clear()
                self._kept = 0
            if len(specimen) <= _LONGEST:
                self._kinds[codes, limits, specimen] = found
        return found

    def _remember(self, alike: _Alike, what: tuple[str, ...], result: Result) -> _Alone:
        """What becomes of a result for which nothing but itself speaks; an empty one may have more to say, and is not kept."""
        mapped = alike.codes.map(result, alike.specimen)
        plain = replace(result, alarms=(), problems=()) if result.alarms or result.problems else result
        decided = self._one(0, plain, mapped, alike.alone)
        reports = mapped.test.code if mapped.test is not None and mapped.action == "report" else ""
        found = _Alone(mapped, decided, decided.verdict.action == "ignore", reports)
        if result.value and len(result.value) + len(result.code) + len(result.unit) <= _LONGEST:
            self._kept += 1
            if self._kept > _REMEMBERED:
                self._kept = 1
                for each in self._kinds.values():
                    each.seen.clear()
            alike.seen[what] = found
        return found

    def _one(self, index: int, result: Result, outcome: Mapped, case: _Case) -> Decided:
        test = outcome.test
        if outcome.action in ("ignore", "attach"):
            return Decided(index, result.code, Verdict("ignore", outcome.reasons))
        reasons = case.whole
        if result.problems or outcome.reasons:
            reasons += result.problems + outcome.reasons
        if test is None:
            return Decided(index, result.code, Verdict("hold", reasons), measured_at=result.measured_at)
        name, flag, reference = test.code, "", ""
        limits = case.limits(name)
        if limits is not None and outcome.action == "report":
            flag, absurd, critical = limits.judge(outcome.value)
            reference = limits.printed
            if absurd or critical:
                params = {"value": outcome.value, "unit": test.print_unit}
                reasons += (Reason("absurd" if absurd else "critical", params),)
        status = _DELIVERABLE.get(result.status, "")
        if not status or result.alarms or (result.measured_at or case.oldest) < case.oldest:
            reasons += self._own_reasons(result, case.oldest)
        if test.release == "manual":
            reasons += (_MANUAL,)
        if name in case.again:
            reasons += (Reason("twice-in-message", {"test": name}),)
        verdict = Verdict("hold", reasons) if reasons else RELEASE
        before = case.released.get(name)
        if before is not None:
            repeat = self._repeated(name, result, before)
            if repeat.action != "release":  # superseded by itself; but what a person must see is held all the same
                verdict = Verdict("hold", reasons + repeat.reasons) if reasons else repeat
            if before.final:
                status = "C"
        return Decided(
            index,
            result.code,
            verdict,
            name,
            outcome.value,
            test.unit,
            test.print_unit,
            outcome.kind,
            flag,
            reference,
            status or result.status,
            result.measured_at,
        )

    def _own_reasons(self, result: Result, oldest: float) -> tuple[Reason, ...]:
        reasons: list[Reason] = []
        if result.status not in _DELIVERABLE:
            reasons.append(Reason("status", {"status": result.status}))
        for alarm in dict.fromkeys(result.alarms):
            if self.held_alarm(alarm):
                reasons.append(Reason("alarm", {"alarm": alarm, **self.alarm_words.get(alarm, {})}))
        if result.measured_at is not None and result.measured_at < oldest:
            reasons.append(Reason("stale", {"measured": result.measured}))
        return tuple(reasons)

    def _repeated(self, test: str, result: Result, before: Known) -> Verdict:
        """The same test again for a specimen that had it released; a final result after a preliminary one is no repeat."""
        policy, older = self.rules.repeat, before.is_later_than(result.measured_at)
        if not before.final and not older:
            return RELEASE
        params = {"test": test, "before": before.value} if before.value else {"test": test}
        unknown = before.measured_at is None or result.measured_at is None
        if policy == "first" and result.status not in ("C", "A"):
            return Verdict("superseded", (Reason("repeat-first", params),))
        if policy != "latest-measured" or unknown:
            return Verdict("hold", (Reason("repeat", params) if before.value else Reason("after-not-reportable", params),))
        return Verdict("superseded", (Reason("older-measurement", params),)) if older else RELEASE

    def keep_back(self, decided: tuple[Decided, ...]) -> tuple[Decided, ...]:
        """Holds what a held result keeps back: nothing, its panels, or the report.

        A held result without a test may belong to any panel of its report.
        """
        held = [one for one in decided if one.verdict.action == "hold"]
        if not held or self.rules.hold == "result" or len(held) == len(decided):
            return decided
        because: dict[str, str] = {}
        for culprit in held:
            for panel in self.catalogue.panels_of(culprit.test) if culprit.test else self.catalogue.panels:
                because.setdefault(panel, culprit.test or culprit.code)
        whole = (held[0].test or held[0].code) if self.rules.hold == "report" else ""

        def kept_back(one: Decided) -> Decided:
            cause = whole or next((because[panel] for panel in self.catalogue.panels_of(one.test) if panel in because), None)
            if one.verdict.action != "release" or cause is None:
                return one
            return replace(one, verdict=Verdict("hold", (Reason("held-with", {"test": cause}),)))

        return tuple(map(kept_back, decided))


def _twice_in_report(mapped: Sequence[Mapped]) -> frozenset[str]:
    """The tests that one report has more than once: which one counts is for a person to say."""
    names = [one.test.code for one in mapped if one.test is not None and one.action == "report"]
    if len(set(names)) == len(names):
        return frozenset()
    return frozenset(name for name, times in Counter(names).items() if times > 1)
