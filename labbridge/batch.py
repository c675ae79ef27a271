"""One batch: what arrived is read, decided and written in one transaction of the store's writer thread.

A batch is a job that can be run again: when its group's commit fails it runs once more, alone, on what it took the
first time. Nothing of it is answered before ``committed``; ``failed`` has every message sent again.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from labbridge import model, pipeline
from labbridge.attachments import Attachments
from labbridge.context import Context, Past
from labbridge.formats import lis02
from labbridge.formats.acknowledgement import acknowledge
from labbridge.lanes import Queued
from labbridge.model import Reading, Reason, RemoteProtocolError, encode
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Outgoing
from labbridge.store import StoreError, Transaction
from labbridge.wire.events import Abandoned, Answer, Event, Left, Oversize, Part, Received, Stray

if TYPE_CHECKING:
    from labbridge.intake import Intake

log = structlog.get_logger()
_FAULT = RemoteProtocolError(Reason("reader-failed"))
FILED = "file "  # in the spool, what begins so is no transmission that broke off


class Desk(msgspec.Struct, eq=False):
    """One open link at intake: its analyzer, what waits of it, how much is unsettled."""

    analyzer: str
    rules: AnalyzerRules
    session: str
    link: Any  # a links.stream.WireProtocol; None when it is gone
    waiting: deque[tuple[str, Event]]
    transmission: int = 0
    unsettled: int = 0
    sent: int = 0
    repeats: bool = True  # the other side sends again what is refused
    spools: bool = False  # something of it may be in the spool


class Item(msgspec.Struct, eq=False):
    """One event on its way through a batch."""

    desk: Desk
    session: str  # of the transmission: what was spooled of it goes by this name
    event: Event
    rules: AnalyzerRules
    answer: Answer = Answer(False)
    reply: bytes = b""  # a message of our own that must follow (the answer to a query)
    late: bool = False  # not stored, and to be tried again by ourselves

    @property
    def body(self) -> bytes:
        """The bytes that came."""
        return bytes_of(self.event)

    @property
    def speaks_hl7(self) -> bool:
        """Whether its answers are messages."""
        return self.rules.profile.protocol == "hl7v2"


def bytes_of(event: Event) -> bytes:
    """What an event brought of the peer's bytes."""
    if isinstance(event, Received):
        return event.payload
    if isinstance(event, (Part, Stray)):
        return event.data
    return event.head if isinstance(event, Oversize) else b""


class Batch:
    """What was taken at once, and what became of it."""

    tx: Transaction
    context: Context
    moment: Moment

    def __init__(self, intake: "Intake") -> None:
        self.intake = intake
        self.revision = intake.revision
        self.items: list[Item] | None = None

    def run(self, tx: Transaction) -> None:
        """Reads, decides and writes everything taken. Runs on the writer's thread, inside its transaction."""
        intake = self.intake
        if self.items is None:
            self.items = intake.take()
        self.tx, self.revision = tx, intake.revision
        self.queued: list[Queued] = []
        self.incomplete: list[tuple[str, int, bytes]] = []
        self.completed: list[tuple[str, list[int]]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.skews: list[tuple[str, float]] = []  # how far ahead of ours an analyzer's clock is, by its header's time
        self.moment = Moment.of(intake.clock(), self.revision.zone, intake.entropy)
        readings = [self._read(item) for item in self.items]
        read = [(item, reading) for item, reading in zip(self.items, readings, strict=True) if isinstance(reading, Reading)]
        keys = {pipeline.key_of(report, item.rules, self.moment) for item, reading in read for report in reading.reports}
        self.context = context_of(tx, keys - {""})
        self.revision_id = intake.revision_id or tx.revision(self.revision.digest, self.revision.body)
        for item, reading in zip(self.items, readings, strict=True):
            self._write(item, reading)

    def _read(self, item: Item) -> Reading | RemoteProtocolError | None:
        if not isinstance(item.event, Received):
            return None
        try:
            return pipeline.read(item.event.payload, item.rules)
        except RemoteProtocolError as error:
            return error
        except Exception:  # a fault of ours must not lose the message: it is kept and shown
            log.error("reader failed", analyzer=item.rules.name, profile=item.rules.profile.name)
            return _FAULT

    def _write(self, item: Item, reading: Reading | RemoteProtocolError | None) -> None:
        event = item.event
        if isinstance(event, (Received, Oversize)) and event.place is not None:
            self.tx.spool(_filed(item.desk.analyzer, event.place.file), item.desk.analyzer, f"{event.place.part} ".encode())
        if isinstance(event, Part):
            item.desk.spools = True
            self.tx.spool(item.session, item.desk.analyzer, event.data)
            item.answer = Answer(True)
        elif isinstance(event, Received):
            if item.desk.spools:
                self.tx.clear_spool(item.session)
            self._complete(item.desk.analyzer, event.payload)
            if isinstance(reading, Reading):
                self._message(item, reading)
            else:
                self._unreadable(item, reading or _FAULT)
        elif isinstance(event, Oversize):
            note = Reason("oversize", {"bytes": str(event.length), "sha256": event.digest.hex()})
            self._journal(item, "oversize", [note], size=event.length, state="open")
            self.tx.clear_spool(item.session)
            # Kept in part and refused for good: sending it again would not help.
            item.answer = Answer(False, self._acknowledge(item, "R", "207", "message too large"))
        elif isinstance(event, Abandoned):
            body = self.tx.spooled_body(item.session)
            if body:
                note = Reason("incomplete", {"why": event.why})
                number = self._journal(item, "incomplete", [note], body=body, state="open")
                self.tx.clear_spool(item.session)
                self.incomplete.append((item.desk.analyzer, number, body))
        elif isinstance(event, Left):
            self.tx.clear_spool(_filed(item.desk.analyzer, event.file))
        elif isinstance(event, Stray):
            kind, state = ("resent", "") if event.resent else ("stray", "open")
            reason = Reason("resent" if event.resent else "stray", {"bytes": str(event.count)})
            self._journal(item, kind, [reason], state=state)

    def _unreadable(self, item: Item, error: RemoteProtocolError) -> None:
        self._journal(item, "unreadable", [error.reason], state="open")
        refused = ("R", error.error_code, error.reason.code)
        item.answer = Answer(True, self._acknowledge(item, *(("A",) if error.supported else refused)))

    def _message(self, item: Item, reading: Reading) -> None:
        digest = hashlib.sha256(item.body).digest()
        try:
            outcomes = list(self._decide(item, reading, digest))
        except Exception:  # as in _read; and it must not keep the rest of the batch from being stored
            log.error("decision failed", analyzer=item.rules.name, profile=item.rules.profile.name)
            self.context.forget(reading.reports)
            self._unreadable(item, _FAULT)
            return
        self.skews += [(item.rules.name, report.sent_at - self.moment.at) for report in reading.reports[:1] if report.sent_at]
        if reading.notes:
            log.info("odd message", analyzer=item.rules.name, why=[note.code for note in reading.notes])
        kind = "stored" if outcomes or not reading.reports else "duplicate"
        state = "open" if reading.problems and not reading.reports else ""
        message_id = self._journal(item, kind, reading.problems, digest=digest, control_id=reading.control_id, state=state)
        for outcome in outcomes:
            self.queued += write_outcome(self.tx, outcome, message_id, item.rules.name, digest, self.revision_id)
            self.counts[item.rules.name, "report", outcome.state] += 1
        item.answer = Answer(True, self._acknowledge(item, "A"))
        if reading.queries and not item.speaks_hl7:
            item.reply = lis02.write_no_order(reading.queries, item.body, item.rules.profile, stamp=self.moment.stamp[:14])

    def _decide(self, item: Item, reading: Reading, digest: bytes) -> Sequence[Outcome]:
        """The outcomes of the message's reports, but for those that say just what the last one said."""
        rules, context, outcomes = item.rules, self.context, []
        fresh = []
        for report in reading.reports:
            content = b"" if reading.control_id else pipeline.content_of(report)
            key = pipeline.key_of(report, rules, self.moment)
            if not pipeline.is_duplicate(report, content, digest, context.past(key), rules, self.moment):
                fresh.append((report, key, content))
        attached = Attachments(lambda: item.body, rules.profile, rules.zone, rules.codes)
        for report, key, content in fresh:
            outcomes.append(pipeline.decide(report, key, content, digest, context, rules, self.revision, self.moment, attached))
        if attached.left_out:
            log.warning("attachments left out", analyzer=rules.name)
        return outcomes

    def _journal(self, item: Item, kind: str, note: Sequence[Reason], body: bytes | None = None, **columns: Any) -> int:
        desk = item.desk
        self.counts[desk.analyzer, "message", kind] += 1
        return self.tx.message(
            direction="in",
            analyzer=desk.analyzer,
            link=desk.session,
            kind=kind,
            body=item.body if body is None else body,
            note=encode(note).decode() if note else "",
            **columns,
        )

    def _complete(self, analyzer: str, payload: bytes) -> None:
        """Settles the transmissions that broke off and have now come whole."""
        numbers = self.intake.begun_by(analyzer, payload)
        for number in numbers:
            self.tx.set_message_state(number, "settled")
            told = {"reason": "came whole", "old": "open", "new": "settled"}
            self.tx.audit(actor="labbridge", action="settle", subject=f"message {number}", **told)
        if numbers:
            self.completed.append((analyzer, numbers))

    def _acknowledge(self, item: Item, code: Any, error_code: str = "", text: str = "") -> tuple[bytes, ...]:
        if not item.speaks_hl7:
            return ()
        moment = self.moment
        control_id = moment.control_id()
        return acknowledge(item.body, code, stamp=moment.stamp, control_id=control_id, error_code=error_code, text=text)

    def committed(self, _: None) -> None:
        """The batch is durable: settle it, and hand its deliveries over."""
        intake = self.intake
        if intake.refused:
            log.warning("stored again", refused=intake.refused)
        intake.failing, intake.refused = False, 0
        if intake.revision is self.revision:
            intake.revision_id = self.revision_id
        for analyzer, number, body in self.incomplete:
            intake.remember_incomplete(analyzer, number, body)
        for analyzer, numbers in self.completed:
            intake.forget_incomplete(analyzer, numbers)
        intake.count(self.counts)
        intake.clocks(self.skews)
        intake.batch_done(self.items or [])
        if self.queued:
            intake.queued(self.queued)

    def failed(self, error: Exception) -> None:
        """The batch is not stored: every message in it is refused for now, so that it is sent again."""
        intake = self.intake
        if self.items is None:
            self.items = intake.take()
        intake.metrics.store_failures.inc()
        if not intake.refused:  # said once an outage, however often the analyzers try
            why = str(error) if isinstance(error, StoreError) else type(error).__name__
            log.error("not stored, the analyzers are asked to send again until it can be", why=why)
        intake.refused += len(self.items)
        intake.failing = intake.accepting
        moment = Moment.of(intake.clock(), intake.revision.zone, intake.entropy)
        for item in self.items:
            item.reply, item.answer = b"", Answer(False)
            if isinstance(item.event, Abandoned | Stray | Left) or not item.desk.repeats:
                intake.try_later(item)
            elif not isinstance(item.event, Part) and item.speaks_hl7:
                item.answer = Answer(False, refusal(item.body, moment))
        intake.batch_done(self.items)


def _filed(analyzer: str, file: str) -> str:
    return f"{FILED}{analyzer} {file}"


def files_of(tx: Transaction, analyzer: str) -> dict[str, list[str]]:
    """The files of an analyzer that are stored, wholly or in part, and have not left their folder; with the parts."""
    name = _filed(analyzer, "")
    return {kept.session.removeprefix(name): kept.body.decode().split() for kept in tx.spooled() if kept.session.startswith(name)}


def break_off(tx: Transaction) -> None:
    """Makes incomplete messages of what an earlier run left in the spool."""
    note = encode([Reason("incomplete", {"why": "labbridge was stopped"})]).decode()
    for left in tx.spooled():
        if not left.session.startswith(FILED):
            analyzer, link, body = left.analyzer, left.session, left.body
            tx.message(direction="in", analyzer=analyzer, link=link, kind="incomplete", body=body, note=note, state="open")
            tx.clear_spool(left.session)


def refusal(payload: bytes, moment: Moment) -> tuple[bytes, ...]:
    """AE (CE): not stored, send it again."""
    control_id, text = moment.control_id(), "not stored, send again"
    return acknowledge(payload, "E", stamp=moment.stamp, control_id=control_id, error_code="207", text=text)


def context_of(tx: Transaction, keys: set[str]) -> Context:
    """What the store knows of these identities, as the pipeline takes it."""
    if not keys:
        return Context()
    return Context({key: [past_of(earlier) for earlier in rows] for key, rows in tx.history(keys).items()})


def past_of(earlier: Any) -> Past:
    """A stored report with its decisions, as the pipeline's Past."""
    report = model.decode(earlier.document, model.Report)
    decisions = [model.decode(document, model.Decision) for document in earlier.decisions]
    return Past(earlier.analyzer, earlier.at / 1e6, earlier.digest, earlier.content, report, pipeline.standing(decisions))


def write_outcome(
    tx: Transaction, outcome: Outcome, message_id: int, analyzer: str, digest: bytes, revision_id: int
) -> list[Queued]:
    """Writes a report with its first decision and the deliveries that follow from it."""
    report = outcome.report
    report_id = tx.report(
        message_id=message_id,
        analyzer=analyzer,
        key=outcome.key,
        specimen=report.specimen.id,
        patient=report.patient.id,
        role=report.role,
        state=outcome.state,
        digest=digest,
        content=outcome.content,
        document=encode(report),
    )
    return write_decision(tx, outcome, report_id, revision_id)


def write_decision(tx: Transaction, outcome: Outcome, report_id: int, revision_id: int) -> list[Queued]:
    """Writes one decision on a report and queues its deliveries."""
    document = encode(outcome.decision)
    decision_id = tx.decision(report_id=report_id, revision=revision_id, actor=outcome.decision.actor, document=document)
    dues = [tx.at + int(out.wait * 1e6) if out.wait else 0 for out in outcome.outgoing]
    return [write_delivery(tx, out, report_id, decision_id, due) for out, due in zip(outcome.outgoing, dues, strict=True)]


def write_delivery(tx: Transaction, out: Outgoing, report_id: int, decision_id: int, due: int = 0) -> Queued:
    """Writes a payload for its lane, not to be sent before ``due`` (microseconds; 0 at once); gives it as it waits in memory."""
    delivery_id = tx.delivery(
        destination=out.destination,
        lane=out.lane,
        report_id=report_id,
        decision_id=decision_id,
        control_id=out.control_id,
        payload=out.payload,
        due=due,
    )
    return Queued(delivery_id, out.destination, out.lane, out.control_id, tx.at, out.payload, due)
