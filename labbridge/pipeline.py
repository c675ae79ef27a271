"""The pure middle of the road: read, then decide. No I/O, no clock, no state below this file.

``read`` turns one message into reports and queries. ``decide`` maps, verifies and routes one report against what is
known of its specimen, folded in the order of arrival: each outcome joins the context of the next. Time, entropy and
history come in as arguments.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from re import Pattern
from typing import Literal

import msgspec

from labbridge.attachments import Attachments
from labbridge.context import Context, Past, identity_of
from labbridge.formats import hl7v2, lis02
from labbridge.formats.oru import UnwritableError, Writer
from labbridge.mapping import Catalogue, CodeMap
from labbridge.model import Decided, Decision, Reading, Reason, Report, Result, Verdict, encode
from labbridge.profiles import Profile
from labbridge.routing import Route, destinations
from labbridge.verification import Verifier
from labbridge.verification.reasons import Language, render_all

NO_SPECIMEN = Reason("no-specimen")
NO_VALUE = frozenset("WX")  # HL7 table 0085: withdrawn, cannot be obtained
TOLD = frozenset({"not-reportable", "recollect", "withdrawn"})  # reasons that the hospital reads beside such a result

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]


def _base32(number: int) -> str:
    """The last 50 bits of a number as 10 characters."""
    pairs = _PAIRS
    high = pairs[number >> 40 & 1023] + pairs[number >> 30 & 1023]
    return high + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023] + pairs[number & 1023]


State = Literal["released", "held", "rejected", "superseded", "kept"]


class Moment(msgspec.Struct, frozen=True):
    """When a decision is made, and the randomness it may use."""

    at: float  # seconds since 1970
    stamp: str  # HL7 TS in the site's zone: YYYYMMDDHHMMSS+ZZZZ
    entropy: Callable[[int], bytes]
    prefix: str  # of its control ids

    @classmethod
    def of(cls, at: float, zone: tzinfo, entropy: Callable[[int], bytes]) -> "Moment":
        """The moment ``at``, stamped in ``zone``."""
        stamp = datetime.fromtimestamp(at, zone).strftime("%Y%m%d%H%M%S%z")
        return cls(at, stamp, entropy, _base32(int(at * 1000)))

    def control_id(self) -> str:
        """A new MSH-10: 10 characters of time (milliseconds) and 10 random ones; later ids sort after earlier.

        Base32 with the extended hexadecimal alphabet, whose order is that of the numbers (RFC 4648, 7).
        """
        return self.prefix + _base32(int.from_bytes(self.entropy(7), "big"))


class AnalyzerRules(msgspec.Struct, frozen=True):
    """Everything that reading and deciding need to know of one analyzer, compiled once per revision."""

    name: str
    profile: Profile
    zone: tzinfo
    codes: CodeMap
    verifier: Verifier
    identity: Literal["barcode", "sample-number", "patient"] = "barcode"
    specimen_pattern: Pattern[str] | None = None
    qc_ids: tuple[Pattern[str], ...] = ()


class Outlet(msgspec.Struct, frozen=True):
    """One destination as the pipeline sees it: how its payloads are written, and when."""

    name: str
    writer: Writer
    resend: Literal["changed", "cumulative"] = "changed"
    wait: float | None = None  # seconds that a report waits for its held results; None sends at once
    attachments: bool = False


class Revision(msgspec.Struct, frozen=True):
    """The exact profiles, mappings, limits and rules in force; ``digest`` names it in every decision."""

    digest: bytes
    body: bytes
    site: str
    zone: tzinfo
    catalogue: Catalogue
    analyzers: Mapping[str, AnalyzerRules]
    outlets: Mapping[str, Outlet]
    routes: tuple[Route, ...]
    language: Language = "en"  # of what the hospital is told in words


class Outgoing(msgspec.Struct, frozen=True):
    """A payload for one destination; ``wait`` is how many seconds it may wait for the rest of its report."""

    destination: str
    lane: str
    control_id: str
    payload: bytes
    wait: float = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """What was decided of one report."""

    key: str
    report: Report
    state: State
    decision: Decision
    content: bytes = b""
    outgoing: tuple[Outgoing, ...] = ()


def read(payload: bytes, rules: AnalyzerRules) -> Reading:
    """Reads one message with its analyzer's profile.

    Raises RemoteProtocolError for what cannot be read. Never guesses: what is doubtful is in the reports' problems.
    """
    reader = hl7v2.read if rules.profile.protocol == "hl7v2" else lis02.read
    reading = reader(payload, rules.profile, rules.zone)
    if not rules.qc_ids and rules.identity != "patient":
        return reading
    return msgspec.structs.replace(reading, reports=tuple(_as_configured(report, rules) for report in reading.reports))


def _as_configured(report: Report, rules: AnalyzerRules) -> Report:
    """The report as this laboratory means it: which ids are controls, and whether it goes by specimen ids at all."""
    if any(pattern.search(report.specimen.id) for pattern in rules.qc_ids):
        report = msgspec.structs.replace(report, role="qc")
    if rules.identity == "patient" and NO_SPECIMEN in report.problems:
        report = msgspec.structs.replace(report, problems=tuple(p for p in report.problems if p != NO_SPECIMEN))
    return report


def key_of(report: Report, rules: AnalyzerRules, moment: Moment) -> str:
    """The identity by which reports of one specimen are found: DESIGN's barcode, sample-number or patient.

    Empty when the report has none: such a report belongs with no other.
    """
    if rules.identity == "patient":
        return f"patient/{report.patient.id}" if report.patient.id else ""
    if rules.identity == "barcode" or not report.specimen.id:
        return report.specimen.id
    at = next((r.measured_at for r in report.results if r.measured_at is not None), moment.at)
    return f"{rules.name}/{datetime.fromtimestamp(at, rules.zone):%Y%m%d}/{report.specimen.id}"


def content_of(report: Report) -> bytes:
    """The digest of what a report says, however often it is sent; empty where it tells no time.

    Without a time the same value again may be another run.
    """
    measured = any(result.measured for result in report.results)
    if not measured and not report.sent:
        return b""
    said = msgspec.structs.replace(report, sent="", sent_at=None) if measured else report
    return hashlib.sha256(encode(said)).digest()


def is_duplicate(report: Report, content: bytes, digest: bytes, past: Sequence[Past], rules: AnalyzerRules, moment: Moment) -> bool:
    """Tells whether the analyzer's latest report on these tests said just this.

    Same bytes within ``duplicate_window``; or, from a sender without control ids (``content`` is given), the same
    content whenever. Only the latest counts: A, B, A are three versions.
    """
    codes = {result.code for result in report.results}
    for earlier in reversed(past):
        theirs = {result.code for result in earlier.report.results}
        if earlier.analyzer == rules.name and (codes & theirs or codes == theirs):
            recent = moment.at - earlier.at <= rules.verifier.rules.duplicate_window
            return (recent and earlier.digest == digest) or (bool(content) and earlier.content == content)
    return False


def decide(
    report: Report,
    key: str,
    content: bytes,
    digest: bytes,
    context: Context,
    rules: AnalyzerRules,
    revision: Revision,
    moment: Moment,
    attachments: Attachments | None = None,
) -> Outcome:
    """Maps, verifies and routes one report, and adds the outcome to the context."""
    state: State = "kept"
    outgoing: tuple[Outgoing, ...] = ()
    if report.role in ("patient", "unknown"):
        decided = rules.verifier.keep_back(verdicts(report, key, context, rules, moment.at))
        state = state_of(decided, report)
        try:
            outgoing = outgoing_of(report, key, decided, decided, context, rules.name, revision, moment, attachments=attachments)
        except UnwritableError as error:  # a name, say, that the hospital's character set does not have
            decided, state = tuple(hold(one, error.reason) for one in decided), "held"
    else:
        decided = _kept(report, rules)
    if key:
        context.add(key, Past(rules.name, moment.at, digest, content, report, decided))
    return Outcome(key, report, state, Decision(decided), content, outgoing)


def verdicts(report: Report, key: str, context: Context, rules: AnalyzerRules, at: float) -> tuple[Decided, ...]:
    """The verdict on each result of a patient's report that arrived ``at`` this time, for itself alone."""
    also = _identity_reasons(report, rules)
    if report.role == "unknown":
        also += (Reason("role-unknown"),)
    if context.names_another(key, report.patient):
        also += (Reason("patient-changed"),)
    return rules.verifier.judge(report, rules.codes, context.released(key), at, also)


def _identity_reasons(report: Report, rules: AnalyzerRules) -> tuple[Reason, ...]:
    specimen, pattern = report.specimen.id, rules.specimen_pattern
    if rules.identity == "patient":
        return () if report.patient.id else (Reason("no-patient"),)
    if not specimen:
        return () if NO_SPECIMEN in report.problems else (NO_SPECIMEN,)
    if rules.identity == "barcode" and report.specimen.source == "counter":
        return (Reason("specimen-counted"),)  # such a number comes back every day: identity = "sample-number"
    if pattern is not None and not pattern.search(specimen):
        return (Reason("specimen-pattern", {"pattern": pattern.pattern}),)
    return ()


def hold(one: Decided, reason: Reason) -> Decided:
    """The verdict, unless it would release: then it holds, for this reason."""
    return msgspec.structs.replace(one, verdict=Verdict("hold", (reason,))) if one.verdict.action == "release" else one


def _kept(report: Report, rules: AnalyzerRules) -> tuple[Decided, ...]:
    """The results of a control, calibrator, blank or test run: mapped, kept apart, never reported."""
    verdict = Verdict("ignore", (Reason("not-a-patient", {"role": report.role}),))

    def kept(index: int, result: Result) -> Decided:
        one = rules.codes.map(result, report.specimen.type)
        test = one.test.code if one.test else ""
        return Decided(index, result.code, verdict, test, one.value, one.unit, kind=one.kind, measured_at=result.measured_at)

    return tuple(kept(*each) for each in enumerate(report.results))


def state_of(decided: Sequence[Decided], report: Report) -> State:
    """The state of a report from its verdicts: held while anything of it is, or when beside problems all is ignored."""
    actions = {one.verdict.action for one in decided}
    if "hold" in actions or (report.problems and actions <= {"ignore"}):
        return "held"
    if "release" in actions or actions <= {"ignore"}:
        return "released"
    return "superseded" if "superseded" in actions else "rejected"


def outgoing_of(
    report: Report,
    key: str,
    news: Sequence[Decided],
    standing: Sequence[Decided],
    context: Context,
    analyzer: str,
    revision: Revision,
    moment: Moment,
    together: frozenset[str] = frozenset(),
    attachments: Attachments | None = None,
) -> tuple[Outgoing, ...]:
    """The payloads for what ``news`` releases; ``standing`` is the whole report as it now stands.

    For the destinations in ``together`` an earlier part of the report still waits: it leaves with the news, and at once
    when nothing of the report is held any more. ``attachments`` leave with the first part of the report, and not again.
    """
    waits = "hold" in [one.verdict.action for one in standing]
    leaving = _routed(revision, analyzer, news)
    if together:
        whole = _routed(revision, analyzer, standing)
        leaving |= {name: whole[name] for name in together & whole.keys() if name in leaving or not waits}
    found = []
    for name, results in leaving.items():
        outlet, written = revision.outlets[name], report
        if outlet.resend == "cumulative":
            written, results = _cumulative(report, results, context.past(key), revision, name)
        write, control_id = _writing(outlet, written, results, analyzer, revision, moment)
        if (
            attachments is not None
            and outlet.attachments
            and (name in together or not _begun(name, revision, analyzer, news, standing))
        ):
            payload = attachments.enclose(report, write)
        else:
            payload = write()
        found.append(Outgoing(name, key, control_id, payload, (outlet.wait or 0.0) if waits else 0.0))
    return tuple(found)


def one_outgoing(
    report: Report, key: str, results: Sequence[Decided], destination: str, analyzer: str, revision: Revision, moment: Moment
) -> Outgoing:
    """The payload that tells one destination of these results and no others, whatever the routes say. Raises UnwritableError."""
    write, control_id = _writing(revision.outlets[destination], report, results, analyzer, revision, moment)
    return Outgoing(destination, key, control_id, write())


def _writing(
    outlet: Outlet, report: Report, results: Sequence[Decided], analyzer: str, revision: Revision, moment: Moment
) -> tuple[Callable[..., bytes], str]:
    """How these results are written for a destination, and the control id of it."""
    control_id, notes = moment.control_id(), {}
    if results[-1].index >= len(report.results):
        report = with_entered(report, results)
    if any(one.status in NO_VALUE for one in results):
        told = {one.index: [reason for reason in one.verdict.reasons if reason.code in TOLD] for one in results}
        notes = {index: render_all(reasons, revision.language) for index, reasons in told.items() if reasons}
    put = partial(outlet.writer.write, report, results, control_id=control_id, stamp=moment.stamp, site=revision.site)
    write = partial(put, analyzer=analyzer, notes=notes)
    return write, control_id


def with_entered(report: Report, decided: Iterable[Decided]) -> Report:
    """The report with the results that a person has entered behind those that the analyzer sent."""
    entered = {one.index: one for one in decided if one.index >= len(report.results)}
    places = range(len(report.results), max(entered, default=-1) + 1)
    return msgspec.structs.replace(report, results=(*report.results, *(_entered(entered.get(place)) for place in places)))


def _entered(one: Decided | None) -> Result:
    return Result(one.code, one.value, unit=one.unit, measured_at=one.measured_at, edited=True) if one else Result("")


def _begun(name: str, revision: Revision, analyzer: str, news: Sequence[Decided], standing: Sequence[Decided]) -> bool:
    """Whether this destination has had something of the report before the news."""
    new = {one.index for one in news}
    return name in _routed(revision, analyzer, (one for one in standing if one.index not in new))


def _routed(revision: Revision, analyzer: str, decided: Iterable[Decided]) -> dict[str, list[Decided]]:
    """What of this is released, by destination."""
    released = [one for one in decided if one.verdict.action == "release"]
    return destinations(revision.routes, analyzer, released) if released else {}


def _cumulative(
    report: Report, results: Sequence[Decided], past: Sequence[Past], revision: Revision, destination: str
) -> tuple[Report, list[Decided]]:
    """The report with all that was released for its specimen and patient before, the last value of each test."""
    if results[-1].index >= len(report.results):
        report = with_entered(report, results)
    all_results, merged, tests = list(report.results), list(results), {one.test for one in results}
    last: dict[str, tuple[Decided, Report]] = {}
    for earlier in reversed(past):
        both = zip(identity_of(report.patient), identity_of(earlier.report.patient), strict=True)
        if any(mine and theirs and mine != theirs for mine, theirs in both):
            continue
        for one in _routed(revision, earlier.analyzer, earlier.decided).get(destination, ()):
            if one.test not in tests and (one.test not in last or (last[one.test][0].measured_at or 0) < (one.measured_at or 0)):
                last[one.test] = one, earlier.report
    for one, said in last.values():
        merged.append(msgspec.structs.replace(one, index=len(all_results)))
        all_results.append((said if one.index < len(said.results) else with_entered(said, [one])).results[one.index])
    return msgspec.structs.replace(report, results=tuple(all_results)), merged


def standing(decisions: Iterable[Decision]) -> tuple[Decided, ...]:
    """The verdicts as they stand after all decisions on one report, in the order of its results."""
    latest = {one.index: one for decision in decisions for one in decision.results}
    return tuple(latest[index] for index in sorted(latest))
