"""Intake: what arrives on the links becomes batches, decided and stored in one transaction, then acknowledged.

A batch is whatever arrived while the last one was committing, at most 64 messages or 8 MiB. The analyzers take turns, and
the links of each: a flood on any number of links makes another analyzer wait for the batch under way, and no longer. The job
runs on the store's writer thread; answers leave on the reactor's thread after the commit, and only then. Full hands stop
reading: a link with 32 unsettled messages, or 64 MiB waiting in all.
"""

import hashlib
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable

import structlog

from labbridge.batch import Batch, Desk, Item, bytes_of
from labbridge.lanes import Queued
from labbridge.links.stream import WireProtocol
from labbridge.metrics import Metrics
from labbridge.pipeline import Revision
from labbridge.store import Store, StoreUnavailable
from labbridge.wire.events import Abandoned, Event, Failed, Left, Note, Overdue, Oversize, Part, Received, Stray

log = structlog.get_logger()

BATCH_MESSAGES, BATCH_BYTES = 64, 8 << 20
LINK_UNSETTLED, WAITING_BYTES = 32, 64 << 20
SKEW_MESSAGES, SKEW_TOLD = 20, 300  # a clock is judged by so many messages, and told about when it is so many seconds off
ENTROPY = 4096  # bytes that the system is asked for at once
_SETTLED, _UNSETTLED, _ENDING = (Part, Received, Oversize), (Abandoned, Stray, Left), (Abandoned, Oversize)


class Entropy:
    """The system's random bytes, each given once."""

    def __init__(self) -> None:
        self._stock = b""
        self._lock = threading.Lock()

    def __call__(self, size: int) -> bytes:
        """So many of them."""
        with self._lock:
            if len(self._stock) < size:
                self._stock = os.urandom(ENTROPY + size)
            given, self._stock = self._stock[:size], self._stock[size:]
        return given


class Intake:
    """The hands between the links and the store. Called on the reactor's thread, but for the batch itself."""

    def __init__(
        self,
        store: Store,
        revision: Revision,
        queued: Callable[[list[Queued]], None],
        metrics: Metrics,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        self.store = store
        self.revision = revision
        self.revision_id: int | None = None
        self.metrics = metrics
        self.clock = clock
        self.entropy = entropy or Entropy()
        self.tally: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.unsettled: Counter[str] = Counter()  # of an analyzer, on links that are gone too
        self.queued = queued
        self._desks: dict[int, Desk] = {}
        self._turns: OrderedDict[str, OrderedDict[int, Desk]] = OrderedDict()  # by analyzer: desks with something waiting
        self._held: set[Desk] = set()  # desks that have to wait
        self._lock = threading.Lock()  # guards the desks' waiting events between reactor and writer
        self._bytes = 0
        self._submitted = 0
        self._sessions = 0
        self._late: list[Item] = []  # what nobody sends again, and could not be stored yet
        self._skews: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=SKEW_MESSAGES))
        self._incomplete: dict[str, list[tuple[int, int, bytes]]] = {}
        self.failing = False  # the last batch could not be stored
        self.refused = 0  # since then
        self.accepting = False  # until what an earlier run left behind has been taken up

    # -- on the reactor's thread ---------------------------------------------------------------------------------

    def opened(self, analyzer: str, link: WireProtocol) -> None:
        """A connection of this analyzer is there."""
        self._sessions += 1
        session = f"{analyzer}/{int(self.clock() * 1000):x}-{self._sessions:x}"
        self._desks[id(link)] = Desk(analyzer, self.revision.analyzers[analyzer], session, link, deque(), repeats=link.repeats)

    def closed(self, link: WireProtocol) -> None:
        """The connection is gone; what it sent is still decided and stored."""
        desk = self._desks.pop(id(link), None)
        if desk is not None:
            desk.link = None
            self._held.discard(desk)

    def event(self, link: WireProtocol, event: Event) -> None:
        """Takes one event of a link's wire."""
        desk = self._desks.get(id(link))
        if desk is None:
            return
        if isinstance(event, _SETTLED):
            desk.unsettled += 1
            self.unsettled[desk.analyzer] += 1
            self._enqueue(desk, event)
            if desk not in self._held and (desk.unsettled >= LINK_UNSETTLED or self._bytes > WAITING_BYTES):
                self._held.add(desk)
                link.hold()
        elif isinstance(event, _UNSETTLED):
            self._enqueue(desk, event)
        elif isinstance(event, Overdue):
            self.metrics.overdue.labels(desk.analyzer).inc()
            log.warning("answer overdue: the store was too slow, the analyzer was told to send again", analyzer=desk.analyzer)
        elif isinstance(event, Failed):
            log.warning("our message to the analyzer failed", analyzer=desk.analyzer, reason=event.reason)
        elif isinstance(event, Note):
            log.info("link", analyzer=desk.analyzer, note=event.what)

    def _enqueue(self, desk: Desk, event: Event) -> None:
        with self._lock:
            self._take_late()
            desk.waiting.append((f"{desk.session}.{desk.transmission}", event))
            self._line_up(desk)
            self._bytes += len(bytes_of(event))
        if isinstance(event, _ENDING):
            desk.transmission += 1
        if self._submitted == 0:
            self._submit()

    def _line_up(self, desk: Desk) -> None:
        self._turns.setdefault(desk.analyzer, OrderedDict())[id(desk)] = desk

    def _take_late(self) -> None:
        for late in reversed(self._late):
            late.desk.waiting.appendleft((late.session, late.event))
            self._line_up(late.desk)
        self._late.clear()

    def catch_up(self) -> None:
        """Tries again to store what nobody sends again; to be called now and then, and when the store comes back."""
        if self._late and self._submitted == 0:
            with self._lock:
                self._take_late()
            self._submit()

    def _submit(self) -> None:
        self._submitted += 1
        batch = Batch(self)
        if self.accepting:
            self.store.submit(batch.run, batch.committed, batch.failed)
        else:
            batch.failed(StoreUnavailable("not ready"))

    def batch_done(self, items: list[Item]) -> None:
        """Settles a batch on its links and goes on with what has arrived meanwhile.

        A link may have more to say while it is told: only when all are settled does the next batch begin, or of two that
        fail the second would be tried again before the first.
        """
        try:
            for item in items:
                self._settle(item)
            if self._bytes <= WAITING_BYTES:
                for desk in [desk for desk in self._held if desk.unsettled < LINK_UNSETTLED // 2]:
                    self._held.remove(desk)
                    desk.link.unhold()
        finally:
            self._submitted -= 1
        if self._turns:
            self._submit()

    def _settle(self, item: Item) -> None:
        desk, event = item.desk, item.event
        if item.late:
            return
        self._bytes -= len(bytes_of(event))
        if isinstance(event, _UNSETTLED):
            return
        desk.unsettled -= 1
        self.unsettled[desk.analyzer] -= 1
        if isinstance(event, Received) and item.answer.accepted:
            desk.transmission += 1  # a last frame that was refused comes again, and belongs to what is spooled
        if desk.link is None:
            return
        desk.link.settle(event.token, item.answer)  # type: ignore[union-attr]
        if item.reply:
            desk.sent += 1
            desk.link.send(desk.sent, item.reply)

    def try_later(self, item: Item) -> None:
        """Keeps what nobody sends again for the next batch: a broken transmission, bytes outside any, what no one acknowledges."""
        item.late = True
        with self._lock:
            self._late.append(item)
            if desks := self._turns.pop(item.desk.analyzer, None):
                desks.pop(id(item.desk), None)  # what came after it on this link waits for it
                if desks:
                    self._turns[item.desk.analyzer] = desks

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

    def clocks(self, skews: list[tuple[str, float]]) -> None:
        """Takes down how far ahead the analyzers' clocks are: of the last messages the most, since each came late by some."""
        for analyzer, seconds in skews:
            recent, tally = self._skews[analyzer], self.tally[analyzer]
            recent.append(round(seconds))
            before, tally["skew"] = tally["skew"], max(recent)
            self.metrics.clock_skew.labels(analyzer).set(tally["skew"])
            if abs(before) < SKEW_TOLD <= abs(tally["skew"]):
                log.warning("the analyzer's clock is off", analyzer=analyzer, seconds=tally["skew"])

    def revise(self, revision: Revision) -> None:
        """Decides by a new revision from the next batch on; batches under way end by the old one."""
        with self._lock:
            self.revision, self.revision_id = revision, None

    # -- on the writer's thread ----------------------------------------------------------------------------------

    def take(self) -> list[Item]:
        """The next batch, within the limits: of each analyzer's links in turn a message; empty when nothing waits."""
        rules = self.revision.analyzers
        taken: list[Item] = []
        size = 0
        with self._lock:
            while self._turns and len(taken) < BATCH_MESSAGES and size < BATCH_BYTES:
                analyzer, desks = self._turns.popitem(last=False)
                key, desk = desks.popitem(last=False)
                desk.rules = rules.get(analyzer, desk.rules)  # gone from the configuration: as it was
                session, event = desk.waiting.popleft()
                taken.append(Item(desk, session, event, desk.rules))
                size += len(bytes_of(event))
                if desk.waiting:
                    desks[key] = desk
                if desks:
                    self._turns[analyzer] = desks
        return taken

    def remember_incomplete(self, analyzer: str, message_id: int, body: bytes) -> None:
        """Keeps in mind a transmission that broke off, so that it settles itself when it comes whole."""
        entry = (message_id, len(body), hashlib.sha256(body).digest())
        self._incomplete.setdefault(analyzer, []).append(entry)

    def begun_by(self, analyzer: str, payload: bytes) -> list[int]:
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
