"""What a person changes of a stored report: no result can be had, another value, another specimen.

The same step as ``pipeline.decide``, and as pure: time, entropy and history come in as arguments.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from labbridge import pipeline
from labbridge.attachments import Attachments
from labbridge.context import Context
from labbridge.formats.oru import UnwritableError
from labbridge.mapping.catalogue import Test
from labbridge.mapping.codes import Mapped, Rule
from labbridge.model import Decided, Decision, Reason, Report, Specimen, Verdict
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Revision
from labbridge.said import Refusal
from labbridge.verification import Known
from labbridge.verification.callback import is_critical

LONGEST = 200  # characters of a value that a person writes
_COMPARED = re.compile(r"(<=|>=|<|>)?\s*([+-]?(?:\d+\.?\d*|\.\d+))", re.ASCII)
# What the specimen's other reports, or its id, have against a result, whoever released it under another id.
_OF_THE_SPECIMEN = frozenset({
    *("repeat", "repeat-first", "after-not-reportable", "older-measurement", "patient-changed"),
    *("no-specimen", "no-patient", "specimen-pattern", "specimen-counted", "role-unknown"),
})  # fmt: skip


class AmendError(Refusal):
    """The report cannot be changed so; the text says why."""


class Case(msgspec.Struct, frozen=True):
    """A stored report and what is needed to decide on it.

    ``context`` holds the specimen's reports, this one included; ``together`` names the destinations for which an earlier
    part of the report still waits.
    """

    report: Report
    before: Sequence[Decided]
    key: str
    context: Context
    rules: AnalyzerRules
    revision: Revision
    moment: Moment
    together: frozenset[str] = frozenset()
    attachments: Attachments | None = None

    def outcome(self, news: Sequence[Decided], decision: Decision) -> Outcome:
        """What follows from these new verdicts, which are put into the decision. Raises UnwritableError."""
        now = pipeline.standing((Decision(tuple(self.before)), Decision(tuple(news))))
        attached = None if any(one.verdict.action == "release" for one in self.before) else self.attachments
        outgoing = pipeline.outgoing_of(
            *(self.report, self.key, news, now, self.context, self.rules.name, self.revision, self.moment),
            together=self.together,
            attachments=attached,
        )
        decision = replace(decision, results=tuple(news))
        return Outcome(self.key, self.report, pipeline.state_of(now, self.report), decision, b"", outgoing)

    def overtaken(self, one: Decided) -> bool:
        """Tells whether the test was released from a later measurement."""
        known = self.context.released(self.key).get(one.test)
        return known is not None and known.is_later_than(one.measured_at)


def without_value(case: Case, wanted: Collection[str], released_too: bool, why: Reason, done: set[str]) -> list[Decided]:
    """The verdicts by which no result can be had of these tests: the hospital is told so (OBX-11 X), with the reason.

    ``wanted`` names tests or codes, all when empty; what was released before is meant when it is named, or with
    ``released_too``. What a later measurement has overtaken is superseded. ``done`` are the tests of which a later report
    has told it already; these of this report are added.
    """
    news: list[Decided] = []
    for one in case.before:
        named, released = one.test in wanted or one.code in wanted, one.verdict.action == "release"
        if not one.test or one.verdict.action not in ("hold", "release") or (wanted and not named):
            continue
        if released and ((not named and not released_too) or one.status == "X" or one.test in done):
            continue
        kept = tuple(reason for reason in one.verdict.reasons if reason.code not in pipeline.TOLD)
        if one.test in done:
            news.append(replace(one, verdict=Verdict("rejected", (*kept, why))))
        elif case.overtaken(one):
            if not released:
                older = Reason("older-measurement", {"test": one.test})
                news.append(replace(one, verdict=Verdict("superseded", (*kept, older))))
        else:
            done.add(one.test)
            news.append(replace(one, value="", flag="", status="X", verdict=Verdict("release", (*kept, why))))
    return news


def with_value(case: Case, test: Test, text: str, *, correction: bool = False) -> Decided:
    """The verdict by which a test has this value: one of the report's results changed, or a new one where it has none.

    Limits, flags and rounding are those of any value. Raises AmendError for what is no value of the test, is not compatible
    with life, or is older than what was released, unless it is sent as a ``correction``.
    """
    mapped = _mapped(test, text)
    old = [one for one in case.before if one.test == test.code and one.verdict.action in ("hold", "release")]
    if len(old) > 1:
        raise AmendError("{test} stands in the report {n} times: reject the wrong one first", test=test.code, n=len(old))
    index = max([len(case.report.results) - 1, *(one.index for one in case.before)]) + 1
    code, at = test.code, int(case.moment.at)
    if old:
        index, code, at = old[0].index, old[0].code, old[0].measured_at or 0
    one = case.rules.verifier.value_of(case.report, index, code, mapped, at or None, case.moment.at)
    if any(reason.code == "absurd" for reason in one.verdict.reasons):
        value = f"{one.value} {one.print_unit}"
        raise AmendError("{test} {value} is not compatible with life", test=test.code, value=value)
    if not correction and case.overtaken(one):
        raise AmendError(
            "{test} was released from a later measurement: change that one, or send this as a correction", test=test.code
        )
    why = Reason("edited", {"before": old[0].value}) if old else Reason("entered", {})
    known = case.context.released(case.key).get(test.code)
    status = "C" if known is not None and known.final else "F"
    return replace(one, status=status, verdict=Verdict("release", (why, *one.verdict.reasons)))


def _mapped(test: Test, text: str) -> Mapped:
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise AmendError("a value of {test} has 1 to {most} characters", test=test.code, most=LONGEST)
    if test.kind != "number":
        return Mapped("report", test, text, test.unit, test.print_unit, test.kind)
    match = _COMPARED.fullmatch(text)
    number = Rule(test).number(match[2], match[1] or "") if match else None
    if match is None or number is None:
        raise AmendError("{value} is not a number, which {test} is", value=repr(text), test=test.code)
    comparator = match[1] or ""
    return Mapped("report", test, comparator + number, test.unit, test.print_unit, "comparator" if comparator else "number")


def under(report: Report, specimen: str) -> Report:
    """The report as if it had come under this specimen id."""
    named = Specimen(specimen, "manual", *msgspec.structs.astuple(report.specimen)[2:])
    return replace(report, specimen=named, problems=tuple(one for one in report.problems if one != pipeline.NO_SPECIMEN))


def moved(case: Case, by_person: frozenset[int], at: float, decision: Decision, came_as: Reason) -> Outcome:
    """Decides anew on a report that came ``at`` this time and is another specimen's; ``context`` is that specimen's.

    ``before`` are the verdicts under the wrong id. What a person (``by_person``) had released stays released, and so do
    the values that a person gave, unless the specimen's other reports hold it; a critical value is held again, since those
    were told who have nothing to do with it. What was rejected stays so.
    """
    report, rules = case.report, case.rules
    fresh = {one.index: one for one in pipeline.verdicts(report, case.key, case.context, rules, at)}
    known = case.context.released(case.key)
    whole = (Reason("patient-changed"),) if case.context.names_another(case.key, report.patient) else ()
    news = [
        _moved(one, fresh.get(one.index), one.index in by_person, known, whole, came_as)
        for one in (*case.before, *(fresh[index] for index in fresh.keys() - {one.index for one in case.before}))
    ]
    news = list(rules.verifier.keep_back(tuple(sorted(news, key=lambda one: one.index))))
    try:
        return replace(case, before=()).outcome(news, decision)
    except UnwritableError as error:
        news = [pipeline.hold(one, error.reason) for one in news]
        return replace(case, before=()).outcome(news, decision)


def _moved(
    old: Decided, fresh: Decided | None, by_person: bool, known: Mapping[str, Known], whole: tuple[Reason, ...], came_as: Reason
) -> Decided:
    """The verdict on one result under its right specimen."""
    if old.verdict.action == "rejected":
        return old
    if not by_person:
        one = fresh or old
        return (
            one
            if one.verdict.action == "ignore"
            else replace(one, verdict=Verdict(one.verdict.action, (*one.verdict.reasons, came_as)))
        )
    reasons = [reason for reason in (fresh.verdict.reasons if fresh else ()) if reason.code in _OF_THE_SPECIMEN]
    reasons += [reason for reason in whole if reason not in reasons]
    earlier = known.get(old.test)
    if earlier is not None and not reasons:
        reasons.append(Reason("repeat", {"test": old.test, "before": earlier.value}))
    status = "C" if earlier is not None and earlier.final and old.status != "X" else "F" if old.status == "C" else old.status
    if fresh is not None and fresh.verdict.action == "superseded":
        return replace(old, verdict=fresh.verdict, status=status)
    if old.status == "X":
        return replace(old, verdict=Verdict("rejected" if reasons else "release", (*old.verdict.reasons, *reasons, came_as)))
    if is_critical(old):
        reasons += [reason for reason in old.verdict.reasons if reason.code == "critical"]
        return replace(old, status=status, verdict=Verdict("hold", (*reasons, came_as)))
    kept = tuple(reason for reason in old.verdict.reasons if reason not in reasons)
    return replace(old, status=status, verdict=Verdict("hold" if reasons else "release", (*reasons, *kept, came_as)))
