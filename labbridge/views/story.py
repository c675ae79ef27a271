"""The story of a specimen: everything that the store knows of it, as events on one time line.

What came in, how it was read and mapped, what the rules said, what people did and saw, what left, what the hospital
answered. Words are in the user's language; nothing here draws.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from labbridge import model
from labbridge.formats.acknowledgement import read_answer
from labbridge.model import Decided, Reason, Report, Result
from labbridge.showing import brief
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.rows import Attempt, Audit, Decision, Delivery, Earlier, Message, Revision, Trace
from labbridge.views.texts import _, clock_text, number_text, reason_text, time_text

What = Literal["message", "reading", "mapping", "verdict", "person", "delivery", "answer", "audit"]
Tone = Literal["", "good", "bad", "wait"]
RULES = "rules"  # the actor of what nobody decided by hand

_ORDER = {"message": 0, "reading": 1, "mapping": 2, "verdict": 3, "person": 3, "delivery": 4, "answer": 5, "audit": 6}
_SEEN = frozenset({"viewed", "export"})
AUDITS = 500  # told of
_TESTS = 12  # named in one line


class Event(msgspec.Struct, frozen=True):
    """One thing that happened; ``table`` has a heading first, ``opens`` is the row whose bytes it is about."""

    at: int
    what: What
    title: str
    lines: tuple[str, ...] = ()
    tone: Tone = ""
    table: tuple[tuple[str, ...], ...] = ()
    opens: tuple[str, int] | None = None
    again: int = 0  # the delivery that can be sent once more


class Known(msgspec.Struct, frozen=True):
    """What the store has of a specimen."""

    trace: Trace
    audits: tuple[Audit, ...] = ()
    revisions: tuple[Revision, ...] = ()
    until: int = 0  # the audit was looked through up to this id


def known(reader: Reader, specimen: str, before: Known | None = None) -> Known:
    """Reads it all; of the audit, which may be long, only what came after ``before``."""
    trace, until = reader.trace(specimen), reader.last_audit()
    if not trace.reports:
        return Known(trace)
    named = {"message": [row.id for row in trace.messages], "report": [row.report_id for row in trace.reports]}
    named["delivery"] = [row.id for row in trace.deliveries]
    subjects = [f"specimen {specimen}", specimen, *(f"{kind} {id}" for kind, ids in named.items() for id in ids)]
    audits = [*(before.audits if before else ()), *reader.audits(subjects, before.until if before else 0)][-AUDITS:]
    revisions = reader.rows(Revision, "id", {row.revision for row in trace.decisions}, large=False)
    return Known(trace, tuple(audits), tuple(revisions), max(until, audits[-1].id if audits else 0))


def story(known: Known) -> list[Event]:
    """The events in the order in which they happened."""
    trace = known.trace
    reports = {row.report_id: None if erased(row.document) else model.decode(row.document, Report) for row in trace.reports}
    events = [message_event(message) for message in trace.messages]
    events += [_reading(row, reports[row.report_id], trace.erased) for row in trace.reports]
    told = set()
    for row in trace.decisions:
        if erased(row.document):
            events.append(Event(row.at, "verdict", _("A decision by {who}; its text was deleted", who=_who(row.actor))))
            continue
        decision = model.decode(row.document, model.Decision)
        told.add((row.at, f"report {row.report_id}"))
        events += _decision(row, decision, reports.get(row.report_id))
    events += [_delivery(row) for row in trace.deliveries]
    whither = {row.id: row.destination for row in trace.deliveries}
    events += [_answer(row, whither.get(row.delivery_id, "")) for row in trace.attempts]
    events += _audits([row for row in known.audits if (row.at, row.subject) not in told])
    return sorted(events, key=lambda event: (event.at, _ORDER[event.what]))


def state_text(state: str) -> str:
    """The state of a report, a delivery or a message in words."""
    words = {
        "released": _("released"),
        "held": _("held"),
        "rejected": _("rejected"),
        "superseded": _("superseded"),
        "kept": _("kept, not for the hospital"),
        "queued": _("waits to be sent"),
        "delivered": _("delivered"),
        "refused": _("refused"),
        "cancelled": _("cancelled"),
        "open": _("a person must look"),
        "settled": _("settled"),
    }
    return words.get(state, state)


def verdict_text(action: str) -> str:
    """What became of a result, in words."""
    words = {"release": _("released"), "hold": _("held"), "ignore": _("not reported"), "superseded": _("superseded")}
    return words.get(action) or state_text(action)


# -- what came in ----------------------------------------------------------------------------------------------------


def message_event(row: Message) -> Event:
    """A message that came, and what is wrong with it."""
    lines = [_("{size} bytes over {link}", size=number_text(row.size), link=brief(row.link))]
    if row.control_id:
        lines.append(_("Its control id: {id}", id=brief(row.control_id)))
    note = msgspec.json.decode(row.note.encode() or b"[]", type=list[Reason])
    lines += [brief(reason_text(note))] if note else []
    kind = "" if row.kind == "stored" else f" ({row.kind})"
    title = _("Message {id} from {analyzer}", id=row.id, analyzer=row.analyzer) + kind
    return Event(row.at, "message", title, tuple(lines), "bad" if row.state == "open" else "", opens=("message", row.id))


def _reading(row: Earlier, report: Report | None, deleted: dict[int, int]) -> Event:
    opens = ("message", row.message_id)
    mark = erased(row.document)
    if report is None or mark:
        when = deleted.get(mark.audit_id if mark else 0, 0)
        title = _("Report {id}: its text was deleted by retention on {day}", id=row.report_id, day=time_text(when))
        return Event(row.at, "reading", title, opens=opens)
    lines = []
    if report.role != "patient":
        roles = {"qc": _("quality control"), "calibration": _("calibration"), "test": _("test mode"), "unknown": _("unknown")}
        lines.append(_("This is no patient's specimen: {role}", role=roles[report.role]))
    edited = [result.name or result.code for result in report.results if result.edited]
    if edited:
        lines.append(_("Changed by hand at the analyzer: {tests}", tests=_some(edited)))
    alarms = Counter(alarm for result in report.results for alarm in result.alarms)
    if alarms:
        lines.append(_("Alarms of the analyzer: {alarms}", alarms=_some(alarms)))
    lines += [brief(text) for text in report.comments[:3]]
    if report.problems:
        lines.append(brief(reason_text(report.problems)))
    title = _("Read as report {id}: {count} results", id=row.report_id, count=len(report.results))
    return Event(row.at, "reading", title, tuple(lines), "wait" if report.problems else "", opens=opens)


# -- what was decided ------------------------------------------------------------------------------------------------


def _decision(row: Decision, decision: model.Decision, report: Report | None) -> Iterator[Event]:
    """By the rules: mapping and verdict; by a person: what was done, and what became of the results."""
    if row.actor == RULES:
        yield _mapping(row, decision, report)
        yield Event(row.at, "verdict", _outcome(decision), _whys(decision), _tone(decision), _verdicts(decision, report))
        return
    lines = [brief(decision.comment)] if decision.comment else []
    if decision.tests:
        lines.append(_some(decision.tests))
    if decision.told:
        when = time_text(decision.told_at * 1_000_000) if decision.told_at else ""
        back = _("read back") if decision.read_back else _("not read back")
        lines.append(_("Told {whom} at {when}, {back}", whom=brief(decision.told), when=when, back=back))
    lines += [_outcome(decision), *_whys(decision)] if decision.results else []
    yield Event(row.at, "person", _deed(decision, row.actor), tuple(lines), _tone(decision), _verdicts(decision, report))


def _deed(decision: model.Decision, actor: str) -> str:
    """What a person did, as a sentence."""
    who = _who(actor)
    deeds = {
        "release": _("{who} released results", who=who),
        "release-mapped": _("{who} had results verified anew, after a code was mapped", who=who),
        "reject": _("{who} rejected results", who=who),
        "not-reportable": _("{who} found results not reportable", who=who),
        "recollect": _("{who} asked for a new specimen", who=who),
        "edit": _("{who} edited a result", who=who),
        "comment": _("{who} commented", who=who),
        "call-back": _("{who} called a result back", who=who),
        "acknowledge": _("{who} acknowledged a critical result", who=who),
        "correct-id": _("{who} proposed another specimen id", who=who),
        "confirm-id": _("{who} confirmed another specimen id", who=who),
        "retry": _("{who} sent results again", who=who),
    }
    return deeds.get(decision.kind) or _("{who} decided", who=who)


def _mapping(row: Decision, decision: model.Decision, report: Report | None) -> Event:
    """Which of the laboratory's tests each code became, with what was sent and what is reported."""
    unmapped = [one.code for one in decision.results if not one.test and one.verdict.action == "hold"]
    lines = [_("Not mapped: {codes}", codes=_some(unmapped))] if unmapped else []
    table = [(_("code"), _("as sent"), _("test"), _("reported"))]
    for one in decision.results:
        sent = _sent(one, report)
        raw = brief(f"{sent.value} {sent.unit}".strip(), 60)
        table.append((brief(one.code, 60), raw, brief(one.test, 60) or "—", _quantity(one.value, one)))
    mapped = sum(1 for one in decision.results if one.test)
    title = _("{mapped} of {count} results mapped", mapped=mapped, count=len(decision.results))
    return Event(row.at, "mapping", title, tuple(lines), "wait" if unmapped else "", tuple(table))


def _verdicts(decision: model.Decision, report: Report | None) -> tuple[tuple[str, ...], ...]:
    if not decision.results:
        return ()
    table: list[tuple[str, ...]] = [(_("test"), _("value"), _("flag"), _("what became of it"), _("why"))]
    for one in decision.results:
        value = _quantity(one.value or _sent(one, report).value, one)
        state = f"{verdict_text(one.verdict.action)} ({one.status})"
        table.append((brief(one.test or one.code, 60), value, one.flag, state, brief(reason_text(one.verdict.reasons), 400)))
    return tuple(table)


def _sent(one: Decided, report: Report | None) -> Result:
    """The result as the analyzer sent it; empty where a person entered it, or where the report was deleted."""
    return report.results[one.index] if report and one.index < len(report.results) else Result(one.code)


def _quantity(value: str, one: Decided) -> str:
    return brief(f"{value} {one.print_unit or one.unit}".strip(), 60)


def _outcome(decision: model.Decision) -> str:
    counted = Counter(one.verdict.action for one in decision.results)
    words = [f"{count} {verdict_text(action)}" for action, count in counted.most_common()]
    withdrawn = sum(1 for one in decision.results if one.status == "W")
    words += [_("{count} withdrawn", count=withdrawn)] if withdrawn else []
    return " · ".join(words) or _("No result was decided")


def _whys(decision: model.Decision) -> tuple[str, ...]:
    """The reasons of a decision, each once, with the tests that it is about."""
    about: dict[str, list[str]] = {}
    for one in decision.results:
        for reason in one.verdict.reasons:
            about.setdefault(reason_text([reason]), []).append(one.test or one.code)
    lines = [f"{brief(why, 300)} — {_some(tests)}" for why, tests in about.items()]
    return tuple(lines[:8] + ([_("… and {count} more reasons", count=len(lines) - 8)] if len(lines) > 8 else []))


def _tone(decision: model.Decision) -> Tone:
    actions = {one.verdict.action for one in decision.results}
    return "wait" if "hold" in actions else "good" if "release" in actions else ""


# -- what left -------------------------------------------------------------------------------------------------------


def _delivery(row: Delivery) -> Event:
    lines = [_("Its control id: {id}", id=row.control_id)]
    if row.due > row.at:
        lines.append(_("Not before {time}", time=time_text(row.due)))
    tones: dict[str, Tone] = {"delivered": "good", "refused": "bad", "queued": "wait"}
    title = _("Delivery {id} for {destination}: {state}", id=row.id, destination=row.destination, state=state_text(row.state))
    again = row.id if row.state in ("delivered", "cancelled") else 0
    return Event(row.at, "delivery", title, tuple(lines), tones.get(row.state, ""), opens=("delivery", row.id), again=again)


def _answer(row: Attempt, destination: str) -> Event:
    outcome, _blank, code = brief(row.outcome, 30).partition(" ")
    said = {
        "accepted": _("{destination} accepted delivery {id} ({code})", destination=destination, id=row.delivery_id, code=code),
        "again": _("{destination} wants delivery {id} again ({code})", destination=destination, id=row.delivery_id, code=code),
        "refused": _("{destination} refused delivery {id} ({code})", destination=destination, id=row.delivery_id, code=code),
        "unanswered": _("{destination} may have delivery {id}: cancelled unanswered", destination=destination, id=row.delivery_id),
    }
    tones: dict[str, Tone] = {"accepted": "good", "again": "wait", "refused": "bad"}
    words = words_of(row)
    title = said.get(outcome) or f"{destination}: {brief(row.outcome)}"
    return Event(row.at, "answer", title, (words,) if words else (), tones.get(outcome, ""), opens=("attempt", row.id))


def words_of(row: Attempt) -> str:
    """The hospital's own words in an answer, with its error codes; they may name a patient."""
    answer = read_answer(row.reply)
    return brief(" · ".join(filter(None, (answer.text, ", ".join(answer.errors)))))


# -- what people did beside deciding ---------------------------------------------------------------------------------


def _audits(rows: Sequence[Audit]) -> Iterator[Event]:
    """Each change; and who looked, once for all looks within an hour."""
    looks: dict[tuple[str, str, int], list[Audit]] = {}
    for row in rows:
        if row.action in _SEEN:
            looks.setdefault((row.actor, row.action, row.at // 3_600_000_000), []).append(row)
            continue
        change = f"{brief(row.old, 80)} → {brief(row.new, 80)}" if row.old or row.new else ""
        lines = tuple(brief(text) for text in (row.reason, change) if text)
        yield Event(row.at, "audit", f"{_who(row.actor)}: {brief(row.action, 40)}, {brief(row.subject, 80)}", lines)
    for (actor, action, _hour), same in looks.items():
        seen = _("{who} exported it", who=_who(actor)) if action == "export" else _("{who} looked at it", who=_who(actor))
        last = _("{count} times, last at {time}", count=len(same), time=clock_text(same[-1].at))
        yield Event(same[0].at, "audit", seen, (last,) if len(same) > 1 else ())


def _who(actor: str) -> str:
    return _("the rules") if actor == RULES else brief(actor, 60)


def _some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    every = list(dict.fromkeys(names))
    more = f" … +{len(every) - _TESTS}" if len(every) > _TESTS else ""
    return ", ".join(brief(name, 40) for name in every[:_TESTS]) + more
