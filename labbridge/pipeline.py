"""The pure middle of the road: read, then decide. No I/O, no clock, no state below this file.

``read`` turns one message into reports and queries. ``decide`` maps, verifies and routes one report against what is
known of its specimen, folded in the order of arrival: each outcome joins the context of the next. ``settle`` is the
same step for a person's release or rejection. Time, entropy and history come in as arguments.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from re import Pattern
from typing import Literal

import msgspec

from labbridge.formats import hl7v2, lis02
from labbridge.formats.oru import UnwritableError, Writer
from labbridge.mapping import Catalogue, CodeMap, Mapped
from labbridge.model import (
    Decided,
    Decision,
    Patient,
    Reading,
    Reason,
    RemoteProtocolError,
    Report,
    Result,
    Specimen,
    Verdict,
    encode,
)
from labbridge.profiles import Profile
from labbridge.routing import Route, destinations
from labbridge.verification import Known, Verifier

State = Literal["released", "held", "rejected", "superseded", "kept"]


class Moment(msgspec.Struct, frozen=True):
    """When a decision is made, and the randomness it may use."""

    at: float  # seconds since 1970
    stamp: str  # HL7 TS in the site's zone: YYYYMMDDHHMMSS+ZZZZ
    entropy: Callable[[int], bytes]

    @classmethod
    def of(cls, at: float, zone: tzinfo, entropy: Callable[[int], bytes]) -> "Moment":
        """The moment ``at``, stamped in ``zone``."""
        return cls(at, datetime.fromtimestamp(at, zone).strftime("%Y%m%d%H%M%S%z"), entropy)

    def control_id(self) -> str:
        """A new MSH-10: 20 characters of base32, 48 bits of time (milliseconds) and 50 random ones."""
        random = int.from_bytes(self.entropy(7), "big") >> 6
        number = ((int(self.at * 1000) & (1 << 48) - 1) << 50 | random) << 2
        return base64.b32encode((number << 4).to_bytes(13, "big")).decode()[:20]


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


class Past(msgspec.Struct, frozen=True):
    """An earlier report of a specimen, with its verdicts as they stand now."""

    analyzer: str
    at: float
    digest: bytes  # of the message it came in
    content: bytes  # of what it says; empty where the sender numbers its messages
    report: Report
    decided: tuple[Decided, ...]


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


class Context:
    """What is known of the specimens of a batch; grows as the batch is decided."""

    def __init__(self, past: Mapping[str, Sequence[Past]] | None = None) -> None:
        self._past: dict[str, list[Past]] = {key: list(value) for key, value in (past or {}).items()}

    def past(self, key: str) -> Sequence[Past]:
        """The earlier reports under one identity, the newest last."""
        return self._past.get(key, ())

    def add(self, key: str, past: Past) -> None:
        """Puts one more report after the earlier ones."""
        self._past.setdefault(key, []).append(past)

    def released(self, key: str) -> dict[str, Known]:
        """The specimen's tests that were released: per test, the last released."""
        known: dict[str, Known] = {}
        for past in self.past(key):
            for one in past.decided:
                if one.verdict.action == "release" and one.test:
                    known[one.test] = Known(one.value, one.measured_at)
        return known


def read(payload: bytes, rules: AnalyzerRules) -> Reading:
    """Reads one message with its analyzer's profile.

    Raises RemoteProtocolError for what cannot be read. Never guesses: what is doubtful is in the reports' problems.
    """
    reader = hl7v2.read if rules.profile.protocol == "hl7v2" else lis02.read
    reading = reader(payload, rules.profile, rules.zone)
    if rules.qc_ids and reading.reports:
        reports = tuple(_with_role(report, rules.qc_ids) for report in reading.reports)
        return msgspec.structs.replace(reading, reports=reports)
    return reading


def _with_role(report: Report, qc_ids: Iterable[Pattern[str]]) -> Report:
    if report.role == "patient" and any(pattern.search(report.specimen.id) for pattern in qc_ids):
        return msgspec.structs.replace(report, role="qc")
    return report


def unreadable(error: RemoteProtocolError) -> Reading:
    """The reading of what could not be read: nothing but the reason."""
    return Reading(problems=(error.reason,))


def key_of(report: Report, rules: AnalyzerRules, moment: Moment) -> str:
    """The identity by which reports of one specimen are found: DESIGN's barcode, sample-number or patient.

    Empty when the report has none: such a report belongs with no other.
    """
    if not report.specimen.id and rules.identity != "patient":
        return ""
    if rules.identity == "sample-number":
        day = next((r.measured[:8] for r in report.results if r.measured), moment.stamp[:8])
        return f"{rules.name}/{day}/{report.specimen.id}"
    if rules.identity == "patient":
        return f"patient/{report.patient.id}" if report.patient.id else ""
    return report.specimen.id


def content_of(report: Report) -> bytes:
    """The digest of what a report says, whenever and however it was sent."""
    return hashlib.sha256(encode((report.specimen, report.role, report.results))).digest()


def is_duplicate(report: Report, content: bytes, digest: bytes, past: Sequence[Past], rules: AnalyzerRules, moment: Moment) -> bool:
    """Tells whether the analyzer's latest report on these tests said just this.

    Same bytes within ``duplicate_window``; or, from a sender without control ids (``content`` is given), the same
    content whenever. Only the latest counts: A, B, A are three versions.
    """
    codes = {result.code for result in report.results}
    for earlier in reversed(past):
        if earlier.analyzer != rules.name or codes.isdisjoint(r.code for r in earlier.report.results):
            continue
        if earlier.digest == digest and moment.at - earlier.at <= rules.verifier.rules.duplicate_window:
            return True
        return bool(content) and earlier.content == content
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
) -> Outcome:
    """Maps, verifies and routes one report, and adds the outcome to the context."""
    mapped = [rules.codes.map(result, report.specimen.type) for result in report.results]
    if report.role == "patient":
        also = _identity_reasons(report, rules)
        decided = rules.verifier.verify(report, mapped, context.released(key), moment.at, also)
        state = state_of(decided, report)
    else:
        decided, state = _kept(report, mapped), "kept"
    outgoing: tuple[Outgoing, ...] = ()
    if state != "kept":
        try:
            outgoing = _outgoing(report, key, decided, decided, context, rules.name, revision, moment)
        except UnwritableError as error:  # a name, say, that the hospital's character set does not have
            decided, state = tuple(_held(one, error.reason) for one in decided), "held"
    if key:
        context.add(key, Past(rules.name, moment.at, digest, content, report, decided))
    return Outcome(key, report, state, Decision(decided), content, outgoing)


def _held(one: Decided, reason: Reason) -> Decided:
    if one.verdict.action != "release":
        return one
    return msgspec.structs.replace(one, verdict=Verdict("hold", (reason,)))


def _identity_reasons(report: Report, rules: AnalyzerRules) -> tuple[Reason, ...]:
    specimen = report.specimen.id
    if rules.identity == "patient":
        return () if report.patient.id else (Reason("no-patient"),)
    if not specimen:
        return () if any(p.code == "no-specimen" for p in report.problems) else (Reason("no-specimen"),)
    if rules.identity == "barcode" and report.specimen.source == "counter":
        return (Reason("specimen-counted"),)  # such a number comes back every day: identity = "sample-number"
    if rules.specimen_pattern is not None and not rules.specimen_pattern.search(specimen):
        return (Reason("specimen-pattern", {"pattern": rules.specimen_pattern.pattern}),)
    return ()


def _kept(report: Report, mapped: Sequence[Mapped]) -> tuple[Decided, ...]:
    """The results of a control, calibrator, blank or test run: mapped, kept apart, never reported."""
    verdict = Verdict("ignore", (Reason("not-a-patient", {"role": report.role}),))
    return tuple(
        Decided(
            index,
            result.code,
            verdict,
            test=one.test.code if one.test else "",
            value=one.value,
            unit=one.test.unit if one.test else "",
            kind=one.kind,
            measured_at=result.measured_at,
        )
        for index, (result, one) in enumerate(zip(report.results, mapped, strict=True))
    )


def state_of(decided: Sequence[Decided], report: Report) -> State:
    """The state of a report from its verdicts: held while anything of it is, also when it has nothing but problems."""
    actions = {one.verdict.action for one in decided}
    if "hold" in actions or (not decided and report.problems):
        return "held"
    if "release" in actions or actions <= {"ignore"}:
        return "released"
    return "superseded" if "superseded" in actions else "rejected"


def _outgoing(
    report: Report,
    key: str,
    news: Sequence[Decided],
    standing: Sequence[Decided],
    context: Context,
    analyzer: str,
    revision: Revision,
    moment: Moment,
    together: frozenset[str] = frozenset(),
) -> tuple[Outgoing, ...]:
    """The payloads for what ``news`` releases; ``standing`` is the whole report as it now stands.

    For the destinations in ``together`` an earlier part of the report still waits: it leaves with the news.
    """
    released = [one for one in news if one.verdict.action == "release"]
    if not released:
        return ()
    found = []
    for name, results in destinations(revision.routes, analyzer, released).items():
        outlet = revision.outlets[name]
        if name in together:
            everything = [one for one in standing if one.verdict.action == "release"]
            results = destinations(revision.routes, analyzer, everything)[name]
        whole, whole_results = report, results
        if outlet.resend == "cumulative":
            whole, whole_results = _cumulative(report, results, context.past(key))
        control_id = moment.control_id()
        payload = outlet.writer.write(
            whole, whole_results, control_id=control_id, stamp=moment.stamp, site=revision.site, analyzer=analyzer
        )
        waits = outlet.wait is not None and any(one.verdict.action == "hold" for one in standing)
        found.append(Outgoing(name, key, control_id, payload, (outlet.wait or 0.0) if waits else 0.0))
    return tuple(found)


def _cumulative(report: Report, results: Sequence[Decided], past: Sequence[Past]) -> tuple[Report, list[Decided]]:
    """The report with all that was released for its specimen before, the last value of each test."""
    all_results: list[Result] = list(report.results)
    tests = {one.test for one in results}
    merged = list(results)
    for earlier in reversed(past):
        for one in earlier.decided:
            if one.verdict.action == "release" and one.test and one.test not in tests:
                tests.add(one.test)
                merged.append(msgspec.structs.replace(one, index=len(all_results)))
                all_results.append(earlier.report.results[one.index])
    return msgspec.structs.replace(report, results=tuple(all_results)), merged


def settle(
    report: Report,
    standing: Sequence[Decided],
    action: Literal["release", "reject", "remap"],
    wanted: frozenset[str],
    decision_of: tuple[str, str],
    key: str,
    context: Context,
    rules: AnalyzerRules,
    revision: Revision,
    moment: Moment,
    *,
    correction: bool = False,
    together: frozenset[str] = frozenset(),
) -> Outcome | None:
    """Settles what is held of a report: ``release``, ``reject``, or ``remap`` (verify anew what had no mapping).

    ``wanted`` names the tests or codes meant, all when empty; ``decision_of`` is who and why. A released result whose
    test was meanwhile released from a later measurement becomes superseded, unless it is sent as a ``correction``.
    ``context`` holds the specimen's reports, this one included; ``together`` names the destinations for which an earlier
    part of the report still waits. None when nothing held was meant.
    """
    held = {d.index: d for d in standing if d.verdict.action == "hold"}
    meant = {i: d for i, d in held.items() if not wanted or d.test in wanted or d.code in wanted}
    if action == "remap":
        meant = {i: d for i, d in held.items() if not d.test}
    if not meant and (held or action == "remap" or report.results):
        return None
    known = context.released(key)
    if action == "reject":
        news = [msgspec.structs.replace(d, verdict=Verdict("rejected", d.verdict.reasons)) for d in meant.values()]
    else:
        fresh = _verified_again(report, context, key, rules, moment) if action == "remap" or _unmapped(meant) else {}
        if action == "remap":
            news = [fresh[i] for i in meant if fresh[i].test or fresh[i].verdict.action == "ignore"]
        else:
            news = [_released(fresh.get(i, d) if not d.test else d, known, correction) for i, d in meant.items()]
    news = [one for one in news if one.verdict != held[one.index].verdict or one.test != held[one.index].test]
    if not news and report.results:
        return None
    by_index = {one.index: one for one in news}
    now_standing = [by_index.get(one.index, one) for one in standing]
    outgoing = _outgoing(report, key, news, now_standing, context, rules.name, revision, moment, together)
    state: State = state_of(now_standing, report)
    if not report.results:
        state = "rejected" if action == "reject" else "released"
    actor, comment = decision_of
    return Outcome(key, report, state, Decision(tuple(news), actor, comment), b"", outgoing)


def _unmapped(meant: Mapping[int, Decided]) -> bool:
    return any(not one.test for one in meant.values())


def _verified_again(report: Report, context: Context, key: str, rules: AnalyzerRules, moment: Moment) -> dict[int, Decided]:
    mapped = [rules.codes.map(result, report.specimen.type) for result in report.results]
    also = _identity_reasons(report, rules)
    decided = rules.verifier.verify(report, mapped, context.released(key), moment.at, also)
    return {one.index: one for one in decided}


def _released(one: Decided, known: Mapping[str, Known], correction: bool) -> Decided:
    """One held result, released by a person; stays held without a test or value to report."""
    if not one.test or not one.value:
        return one
    before = known.get(one.test)
    status = one.status if before is None else "C"
    if before is not None and not correction:
        older = before.measured_at is not None and one.measured_at is not None and one.measured_at < before.measured_at
        if older:
            verdict = Verdict("superseded", (*one.verdict.reasons, Reason("older-measurement", {"test": one.test})))
            return msgspec.structs.replace(one, verdict=verdict)
    status = status if status in ("F", "C", "P") else "F"
    return msgspec.structs.replace(one, verdict=Verdict("release", one.verdict.reasons), status=status)


def standing(decisions: Iterable[Decision]) -> tuple[Decided, ...]:
    """The verdicts as they stand after all decisions on one report, in the order of its results."""
    latest: dict[int, Decided] = {}
    for decision in decisions:
        for one in decision.results:
            latest[one.index] = one
    return tuple(latest[index] for index in sorted(latest))


def nobody() -> Report:
    """A report of nothing: for messages that a person must see though no result was read."""
    return Report(Specimen(), patient=Patient())
