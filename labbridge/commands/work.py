"""One command being carried out: what all of them share."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from labbridge import model
from labbridge.amending import Case
from labbridge.attachments import Attachments
from labbridge.batch import past_of, write_decision, write_delivery
from labbridge.commands.request import CommandError, Done, Request
from labbridge.context import Context, Past
from labbridge.formats import charset
from labbridge.model import Decided, Decision, decode
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Outgoing, Revision, standing
from labbridge.routing import destinations
from labbridge.said import Said
from labbridge.store import Transaction
from labbridge.store.erasure import erased
from labbridge.store.rows import Decision as DecisionRow

NEVER_RELEASED = frozenset({"no-specimen", "specimen-conflict", "patient-conflict", "no-patient"})
LONGEST_REASON = 1000  # characters
EARLY = 300  # seconds that a clock at the bench may be ahead of ours


class Work(msgspec.Struct):
    """Who asked for what, under which rules, and what was done so far; with ``preview`` nothing is written."""

    tx: Transaction
    revision: Revision
    moment: Moment
    request: Request
    actor: str
    done: Done = msgspec.field(default_factory=Done)

    # -- what is asked -------------------------------------------------------------------------------------------

    def need_reason(self) -> None:
        """Whoever changes something says why."""
        if len(self.request.reason) > LONGEST_REASON:
            raise CommandError("a reason has at most {most} characters", most=LONGEST_REASON)
        if not self.request.reason.strip() and not self.request.preview:
            raise CommandError('a reason is needed: add --reason "…"')

    def rows(self, *states: str) -> list[Any]:
        """The reports that are meant, newest last, in one of these states; not those that retention has deleted."""
        request = self.request
        found = self.tx.reports(request.reports) if request.reports else self.tx.reports_of(request.specimen)
        if request.specimen:
            found = [row for row in found if request.specimen in (row.specimen, row.key)]
        if missing := set(request.reports) - {row.report_id for row in found}:
            raise CommandError("there is no report {report} of this specimen: see `labbridge trace`", report=min(missing))
        if not found:
            raise CommandError("nothing is known of specimen {specimen}", specimen=request.specimen)
        return [row for row in found if row.state in states and not erased(row.document)]

    def certain(self, row: Any, past: Past) -> None:
        """What is to leave must be somebody's."""
        blocked = [problem.code for problem in past.report.problems if problem.code in NEVER_RELEASED]
        if blocked or not row.key:
            why = [Said(code) for code in blocked or ["no-specimen"]]
            raise CommandError(
                "report {report} cannot be released ({why}): whose it is is not certain; correct its specimen id, "
                "or reject it and have the specimen measured again",
                report=row.report_id,
                why=why,
            )

    def told_at(self) -> int:
        """When the listener of a call-back was told, in seconds since 1970."""
        if not self.request.told_at:
            return int(self.moment.at)
        try:
            at = datetime.fromisoformat(self.request.told_at)
        except ValueError:
            at = datetime.min
        if at.tzinfo is None:
            raise CommandError("when was it told? write date, time and zone: 2026-11-21T03:15:00+08:00")
        if at.timestamp() > self.moment.at + EARLY:
            raise CommandError("nobody can have been told at a time to come")
        return int(at.timestamp())

    def called(self, decision: Decision) -> Decision:
        """The decision, with who was told, when, and whether it was read back."""
        request = self.request
        if not request.told.strip():
            return decision
        told_at = self.told_at()
        return msgspec.structs.replace(decision, told=request.told.strip(), told_at=told_at, read_back=request.read_back)

    def decision(self, kind: str) -> Decision:
        """A decision of this person, with the reason."""
        return Decision((), self.actor, self.request.reason, kind)

    # -- what is known -------------------------------------------------------------------------------------------

    def rules_of(self, row: Any) -> AnalyzerRules:
        """The rules of the analyzer that a report came from."""
        rules = self.revision.analyzers.get(row.analyzer)
        if rules is None:
            raise CommandError(
                "analyzer {analyzer} is no longer configured: add it again to settle its reports", analyzer=row.analyzer
            )
        return rules

    def case_of(self, row: Any, past: Past) -> Case:
        """A report with what deciding on it needs; ``past`` is the report itself."""
        rules = self.rules_of(row)
        others = self.others(row.key, {row.report_id})
        context = Context({row.key: [*(past_of(one) for one in others), past]})
        together = frozenset(part.destination for part in self.waiting(row))
        attached = self.attached(row, rules)
        return Case(past.report, past.decided, row.key, context, rules, self.revision, self.moment, together, attached)

    def others(self, key: str, without: Collection[int]) -> list[Any]:
        """The reports under a key but for some."""
        return [one for one in self.tx.history([key])[key] if one.report_id not in without] if key else []

    def attached(self, row: Any, rules: AnalyzerRules) -> Attachments:
        """The attachments of a report, out of the message that it came in."""
        return Attachments(lambda: self.tx.message_body(row.message_id), rules.profile, rules.zone, rules.codes)

    def waiting(self, row: Any) -> list[Any]:
        """The deliveries of a report that still wait for the rest of it."""
        return [d for d in self.tx.deliveries_of(row.report_id) if d.state == "queued" and d.due > self.tx.at]

    def carried(self, report: Any, delivery: Any) -> set[str]:
        """The tests of a report that one of its deliveries brings, in whatever state it is."""
        decisions = {row.id: decode(row.document, Decision) for row in self.tx.found(DecisionRow, "report_id", [report.report_id])}
        joined = {
            part.decision_id
            for part in self.tx.deliveries_of(report.report_id)
            if part.id < delivery.id and part.destination == delivery.destination and part.due > delivery.at
        }
        results = [one for number in {*joined, delivery.decision_id} & decisions.keys() for one in decisions[number].results]
        if not any(one.verdict.action == "release" for one in results):
            # After a retry: what is left of a refused delivery is all that was released but what was overtaken.
            results = list(standing(decision for number, decision in decisions.items() if number <= delivery.decision_id))
        released = [one for one in results if one.verdict.action == "release"]
        routed = destinations(self.revision.routes, report.analyzer, released).get(delivery.destination, released)
        return {one.test for one in routed}

    # -- what is done --------------------------------------------------------------------------------------------

    def revision_id(self) -> int:
        """The number of the revision in force."""
        return self.tx.revision(self.revision.digest, self.revision.body)

    def write(self, row: Any, past: Past, outcome: Outcome, action: str) -> None:
        """Writes a decision on a report with all that follows from it, or tells what would leave."""
        before = {one.index: one for one in past.decided}
        news = outcome.decision.results
        new: dict[str, str] = {one.test or one.code: one.verdict.action for one in news}
        told = [Said("{test} {became}", test=one.test or one.code, became=_became(one)) for one in news]
        self.done.said.append(Said("report {report}: {told}", report=row.report_id, told=told or Said(outcome.state)))
        if self.request.preview:
            self.preview(row.specimen or row.key, outcome.outgoing)
            return
        leaving = {out.destination for out in outcome.outgoing}
        for part in self.waiting(row):
            if part.destination in leaving:
                self.tx.set_delivery_state(part.id, "superseded")
                self.done.removed.append(part.id)
        self.done.queued += write_decision(self.tx, outcome, row.report_id, self.revision_id())
        self.tx.set_report_state(row.report_id, outcome.state)
        subject = f"report {row.report_id}"
        old: dict[str, str] = {
            one.test or one.code: before[one.index].verdict.action if one.index in before else "" for one in news
        }
        changed = [one for one in news if one.index not in before or one.value != before[one.index].value]
        for one in changed:
            name = one.test or one.code
            new[name], old[name] = f"{one.verdict.action} {one.value}", f"{old[name]} {_value(before.get(one.index))}".strip()
        if new:
            self.audit(action, subject, _json(old), _json(new | self.callback(outcome.decision)))
        else:
            self.audit(action, subject, row.state, outcome.state)

    def callback(self, decision: Decision) -> dict[str, str]:
        """Who was told of a decision's results, for the audit trail."""
        if not decision.told:
            return {}
        at = datetime.fromtimestamp(decision.told_at or 0, self.revision.zone).isoformat()
        return {"told": decision.told, "told at": at, "read back": "yes" if decision.read_back else "no"}

    def preview(self, specimen: str, outgoing: Sequence[Outgoing]) -> None:
        """Tells what would leave, as text."""
        for out in outgoing:
            codec = charset.codec(self.revision.outlets[out.destination].writer.form.charset)
            text = out.payload.decode(codec, "replace").replace("\r", "\n")
            leaves = self.done.answer.setdefault("leaves", [])
            leaves.append({"destination": out.destination, "specimen": specimen, "text": text})

    def queue(self, out: Outgoing, report_id: int, decision_id: int) -> None:
        """Queues a payload that follows from a decision which is written."""
        self.done.queued.append(write_delivery(self.tx, out, report_id, decision_id))

    def turn(self, row: Any, action: str, state: str, told: Said) -> None:
        """Gives a delivery another state."""
        self.tx.set_delivery_state(row.id, state)
        self.audit(action, f"delivery {row.id}", row.state, state)
        self.done.said.append(Said("delivery {delivery}: {told}", delivery=row.id, told=told))

    def audit(self, action: str, subject: str, old: str, new: str) -> None:
        """Writes into the audit trail."""
        self.tx.audit(actor=self.actor, action=action, subject=subject, reason=self.request.reason, old=old, new=new)

    def say_left_out(self, row: Any, attached: Attachments | None) -> None:
        """Tells that attachments could not leave."""
        if attached is not None and attached.left_out:
            self.done.said.append(
                Said(
                    "report {report}: leaves without its attachments: its message's body is deleted, "
                    "or they cannot be read from it or written any more",
                    report=row.report_id,
                )
            )


def unwritable(row: Any, code: str) -> NoReturn:
    """The hospital's character set cannot say it."""
    raise CommandError("report {report} cannot be written for the hospital: {code}", report=row.report_id, code=code)


def _became(one: Decided) -> Said:
    """What became of a result, for a person."""
    return Said("not reportable") if one.status == "X" and one.verdict.action == "release" else Said(one.verdict.action)


def _value(one: Decided | None) -> str:
    return one.value if one is not None else ""


def _json(value: Any) -> str:
    return model.encode(value).decode()


def observations(payload: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """OBX-5 and OBX-11 of each OBX of a message that we wrote, by the code in OBX-3."""
    rows = [line.split(b"|") for line in payload.split(b"\r") if line.startswith(b"OBX|")]
    return {row[3].partition(b"^")[0]: (row[5], row[11]) for row in rows if len(row) > 11}
