"""What a person may change, as store functions with an actor: run in the writer's next transaction, audited.

The daemon runs them for the control socket; with no daemon running the command line takes the store's lock and runs the
same functions. Each returns a ``Done``: what to tell the person, and what the queue in memory must do.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from labbridge import model, pipeline, settling
from labbridge.attachments import Attachments
from labbridge.batch import past_of, write_decision
from labbridge.context import Context, Past
from labbridge.formats import charset
from labbridge.formats.oru import UnwritableError
from labbridge.lanes import Queued
from labbridge.model import Decided, Decision, Reason, Verdict
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Revision
from labbridge.store import Transaction

NEVER_RELEASED = frozenset({"no-specimen", "specimen-conflict", "patient-conflict", "no-patient"})


class CommandError(Exception):
    """The command cannot be carried out; the text says why and what to do."""


class Done(msgspec.Struct):
    """What a command did: lines for the person, an answer for a program, deliveries that were queued, put back or withdrawn."""

    said: list[str] = []
    answer: dict[str, Any] = {}
    queued: list[Queued] = []
    again: list[int] = []
    removed: list[int] = []


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A command as it comes over the control socket (JSON)."""

    command: str
    specimen: str = ""
    tests: list[str] = []
    deliveries: list[int] = []
    destination: str = ""
    reason: str = ""
    correction: bool = False
    everything: bool = False
    preview: bool = False
    session: str = ""  # of an account that logged in; without one the peer's own user acts
    reports: list[int] = []  # the reports meant, where they are not all of the specimen's
    value: str = ""  # of a result that is edited or entered
    note: str = ""  # a comment
    told: str = ""  # call-back: who was told
    told_at: str = ""  # call-back: when, ISO 8601 with zone; now when empty
    read_back: bool = False  # call-back: whether the listener read it back
    to: str = ""  # the right specimen id
    proposal: int = 0  # a proposed correction of specimen ids
    file: str = ""  # a table of the mappings, without its folder: "sysmex-xn.csv"
    text: str = ""  # its new text
    known: str = ""  # SHA-256 (hex) of the text that was edited
    account: str = ""
    password: str = ""
    role: str = ""
    language: str = ""


Command = Callable[[Transaction, Revision, Moment, Request, str], Done]


def release(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Releases what is held of a specimen: all of it, or the named tests."""
    return _Work(tx, revision, moment, request, actor).settle_specimen("release")


def reject(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Rejects what is held of a specimen: kept, never delivered; or settles a message shown as ``#number``."""
    work = _Work(tx, revision, moment, request, actor)
    return work.settle_message() if request.specimen.startswith("#") else work.settle_specimen("reject")


def release_mapped(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Verifies anew what was held for want of a mapping; with ``preview`` only tells what would leave."""
    return _Work(tx, revision, moment, request, actor).release_mapped()


def retry(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Sends refused deliveries again: the same bytes, unless a later measurement has been delivered since."""
    return _Work(tx, revision, moment, request, actor).retry()


def cancel(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Withdraws deliveries that wait or were refused; the results stay in the store."""
    return _Work(tx, revision, moment, request, actor).cancel()


class _Work(msgspec.Struct):
    """One command being carried out: who asked for what, under which rules, and what was done so far."""

    tx: Transaction
    revision: Revision
    moment: Moment
    request: Request
    actor: str
    done: Done = msgspec.field(default_factory=Done)

    # -- held results and messages -------------------------------------------------------------------------------

    def settle_message(self) -> Done:
        """Settles a message that a person has looked at."""
        self._need_reason()
        try:
            number = int(self.request.specimen[1:])
        except ValueError:
            raise CommandError(f"{self.request.specimen} is no message number: write #123") from None
        if self.tx.message_state(number) != "open":
            raise CommandError(f"message {number} does not wait for a person")
        self.tx.set_message_state(number, "settled")
        self._audit("settle", f"message {number}", "open", "settled")
        return Done([f"message {number} settled"])

    def settle_specimen(self, action: Literal["release", "reject"]) -> Done:
        """Releases or rejects what is held of a specimen."""
        self._need_reason()
        rows = [row for row in self.tx.reports_of(self.request.specimen) if row.state == "held"]
        if not rows:
            raise CommandError(f"nothing is held for specimen {self.request.specimen}: see `labbridge pending`")
        revision_id = self.tx.revision(self.revision.digest, self.revision.body)
        for row in rows:
            past = past_of(row)
            blocked = [problem.code for problem in past.report.problems if problem.code in NEVER_RELEASED]
            if action == "release" and (blocked or not row.key):
                why = ", ".join(blocked) or "no-specimen"
                remedy = "whose it is is not certain; reject it and have the specimen measured again"
                raise CommandError(f"report {row.report_id} cannot be released ({why}): {remedy}")
            try:
                outcome = self._settled(row, past, action)
            except UnwritableError as error:
                raise CommandError(f"report {row.report_id} cannot be written for the hospital: {error.reason.code}") from error
            if outcome is not None:
                self._write(row, past, outcome, revision_id, action)
        if not self.done.said:
            raise CommandError("nothing held was settled: the tests named are not held, or have no mapping or value yet")
        return self.done

    def release_mapped(self) -> Done:
        """Verifies anew what was held for want of a mapping, and releases what may leave now; or tells what would leave."""
        leaves: list[dict[str, str]] = self.done.answer.setdefault("leaves", []) if self.request.preview else []
        revision_id = 0 if self.request.preview else self.tx.revision(self.revision.digest, self.revision.body)
        for row in self.tx.held_reports():
            past = past_of(row)
            if all(one.test or one.verdict.action != "hold" for one in past.decided):
                continue
            outcome = self._settled(row, past, "remap")
            if outcome is None:
                continue
            for one in outcome.decision.results:
                told = f"{one.code} -> {one.test or '-'} {one.value} {one.unit}: {one.verdict.action}"
                self.done.said.append(f"{row.specimen}: {told}")
            if self.request.preview:
                leaves += _leaves(row.specimen, outcome, self.revision)
            else:
                self._write(row, past, outcome, revision_id, "release-mapped")
        return self.done

    def _settled(self, row: Any, past: Past, action: Literal["release", "reject", "remap"]) -> Outcome | None:
        rules = self.revision.analyzers.get(row.analyzer)
        if rules is None:
            raise CommandError(f"analyzer {row.analyzer} is no longer configured: add it again to settle its reports")
        attached = self._attached(row, rules)
        others = self.tx.history([row.key])[row.key] if row.key else []
        context = Context({row.key: [*(past_of(one) for one in others if one.report_id != row.report_id), past]})
        outcome = settling.settle(
            past.report,
            past.decided,
            action,
            frozenset(self.request.tests),
            (self.actor, self.request.reason),
            row.key,
            context,
            rules,
            self.revision,
            self.moment,
            correction=self.request.correction,
            together=frozenset(part.destination for part in self._waiting(row)),
            attachments=attached,
        )
        self._say_left_out(row, attached)
        return outcome

    def _attached(self, row: Any, rules: AnalyzerRules) -> Attachments:
        """The attachments of a report, out of the message that it came in."""
        return Attachments(lambda: self.tx.message_body(row.message_id), rules.profile, rules.zone, rules.codes)

    def _say_left_out(self, row: Any, attached: Attachments | None) -> None:
        if attached is not None and attached.left_out:
            why = "its message's body is deleted, or they cannot be read from it or written any more"
            self.done.said.append(f"report {row.report_id}: leaves without its attachments: {why}")

    def _write(self, row: Any, past: Past, outcome: Outcome, revision_id: int, action: str) -> None:
        leaving = {out.destination for out in outcome.outgoing}
        for part in self._waiting(row):
            if part.destination in leaving:
                self.tx.set_delivery_state(part.id, "superseded")
                self.done.removed.append(part.id)
        self.done.queued += write_decision(self.tx, outcome, row.report_id, revision_id)
        self.tx.set_report_state(row.report_id, outcome.state)
        before = {one.index: one.verdict.action for one in past.decided}
        old = {one.test or one.code: before.get(one.index, "") for one in outcome.decision.results}
        new = {one.test or one.code: one.verdict.action for one in outcome.decision.results}
        subject = f"report {row.report_id}"
        if new:
            self._audit(action, subject, model.encode(old).decode(), model.encode(new).decode())
        else:
            self._audit(action, subject, row.state, outcome.state)
        told = ", ".join(f"{test} {verdict}" for test, verdict in new.items())
        self.done.said.append(f"{subject}: {told or outcome.state}")

    def _waiting(self, row: Any) -> list[Any]:
        """The deliveries of a report that still wait for the rest of it."""
        return [d for d in self.tx.deliveries_of(row.report_id) if d.state == "queued" and d.due > self.tx.at]

    # -- deliveries ----------------------------------------------------------------------------------------------

    def retry(self) -> Done:
        """Sends refused deliveries again, or what no later measurement has replaced of them."""
        for row in self._chosen("refused"):
            newer = set() if self.request.correction else self._overtaken(row)
            if newer:
                self.done.removed.append(row.id)
                self.done.queued += self._without(row, newer)
                tests = ", ".join(sorted(newer))
                self._turn(row, "retry", "superseded", f"superseded, {tests} was delivered from a later measurement")
            else:
                self.done.again.append(row.id)
                self._turn(row, "retry", "queued", "queued again")
        return self.done

    def cancel(self) -> Done:
        """Withdraws deliveries."""
        self._need_reason()
        for row in self._chosen("queued", "refused"):
            self.done.removed.append(row.id)
            self._turn(row, "cancel", "cancelled", "cancelled")
        return self.done

    def _chosen(self, *states: str) -> list[Any]:
        request = self.request
        if not request.deliveries and not request.everything:
            raise CommandError("name the deliveries (see `labbridge queue list`), or --all")
        if request.everything:
            wanted = request.destination
            return [d for d in self.tx.waiting_deliveries() if d.state in states and wanted in ("", d.destination)]
        rows = []
        for number in request.deliveries:
            row = self.tx.find_delivery(number)
            if row is None or row.state not in states:
                raise CommandError(f"delivery {number} is not {' or '.join(states)}: see `labbridge queue list`")
            rows.append(row)
        return rows

    def _turn(self, row: Any, action: str, state: str, told: str) -> None:
        """Gives a delivery another state."""
        self.tx.set_delivery_state(row.id, state)
        self._audit(action, f"delivery {row.id}", row.state, state)
        self.done.said.append(f"delivery {row.id}: {told}")

    def _overtaken(self, row: Any) -> set[str]:
        """The tests of a delivery that were delivered since from a later measurement."""
        reports = self.tx.history([row.lane])[row.lane]
        mine = next((_released(report) for report in reports if report.report_id == row.report_id), {})
        later = set()
        for report in reports:
            parts = self.tx.deliveries_of(report.report_id)
            delivered = any(part.state == "delivered" and part.destination == row.destination for part in parts)
            if delivered and report.report_id != row.report_id:
                for test, one in _released(report).items():
                    if test in mine and (mine[test].measured_at or one.measured_at or 0) < (one.measured_at or 0):
                        later.add(test)
        return later

    def _without(self, row: Any, newer: set[str]) -> list[Queued]:
        """A new delivery of what a superseded one had beside the overtaken tests, which its report has superseded now."""
        report = next(one for one in self.tx.history([row.lane])[row.lane] if one.report_id == row.report_id)
        past, rules = past_of(report), self.revision.analyzers.get(report.analyzer)
        attached = self._attached(report, rules) if rules else None
        news = tuple(
            msgspec.structs.replace(one, verdict=Verdict("superseded", (Reason("older-measurement", {"test": one.test}),)))
            for one in past.decided
            if one.verdict.action == "release" and one.test in newer
        )
        now = pipeline.standing((Decision(past.decided), Decision(news)))
        left = [one for one in now if one.verdict.action == "release"]
        leaving = pipeline.outgoing_of(
            past.report, row.lane, left, now, Context(), past.analyzer, self.revision, self.moment, attachments=attached
        )
        self._say_left_out(report, attached)
        mine = tuple(out for out in leaving if out.destination == row.destination)
        state = pipeline.state_of(now, past.report)
        outcome = Outcome(row.lane, past.report, state, Decision(news, self.actor, self.request.reason), b"", mine)
        self.tx.set_report_state(row.report_id, state)
        return write_decision(self.tx, outcome, row.report_id, self.tx.revision(self.revision.digest, self.revision.body))

    # -- both ----------------------------------------------------------------------------------------------------

    def _need_reason(self) -> None:
        if not self.request.reason.strip():
            raise CommandError('a reason is needed: add --reason "…"')

    def _audit(self, action: str, subject: str, old: str, new: str) -> None:
        self.tx.audit(actor=self.actor, action=action, subject=subject, reason=self.request.reason, old=old, new=new)


def _leaves(specimen: str, outcome: Outcome, revision: Revision) -> list[dict[str, str]]:
    """What the hospital would receive: a message for each destination, a line for each segment."""
    found = []
    for out in outcome.outgoing:
        text = out.payload.decode(charset.codec(revision.outlets[out.destination].writer.form.charset))
        found.append({"destination": out.destination, "specimen": specimen, "text": text.replace("\r", "\n")})
    return found


def _released(row: Any) -> dict[str, Decided]:
    return {one.test: one for one in past_of(row).decided if one.verdict.action == "release"}


COMMANDS: dict[str, Command] = {
    "release": release,
    "reject": reject,
    "release-mapped": release_mapped,
    "retry": retry,
    "cancel": cancel,
}
