"""Release or hold: the laboratory's verdict on each result, with reasons.

Pure: history, limits and the time come in as values. A verdict is made for each result on its own first
(``_own_reasons``), then what is held keeps back its panel or its whole report (``[verification] hold``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from labbridge.mapping import Catalogue, Mapped
from labbridge.model import Decided, Patient, Reason, Report, Result, Verdict
from labbridge.verification.ages import age_in_days

RELEASE = Verdict("release")
_DELIVERABLE = {"F": "F", "P": "P", "C": "C", "A": "F", "U": "C"}
_AUTO_OFF = Reason("auto-release-off")
_MANUAL = Reason("manual")


class Rules(msgspec.Struct, frozen=True):
    """``[verification]`` of the configuration; times in seconds."""

    auto_release: bool = False
    hold: Literal["result", "panel", "report"] = "panel"
    repeat: Literal["hold", "latest-measured", "first"] = "hold"
    stale: float = 72 * 3600.0
    duplicate_window: float = 600.0


class Known(msgspec.Struct, frozen=True, gc=False):
    """What has been released for one test of a specimen: the last of it."""

    value: str
    measured_at: int | None = None


class Verifier:
    """The rules of one analyzer, compiled: verdicts on the mapped results of a report."""

    def __init__(self, rules: Rules, catalogue: Catalogue, held_alarm: Callable[[str], bool]) -> None:
        self.rules = rules
        self.catalogue = catalogue
        self.held_alarm = held_alarm

    def verify(
        self, report: Report, mapped: Sequence[Mapped], released: Mapping[str, Known], now: float, also: tuple[Reason, ...]
    ) -> tuple[Decided, ...]:
        """Decides every result of a patient's report.

        ``released`` is what the specimen's tests were released with before; ``also`` are the report's own reasons to be
        held. ``now`` is in seconds since 1970.
        """
        whole = report.problems + also
        if not self.rules.auto_release:
            whole += (_AUTO_OFF,)
        judge = self._judge(report.patient, report, now)
        oldest = now - self.rules.stale
        again = _twice_in_report(mapped)
        decided = []
        for index, (result, outcome) in enumerate(zip(report.results, mapped, strict=True)):
            decided.append(self._one(index, result, outcome, released, judge, whole, oldest, again))
        return self._keep_back(tuple(decided))

    def _judge(self, patient: Patient, report: Report, now: float) -> Callable[[str, str], tuple[str, str, bool, bool]]:
        """The limits that hold for this patient, asked by test and value."""
        limits, sex, specimen = self.catalogue.limits, patient.sex, report.specimen.type
        age = age_in_days(patient, now)

        def judge(test: str, value: str) -> tuple[str, str, bool, bool]:
            found = limits(test, sex, age, specimen)
            if found is None:
                return "", "", False, False
            judged = found.judge(value)
            return judged.flag, found.printed, judged.absurd, judged.critical

        return judge

    def _one(
        self,
        index: int,
        result: Result,
        outcome: Mapped,
        released: Mapping[str, Known],
        judge: Callable[[str, str], tuple[str, str, bool, bool]],
        whole: tuple[Reason, ...],
        oldest: float,
        again: frozenset[str],
    ) -> Decided:
        test = outcome.test
        if outcome.action in ("ignore", "attach"):
            return Decided(index, result.code, Verdict("ignore", outcome.reasons))
        reasons = whole + result.problems + outcome.reasons
        if test is None:
            return Decided(index, result.code, Verdict("hold", reasons), measured_at=result.measured_at)
        name, flag, reference = test.code, "", ""
        if outcome.action == "report":
            flag, reference, absurd, critical = judge(name, outcome.value)
            if absurd:
                reasons += (Reason("absurd", {"value": outcome.value, "unit": test.print_unit}),)
            elif critical:
                reasons += (Reason("critical", {"value": outcome.value, "unit": test.print_unit}),)
        reasons += self._own_reasons(result, test.release, oldest)
        status, action = _DELIVERABLE.get(result.status, result.status), "release"
        if name in again:
            reasons += (Reason("twice-in-message", {"test": name}),)
        before = released.get(name)
        if before is not None:
            status, action, repeat = self._repeated(name, result, before)
            reasons += repeat
        if action == "superseded":
            verdict = Verdict("superseded", reasons)
        else:
            verdict = Verdict("hold", reasons) if reasons else RELEASE
        return Decided(
            index,
            result.code,
            verdict,
            test=name,
            value=outcome.value,
            unit=test.unit,
            print_unit=test.print_unit,
            kind=outcome.kind,
            flag=flag,
            reference=reference,
            status=status,
            measured_at=result.measured_at,
        )

    def _own_reasons(self, result: Result, release: str, oldest: float) -> tuple[Reason, ...]:
        reasons: tuple[Reason, ...] = ()
        if result.status not in _DELIVERABLE:
            reasons += (Reason("status", {"status": result.status}),)
        for alarm in result.alarms:
            if self.held_alarm(alarm):
                reasons += (Reason("alarm", {"alarm": alarm}),)
        if result.measured_at is not None and result.measured_at < oldest:
            reasons += (Reason("stale", {"measured": result.measured}),)
        if release == "manual":
            reasons += (_MANUAL,)
        return reasons

    def _repeated(self, test: str, result: Result, before: Known) -> tuple[str, str, tuple[Reason, ...]]:
        """The same test again for a specimen that had it released: status, action and reasons."""
        older = before.measured_at is not None and result.measured_at is not None and result.measured_at < before.measured_at
        params = {"test": test, "before": before.value}
        if self.rules.repeat == "hold":
            return "C", "hold", (Reason("repeat", params),)
        if self.rules.repeat == "first":
            return "C", "superseded", (Reason("repeat-first", params),)
        if older:
            return "C", "superseded", (Reason("older-measurement", params),)
        return "C", "release", ()

    def _keep_back(self, decided: tuple[Decided, ...]) -> tuple[Decided, ...]:
        """Holds what a held result keeps back: nothing, its panels, or the report."""
        mode = self.rules.hold
        held = [d for d in decided if d.verdict.action == "hold"]
        if not held or mode == "result" or len(held) == len(decided):
            return decided
        because: dict[str, str] = {}
        if mode == "panel":
            for culprit in held:
                for panel in self.catalogue.panels_of(culprit.test):
                    because.setdefault(panel, culprit.test)

        def kept_back(one: Decided) -> Decided:
            if one.verdict.action != "release":
                return one
            if mode == "report":
                cause = held[0].test or held[0].code
            else:
                causes = [because[p] for p in self.catalogue.panels_of(one.test) if p in because]
                if not causes:
                    return one
                cause = causes[0]
            return msgspec.structs.replace(one, verdict=Verdict("hold", (Reason("held-with", {"test": cause}),)))

        return tuple(map(kept_back, decided))


def _twice_in_report(mapped: Sequence[Mapped]) -> frozenset[str]:
    """The tests that one report has more than once: which one counts is for a person to say."""
    names = [m.test.code for m in mapped if m.test is not None and m.action == "report"]
    if len(set(names)) == len(names):
        return frozenset()
    return frozenset(name for name in names if names.count(name) > 1)
