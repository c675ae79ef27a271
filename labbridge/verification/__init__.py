"""Release or hold: the laboratory's verdict on each result, with reasons.

Pure: history, limits and the time come in as values. ``verify`` makes a verdict for each result on its own;
``keep_back`` then holds what a held result keeps back, its panels or its whole report (``[verification] hold``).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Literal

import msgspec

from labbridge.mapping import Catalogue, Limits, Mapped
from labbridge.model import Decided, Reason, Report, Result, Verdict
from labbridge.verification.ages import age_in_days

RELEASE = Verdict("release")
# HL7 table 0085, as it is delivered: A is an amended result, U a final one that was preliminary before.
_DELIVERABLE = {"F": "F", "P": "P", "C": "C", "A": "C", "U": "F"}
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
    limits: Callable[[str], Limits | None]  # of a test, for this patient and specimen
    released: Mapping[str, Known]
    oldest: float
    again: frozenset[str]


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

    def verify(
        self, report: Report, mapped: Sequence[Mapped], released: Mapping[str, Known], now: float, also: tuple[Reason, ...] = ()
    ) -> tuple[Decided, ...]:
        """The verdict on every result of a patient's report, each for itself alone.

        ``released`` is what the specimen's tests were released with before; ``also`` are further reasons to hold the
        whole report. ``now`` is in seconds since 1970.
        """
        whole = report.problems + also + (() if self.rules.auto_release else (_AUTO_OFF,))
        age = age_in_days(report.patient, now, self.zone)
        limits = self.catalogue.limits_for(report.patient.sex, age, report.specimen.type)
        case = _Case(whole, limits, released, now - self.rules.stale, _twice_in_report(mapped))
        return tuple([self._one(n, result, mapped[n], case) for n, result in enumerate(report.results)])

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
        params = {"test": test, "before": before.value}
        unknown = before.measured_at is None or result.measured_at is None
        if policy == "first" and result.status not in ("C", "A"):
            return Verdict("superseded", (Reason("repeat-first", params),))
        if policy != "latest-measured" or unknown:
            return Verdict("hold", (Reason("repeat", params),))
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
            return msgspec.structs.replace(one, verdict=Verdict("hold", (Reason("held-with", {"test": cause}),)))

        return tuple(map(kept_back, decided))


def _twice_in_report(mapped: Sequence[Mapped]) -> frozenset[str]:
    """The tests that one report has more than once: which one counts is for a person to say."""
    names = [one.test.code for one in mapped if one.test is not None and one.action == "report"]
    if len(set(names)) == len(names):
        return frozenset()
    return frozenset(name for name, times in Counter(names).items() if times > 1)
