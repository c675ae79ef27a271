"""Intake: what arrives on the links becomes batches, decided and stored in one transaction, then acknowledged.

A batch is whatever arrived while the last one was committing, at most 256 messages or 8 MiB, at most 16 per link,
links in turn. The job runs on the store's writer thread; answers leave on the reactor's thread after the commit, and
only then. Full hands stop reading: a link with 32 unsettled messages, or 64 MiB waiting in all.
"""

import hashlib
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from labbridge import model, pipeline
from labbridge.delivery import Queued
from labbridge.formats import lis02
from labbridge.formats.acknowledgement import acknowledge
from labbridge.metrics import Metrics
from labbridge.model import Query, Reading, Reason, RemoteProtocolError, encode
from labbridge.pipeline import AnalyzerRules, Context, Moment, Revision
from labbridge.store import Store, StoreError, StoreUnavailable, Transaction
from labbridge.wire.events import Abandoned, Answer, Close, Event, Failed, Note, Overdue, Oversize, Part, Received, Stray

log = structlog.get_logger()

BATCH_MESSAGES, BATCH_BYTES, BATCH_PER_LINK = 256, 8 << 20, 16
LINK_UNSETTLED, WAITING_BYTES = 32, 64 << 20


class Link(Protocol):
    """What intake needs of a link (``labbridge.links.stream.WireProtocol`` has it)."""

    peer: str

    def settle(self, token: int, answer: Answer) -> None:
        """Gives the store's answer to a message or frame."""

    def send(self, token: int, payload: bytes) -> None:
        """Sends a whole message of our own."""

    def close(self, why: str) -> None:
        """Hangs up once everything written has left."""

    def hold(self) -> None:
        """Stops reading."""

    def unhold(self) -> None:
        """Reads again."""


class Desk(msgspec.Struct, eq=False):
    """One open link at intake: its analyzer, what waits of it, how much is unsettled."""

    analyzer: str
    rules: AnalyzerRules
    session: str
    link: Any
    waiting: deque[tuple[str, Event]]
    transmission: int = 0
    unsettled: int = 0
    held: bool = False
    sent: int = 0


class Item(msgspec.Struct, eq=False):
    """One event on its way through a batch."""

    desk: Desk
    session: str  # of the transmission: what was spooled of it goes by this name
    event: Event
    rules: AnalyzerRules
    answer: Answer = Answer(False)
    reply: bytes = b""  # a message of our own that must follow (the answer to a query)


class Intake:
    """The hands between the links and the store. Called on the reactor's thread, but for the batch itself."""

    def __init__(
        self,
        store: Store,
        revision: Revision,
        queued: Callable[[list[Queued]], None],
        metrics: Metrics,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.store = store
        self.revision = revision
        self.revision_id: int | None = None
        self.metrics = metrics
        self.clock = clock
        self.entropy = entropy
        self.tally: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._queued = queued
        self._desks: dict[int, Desk] = {}
        self._turns: OrderedDict[int, Desk] = OrderedDict()  # desks with something waiting, in turn
        self._lock = threading.Lock()  # guards the desks' waiting events between reactor and writer
        self._bytes = 0
        self._submitted = 0
        self._sessions = 0
        self._late: list[Item] = []  # what nobody sends again, and could not be stored yet
        self._incomplete: dict[str, list[tuple[int, int, bytes]]] = {}
        self.failing = False  # the last batch could not be stored
        self.accepting = False  # until what an earlier run left behind has been taken up

    # -- on the reactor's thread ---------------------------------------------------------------------------------

    def opened(self, analyzer: str, link: Link) -> None:
        """A connection of this analyzer is there."""
        self._sessions += 1
        session = f"{analyzer}/{int(self.clock() * 1000):x}-{self._sessions:x}"
        self._desks[id(link)] = Desk(analyzer, self.revision.analyzers[analyzer], session, link, deque())

    def closed(self, link: Link) -> None:
        """The connection is gone; what it sent is still decided and stored."""
        desk = self._desks.pop(id(link), None)
        if desk is not None:
            desk.link = None

    def event(self, link: Link, event: Event) -> None:
        """Takes one event of a link's wire."""
        desk = self._desks.get(id(link))
        if desk is None:
            return
        if isinstance(event, Part | Received | Oversize):
            desk.unsettled += 1
            self._enqueue(desk, event)
            if not desk.held and (desk.unsettled >= LINK_UNSETTLED or self._bytes > WAITING_BYTES):
                desk.held = True
                link.hold()
        elif isinstance(event, Abandoned | Stray):
            self._enqueue(desk, event)
        elif isinstance(event, Overdue):
            self.metrics.overdue.labels(desk.analyzer).inc()
            log.warning("answer overdue: the store was too slow, the analyzer was told to send again", analyzer=desk.analyzer)
        elif isinstance(event, Failed):
            log.warning("our message to the analyzer failed", analyzer=desk.analyzer, reason=event.reason)
        elif isinstance(event, Note):
            log.info("link", analyzer=desk.analyzer, note=event.what)
        elif isinstance(event, Close):
            link.close(event.why)

    def _enqueue(self, desk: Desk, event: Event) -> None:
        with self._lock:
            for late in self._late:
                late.desk.waiting.appendleft((late.session, late.event))
                self._turns[id(late.desk)] = late.desk
                self._bytes += len(_bytes_of(late.event))
            self._late.clear()
            desk.waiting.append((f"{desk.session}.{desk.transmission}", event))
            self._turns[id(desk)] = desk
            self._bytes += len(_bytes_of(event))
        if not isinstance(event, Part):
            desk.transmission += 1
        if self._submitted == 0:
            self._submit()

    def _submit(self) -> None:
        self._submitted += 1
        batch = Batch(self)
        if self.accepting:
            self.store.submit(batch.run, batch.committed, batch.failed)
        else:
            batch.failed(StoreUnavailable("not ready"))

    def batch_done(self, items: list[Item]) -> None:
        """Settles a batch on its links and goes on with what has arrived meanwhile."""
        self._submitted -= 1
        for item in items:
            self._settle(item)
        if self._turns:
            self._submit()
        elif self._bytes == 0:
            for desk in self._desks.values():
                self._unhold(desk)

    def _settle(self, item: Item) -> None:
        desk, event = item.desk, item.event
        self._bytes -= len(_bytes_of(event))
        if isinstance(event, Abandoned | Stray):
            return
        desk.unsettled -= 1
        if desk.link is None:
            return
        desk.link.settle(event.token, item.answer)  # type: ignore[union-attr]
        if item.reply:
            desk.sent += 1
            desk.link.send(desk.sent, item.reply)
        self._unhold(desk)

    def _unhold(self, desk: Desk) -> None:
        if desk.held and desk.link is not None and desk.unsettled < LINK_UNSETTLED // 2 and self._bytes <= WAITING_BYTES:
            desk.held = False
            desk.link.unhold()

    def try_later(self, item: Item) -> None:
        """Keeps a broken transmission, or bytes outside any, for the next batch: nobody sends them again."""
        self._late.append(item)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return self._submitted == 0 and not self._turns

    def count(self, counts: Counter[tuple[str, str, str]]) -> None:
        """Counts what a batch brought, per analyzer."""
        for (analyzer, what, state), count in counts.items():
            tally = self.tally[analyzer]
            tally[what] += count
            if what == "message":
                tally["last"] = int(self.clock())
            elif state == "held":
                tally["held"] += count
            self.metrics.counted(analyzer, what, state, count)

    def revise(self, revision: Revision) -> None:
        """Decides by a new revision from the next batch on; batches under way end by the old one."""
        with self._lock:
            self.revision, self.revision_id = revision, None

    # -- on the writer's thread ----------------------------------------------------------------------------------

    def take(self) -> list[Item]:
        """The next batch: links in turn, within the limits; empty when nothing waits."""
        analyzers = self.revision.analyzers
        taken: list[Item] = []
        size = 0
        with self._lock:
            for _ in range(len(self._turns)):
                key, desk = self._turns.popitem(last=False)
                desk.rules = analyzers.get(desk.analyzer, desk.rules)  # gone from the configuration: as it was
                count = 0
                while desk.waiting and count < BATCH_PER_LINK and len(taken) < BATCH_MESSAGES and size < BATCH_BYTES:
                    session, event = desk.waiting.popleft()
                    taken.append(Item(desk, session, event, desk.rules))
                    size += len(_bytes_of(event))
                    count += 1
                if desk.waiting:
                    self._turns[key] = desk
                if len(taken) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                    break
        return taken

    def remember_incomplete(self, analyzer: str, message_id: int, body: bytes) -> None:
        """Keeps in mind a transmission that broke off, so that it settles itself when it comes whole."""
        entry = (message_id, len(body), hashlib.sha256(body).digest())
        self._incomplete.setdefault(analyzer, []).append(entry)

    def completed(self, analyzer: str, payload: bytes) -> list[int]:
        """The incomplete messages of this analyzer that ``payload`` begins with."""
        entries = self._incomplete.get(analyzer)
        if not entries:
            return []
        return [
            number
            for number, length, digest in entries
            if length <= len(payload) and hashlib.sha256(payload[:length]).digest() == digest
        ]

    def forget_incomplete(self, analyzer: str, numbers: list[int]) -> None:
        """Drops the incomplete messages that have settled."""
        entries = self._incomplete.get(analyzer, [])
        self._incomplete[analyzer] = [entry for entry in entries if entry[0] not in numbers]


def _bytes_of(event: Event) -> bytes:
    if isinstance(event, Received):
        return event.payload
    if isinstance(event, Part | Stray):
        return event.data
    return event.head if isinstance(event, Oversize) else b""


class Batch:
    """One batch on its way: a job for the writer that can be run again."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.items: list[Item] | None = None
        self.revision = intake.revision
        self.revision_id = 0
        self.queued: list[Queued] = []
        self.incomplete: list[tuple[str, int, bytes]] = []
        self.settled: list[tuple[str, list[int]]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def run(self, tx: Transaction) -> None:
        """Reads, decides and writes everything taken. Runs on the writer's thread, inside its transaction."""
        intake = self.intake
        if self.items is None:
            self.items = intake.take()
        self.queued, self.incomplete, self.settled, self.counts = [], [], [], Counter()
        revision, now = intake.revision, intake.clock()
        self.revision = revision
        moment = Moment.of(now, revision.zone, intake.entropy)
        readings = [self._read(item) for item in self.items]
        keys = {
            pipeline.key_of(report, item.rules, moment)
            for item, reading in zip(self.items, readings, strict=True)
            if isinstance(reading, Reading)
            for report in reading.reports
        }
        context = context_of(tx, keys - {""})
        revision_id = self.revision_id = intake.revision_id or tx.revision(revision.digest, revision.body)
        for item, reading in zip(self.items, readings, strict=True):
            self._write(tx, item, reading, context, revision, revision_id, moment)

    def _read(self, item: Item) -> Reading | RemoteProtocolError | None:
        if not isinstance(item.event, Received):
            return None
        try:
            return pipeline.read(item.event.payload, item.rules)
        except RemoteProtocolError as error:
            return error
        except Exception:  # a reader's own fault must not lose the message: it is kept and shown
            log.error("reader failed", analyzer=item.rules.name, profile=item.rules.profile.name)
            return RemoteProtocolError(Reason("reader-failed"))

    def _write(
        self,
        tx: Transaction,
        item: Item,
        reading: Reading | RemoteProtocolError | None,
        context: Context,
        revision: Revision,
        revision_id: int,
        moment: Moment,
    ) -> None:
        event, desk = item.event, item.desk
        if isinstance(event, Part):
            tx.spool(item.session, desk.analyzer, event.data)
            item.answer = Answer(True)
        elif isinstance(event, Received):
            if item.rules.profile.protocol == "lis02":
                tx.clear_spool(item.session)
            self._complete(tx, desk.analyzer, event.payload)
            assert reading is not None
            self._message(tx, item, event.payload, reading, context, revision, revision_id, moment)
        elif isinstance(event, Oversize):
            note = [Reason("oversize", {"bytes": str(event.length), "sha256": event.digest.hex()})]
            self._journal(tx, item, "oversize", event.head, note, size=event.length, open_=True)
            tx.clear_spool(item.session)
            item.answer = self._refusal(item, event.head, moment)
        elif isinstance(event, Abandoned):
            self._abandoned(tx, item, event.why)
        elif isinstance(event, Stray):
            self._journal(tx, item, "stray", event.data, [Reason("stray", {"bytes": str(event.count)})], open_=True)

    def _message(
        self,
        tx: Transaction,
        item: Item,
        payload: bytes,
        reading: Reading | RemoteProtocolError,
        context: Context,
        revision: Revision,
        revision_id: int,
        moment: Moment,
    ) -> None:
        digest = hashlib.sha256(payload).digest()
        if isinstance(reading, RemoteProtocolError):
            self._journal(tx, item, "unreadable", payload, [reading.reason], digest=digest, open_=True)
            item.answer = self._answer(item, payload, moment, "A" if reading.supported else "R", reading)
            return
        rules = item.rules
        fresh = []
        for report in reading.reports:
            content = b"" if reading.control_id else pipeline.content_of(report)
            key = pipeline.key_of(report, rules, moment)
            if not pipeline.is_duplicate(report, content, digest, context.past(key), rules, moment):
                fresh.append((report, key, content))
        kind = "stored" if fresh or not reading.reports else "duplicate"
        needs_person = bool(reading.problems) and not reading.reports
        message_id = self._journal(
            tx, item, kind, payload, reading.problems, digest=digest, control_id=reading.control_id, open_=needs_person
        )
        for report, key, content in fresh:
            outcome = pipeline.decide(report, key, content, digest, context, rules, revision, moment)
            self.queued += write_outcome(tx, outcome, message_id, rules.name, digest, revision_id)
            self.counts[rules.name, "report", outcome.state] += 1
        item.answer = self._answer(item, payload, moment, "A")
        if reading.queries and rules.profile.protocol == "lis02":
            item.reply = _no_order(reading.queries, payload, item, moment)

    def _journal(
        self,
        tx: Transaction,
        item: Item,
        kind: str,
        body: bytes,
        note: Any = (),
        *,
        digest: bytes = b"",
        size: int = -1,
        control_id: str = "",
        open_: bool = False,
    ) -> int:
        self.counts[item.desk.analyzer, "message", kind] += 1
        return tx.message(
            direction="in",
            analyzer=item.desk.analyzer,
            link=item.desk.session,
            kind=kind,
            control_id=control_id,
            body=body,
            digest=digest,
            size=size,
            note=encode(note).decode() if note else "",
            state="open" if open_ else "",
        )

    def _abandoned(self, tx: Transaction, item: Item, why: str) -> None:
        body = tx.spooled_body(item.session)
        if body:
            number = self._journal(tx, item, "incomplete", body, [Reason("incomplete", {"why": why})], open_=True)
            tx.clear_spool(item.session)
            self.incomplete.append((item.desk.analyzer, number, body))

    def _complete(self, tx: Transaction, analyzer: str, payload: bytes) -> None:
        numbers = self.intake.completed(analyzer, payload)
        for number in numbers:
            tx.set_message_state(number, "settled")
        if numbers:
            self.settled.append((analyzer, numbers))

    def _answer(self, item: Item, payload: bytes, moment: Moment, code: str, error: RemoteProtocolError | None = None) -> Answer:
        if item.rules.profile.protocol != "hl7v2":
            return Answer(True)
        unsupported = code == "R" and error is not None
        replies = acknowledge(
            payload,
            "R" if unsupported else "A",
            stamp=moment.stamp,
            control_id=moment.control_id(),
            error_code=error.error_code if unsupported and error else "",
            text=error.reason.code if unsupported and error else "",
        )
        return Answer(True, replies)

    def _refusal(self, item: Item, head: bytes, moment: Moment) -> Answer:
        """What is too large is kept in part and refused for good: sending it again would not help."""
        if item.rules.profile.protocol != "hl7v2":
            return Answer(False)
        replies = acknowledge(
            head, "R", stamp=moment.stamp, control_id=moment.control_id(), error_code="207", text="message too large"
        )
        return Answer(False, replies)

    def committed(self, _: None) -> None:
        """The batch is durable: settle it, and hand its deliveries over."""
        intake = self.intake
        intake.failing = False
        if intake.revision is self.revision:
            intake.revision_id = self.revision_id
        for analyzer, number, body in self.incomplete:
            intake.remember_incomplete(analyzer, number, body)
        for analyzer, numbers in self.settled:
            intake.forget_incomplete(analyzer, numbers)
        assert self.items is not None
        intake.count(self.counts)
        intake.batch_done(self.items)
        if self.queued:
            intake._queued(self.queued)

    def failed(self, error: Exception) -> None:
        """The batch is not stored: every message in it is refused for now, so that it is sent again."""
        intake = self.intake
        if self.items is None:
            self.items = intake.take()
        intake.metrics.store_failures.inc()
        intake.failing = intake.accepting
        why = str(error) if isinstance(error, StoreError) else type(error).__name__
        log.error("not stored, the analyzers were asked to send again", why=why)
        moment = Moment.of(intake.clock(), intake.revision.zone, intake.entropy)
        for item in self.items:
            item.reply = b""
            item.answer = Answer(False)
            if isinstance(item.event, Abandoned | Stray):
                intake.try_later(item)
            if isinstance(item.event, Received | Oversize) and item.rules.profile.protocol == "hl7v2":
                payload = _bytes_of(item.event)
                item.answer = Answer(False, refusal(payload, moment))
        intake.batch_done(self.items)


def refusal(payload: bytes, moment: Moment) -> tuple[bytes, ...]:
    """AE (CE): not stored, send it again."""
    return acknowledge(
        payload, "E", stamp=moment.stamp, control_id=moment.control_id(), error_code="207", text="not stored, send again"
    )


def _no_order(queries: tuple[Query, ...], payload: bytes, item: Item, moment: Moment) -> bytes:
    return lis02.write_no_order(queries, payload, item.rules.profile, stamp=moment.stamp[:14])


def context_of(tx: Transaction, keys: set[str]) -> Context:
    """What the store knows of these identities, as the pipeline takes it."""
    if not keys:
        return Context()
    found = tx.history(keys)
    return Context({key: [past_of(earlier) for earlier in rows] for key, rows in found.items()})


def past_of(earlier: Any) -> pipeline.Past:
    """A stored report with its decisions, as the pipeline's Past."""
    report = model.decode(earlier.document, model.Report)
    decisions = [model.decode(document, model.Decision) for document in earlier.decisions]
    return pipeline.Past(earlier.analyzer, earlier.at / 1e6, earlier.digest, earlier.content, report, pipeline.standing(decisions))


def write_outcome(
    tx: Transaction, outcome: pipeline.Outcome, message_id: int, analyzer: str, digest: bytes, revision_id: int
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


def write_decision(tx: Transaction, outcome: pipeline.Outcome, report_id: int, revision_id: int) -> list[Queued]:
    """Writes one decision on a report and queues its deliveries."""
    decision_id = tx.decision(
        report_id=report_id, revision=revision_id, actor=outcome.decision.actor, document=encode(outcome.decision)
    )
    queued = []
    for out in outcome.outgoing:
        due = tx.at + int(out.wait * 1e6) if out.wait else 0
        delivery_id = tx.delivery(
            destination=out.destination,
            lane=out.lane,
            report_id=report_id,
            decision_id=decision_id,
            control_id=out.control_id,
            payload=out.payload,
            due=due,
        )
        queued.append(Queued(delivery_id, out.destination, out.lane, out.control_id, tx.at, out.payload, due))
    return queued
