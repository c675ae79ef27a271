"""Delivery: sends what the queue holds, matches each answer, retries without end while the other side is down.

One ``Outbox`` a destination. Deliveries of one lane (destination + specimen) leave one at a time and in order: the next
only when the answer to the last is durable, so that a crash can repeat a message but never overtake it. Lanes are
spread over the destination's connections, each with one message in flight. What is in flight, and back-off, live in
memory; the store holds only facts: the payload, each answer, the state.

    queued ──send──▶ in flight ──AA──▶ delivered
      ▲  ▲               │ ├─AE, AR──▶ (back-off) ──▶ queued      counted only when the destination answered
      │  └─no answer─────┘ └─refused for good──▶ refused ──▶ queued (by hand) or cancelled
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import structlog

from labbridge.couriers import Courier
from labbridge.formats.acknowledgement import HisAnswer
from labbridge.lanes import Lane, Policy, Queued, judge
from labbridge.metrics import Metrics
from labbridge.store import Store, Transaction

log = structlog.get_logger()

CACHE_BYTES = 32 << 20
PATIENCE_S = 0.005  # an answer that nothing waits for shares a commit with what comes in meanwhile
FETCH = 256  # payloads that are read at a time
CODES = frozenset(("100", "101", "102", "103", *map(str, range(200, 208))))  # HL7 table 0357


class Outbox:
    """The queue of one destination and its senders. Everything here runs on the reactor's thread."""

    def __init__(
        self, name: str, connections: int, policy: Policy, store: Store, metrics: Metrics, reactor: Any, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.policy = policy
        self.store = store
        self.metrics = metrics
        self.reactor = reactor
        self.clock = clock
        self.couriers = [Courier(self) for _ in range(connections)]
        self.lanes: dict[str, Lane] = {}
        self.items: dict[int, Queued] = {}
        self.ready: deque[Lane] = deque()
        self.paused = False
        self.stopping = False
        self.accepted = 0
        self.refusals = 0  # for good, in a row
        self.delivered = 0
        self.trouble = ""  # the codes of the last answer, where it accepted nothing
        self._cached = 0
        self._fetching = False
        self._answers: list[tuple[Queued, str, bytes, str]] = []
        self._settling = self._patient = False  # answers are being stored; they are in no hurry
        self._alarm: Any = None
        self._refused: set[int] = set()
        self._doubts: set[int] = set()  # withdrawn after they were sent: what follows is being stored
        self._timed: set[Lane] = set()  # their heads back off or are not due
        self.gone: set[int] = set()  # cancelled or superseded by what is being committed; of the writer's thread
        self.late: Callable[[Transaction, int], Sequence[Queued]] = lambda tx, number: ()  # what follows when such a one arrived
        self.enqueue: Callable[[Sequence[Queued]], None] = self._add_all  # where that is queued

    # -- what enters and leaves the queue ------------------------------------------------------------------------

    def add(self, queued: Queued) -> None:
        """Puts a delivery at the end of its lane."""
        if queued.payload is not None:
            if self._cached + len(queued.payload) > CACHE_BYTES:
                queued.payload = None
            else:
                self._cached += len(queued.payload)
        lane = self.lanes.get(queued.lane)
        if lane is None:
            lane = self.lanes[queued.lane] = Lane(queued.lane)
        lane.waiting.append(queued)
        self.items[queued.id] = queued
        if queued.refused:
            self._refused.add(queued.id)
        if not lane.busy:
            self._line_up(lane)

    def remove(self, *numbers: int) -> None:
        """Takes cancelled or superseded deliveries out; one in flight is left to its answer, and not sent again.

        Nothing is sent before all of them are out: what stands behind one in its lane may be another.
        """
        headless: dict[str, Lane] = {}
        for queued in [self.items[number] for number in numbers if number in self.items]:
            if queued.flying:
                queued.withdrawn = True
                continue
            if queued.sent:
                self._in_doubt(queued.id)
            lane = self.lanes[queued.lane]
            if lane.waiting[0] is queued:
                headless[lane.name] = lane
            lane.waiting.remove(queued)
            self._forget(queued, lane)
        for lane in headless.values():
            if lane.waiting and (not lane.busy or lane.timer is not None):
                self._line_up(lane)
        self.pump()

    def again(self, number: int) -> None:
        """A refused delivery is to be tried again; one that backs off is tried now."""
        queued = self.items.get(number)
        if queued is None:
            return
        queued.refused, queued.tries, queued.mark, queued.waits, queued.due = False, 0, -1, 0.0, 0
        self._refused.discard(number)
        lane = self.lanes[queued.lane]
        if not lane.busy or (lane.timer is not None and lane.waiting[0] is queued):
            self._line_up(lane)
        self.pump()

    def _in_doubt(self, number: int) -> None:
        """What was withdrawn had been sent, and nobody knows whether it arrived."""
        self._doubts.add(number)

        def done(following: Sequence[Queued]) -> None:
            self._doubts.discard(number)
            self._followed(following)

        self.store.submit(lambda tx: self.late(tx, number), done, partial(self._not_followed, number))

    def knows(self, number: int) -> bool:
        """Whether a delivery waits or flies, or what follows from it is not yet stored."""
        return number in self.items or number in self._doubts

    def _followed(self, queued: Sequence[Queued]) -> None:
        for _ in queued:
            log.warning("withdrawn at the hospital what may have arrived after it was cancelled", destination=self.name)
        self.enqueue(queued)
        self.pump()

    def _add_all(self, queued: Sequence[Queued]) -> None:
        for one in queued:
            self.add(one)

    def _not_followed(self, number: int, error: Exception) -> None:
        log.error("could not be followed up, trying again", destination=self.name, error=type(error).__name__)
        self.reactor.callLater(1.0, self._in_doubt, number)

    def pause(self, paused: bool) -> None:
        """Stops or resumes sending; what is in flight is still answered."""
        self.paused = paused
        self.refusals = 0
        self.pump()

    def _line_up(self, lane: Lane) -> None:
        self._stop_waiting(lane)
        head = lane.waiting[0]
        if head.refused:
            lane.busy = False
            return
        wait = max(head.due / 1e6 - self.clock(), head.waits)
        lane.busy = True
        if wait > 0:
            lane.timer = self.reactor.callLater(wait, self._waited, lane)
            self._timed.add(lane)
        else:
            self.ready.append(lane)

    def _waited(self, lane: Lane) -> None:
        lane.timer = None
        self._timed.discard(lane)
        self.ready.append(lane)
        self.pump()

    def _stop_waiting(self, lane: Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
            self._timed.discard(lane)

    def _forget(self, queued: Queued, lane: Lane) -> None:
        self.items.pop(queued.id, None)
        self._refused.discard(queued.id)
        if queued.payload is not None:
            self._cached -= len(queued.payload)
        if not lane.waiting:
            self._stop_waiting(lane)
            lane.busy = False
            if self.lanes.get(lane.name) is lane:
                del self.lanes[lane.name]

    # -- sending -------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Gives every idle connection the head of a lane that is ready."""
        if self.paused or self.stopping:
            return
        for courier in self.couriers:
            if not self.ready:
                return
            if courier.link is not None and courier.carrying is None:
                self._give(courier)

    def _give(self, courier: Courier) -> None:
        for _ in range(len(self.ready)):
            lane = self.ready.popleft()
            head = lane.waiting[0] if lane.waiting else None
            if head is None or head.refused:
                lane.busy = False
                continue
            if head.payload is None:
                self.ready.appendleft(lane)
                self._fetch()
                return
            courier.carrying = head
            head.flying = head.sent = True
            courier.deadline = self.reactor.seconds() + self.policy.timeout
            if self._alarm is None:
                self._alarm = self.reactor.callLater(self.policy.timeout, self._check)
            courier.link.send(head.id, head.payload)
            return

    def _fetch(self) -> None:
        """Reads the payloads of the next heads from the store, one look-up at a time."""
        if self._fetching:
            return
        heads = [lane.waiting[0] for lane in islice(self.ready, FETCH) if lane.waiting]
        wanted = [head.id for head in heads if head.payload is None]
        if not wanted:
            return
        self._fetching = True
        self.store.submit(lambda tx: tx.payloads(wanted), self._fetched, self._fetch_failed)

    def _fetched(self, payloads: dict[int, bytes]) -> None:
        self._fetching = False
        for number, payload in payloads.items():
            queued = self.items.get(number)
            if queued is not None and queued.payload is None:
                queued.payload = payload
                self._cached += len(payload)
        self.pump()

    def _fetch_failed(self, error: Exception) -> None:
        log.error("payloads could not be read", destination=self.name, error=type(error).__name__)
        self.reactor.callLater(1.0, self._fetched, {})

    def returned(self, courier: Courier) -> None:
        """Nothing was answered: the message goes back unchanged, and the try does not count.

        Its lane goes to the end of the line, lest one message that the other side cannot stand keeps all others back.
        """
        queued, courier.carrying = courier.carrying, None
        if queued is not None:
            lane = self.lanes[queued.lane]
            queued.flying, queued.lost = False, True
            if queued.withdrawn:
                lane.busy = False
                self.remove(queued.id)
            else:
                self.ready.append(lane)
            self.pump()

    def _check(self) -> None:
        """Drops the connections that did not answer in time: one delayed call serves them all."""
        self._alarm = None
        now = self.reactor.seconds() + 0.001  # rounding must not make it ring for ever
        for courier in self.couriers:
            if courier.carrying is not None and courier.link is not None and courier.deadline <= now:
                log.warning("no answer in time, the connection is dropped and the message sent again", destination=self.name)
                self.metrics.timeouts.labels(self.name).inc()
                courier.link.drop("no answer in time")
        waiting = [courier.deadline for courier in self.couriers if courier.carrying is not None and courier.deadline > now]
        if self._alarm is not None:  # a connection took the message over
            self._alarm.cancel()
        self._alarm = self.reactor.callLater(min(waiting) - now, self._check) if waiting else None

    # -- answers -------------------------------------------------------------------------------------------------

    def answered(self, courier: Courier, answer: HisAnswer, reply: bytes) -> None:
        """Matches an answer by MSA-2; what matches nothing in flight settles nothing."""
        queued = courier.carrying
        if queued is None or not answer.code or answer.control_id != queued.control_id:
            log.warning("an answer that belongs to no message in flight was passed over", destination=self.name)
            return
        courier.carrying = None
        outcome = judge(queued, answer, self.policy, self.accepted)
        # Codes alone: what a hospital writes beside them may name a patient.
        self.trouble = "" if outcome == "accepted" else " ".join([answer.code, *(one for one in answer.errors if one in CODES)])
        if outcome == "accepted":
            self.accepted += 1
            self.refusals = 0
        elif outcome == "refused":
            self.refusals = refusals = self.refusals + 1
            if refusals >= self.policy.pause_after and not self.paused:
                self.paused = True
                log.error("destination paused: it refused too many messages in a row", destination=self.name, refusals=refusals)
        self._answers.append((queued, outcome, reply, answer.code))
        self._settle()
        self.pump()

    def _settle(self) -> None:
        hurry = any(len(self.lanes[queued.lane].waiting) > 1 for queued, *_ in self._answers)
        if self._settling or not self._answers:
            if hurry and self._patient:  # what is under way waits for company: here it is
                self._patient = False
                self.store.submit(lambda tx: None, lambda _: None, lambda error: None)
            return
        self._settling, self._patient = True, not hurry
        answers, self._answers = self._answers, []

        def job(tx: Transaction) -> list[Queued]:
            following: list[Queued] = []
            for queued, outcome, reply, code in answers:
                tx.attempt(delivery_id=queued.id, outcome=f"{outcome} {code}", reply=reply[:4096])
                if outcome == "accepted":
                    tx.set_delivery_state(queued.id, "delivered")
                    if queued.id in self.gone or queued.withdrawn:
                        following += self.late(tx, queued.id)
                elif outcome == "refused" and (row := tx.find_delivery(queued.id)) is not None and row.state == "queued":
                    # nobody cancelled or superseded it while it flew
                    tx.set_delivery_state(queued.id, "refused")
            return following

        def done(following: Sequence[Queued]) -> None:
            self._settling = self._patient = False
            for queued, outcome, _reply, _code in answers:
                self._settled(queued, outcome)
            self._settle()
            self._followed(following)

        def failed(error: Exception) -> None:
            log.error("answers could not be stored, trying again", destination=self.name, error=type(error).__name__)
            self._answers[:0] = answers
            self._settling = self._patient = False
            self.reactor.callLater(1.0, self._settle)

        self.store.submit(job, done, failed, PATIENCE_S if self._patient else 0.0)

    def _settled(self, queued: Queued, outcome: str) -> None:
        """The answer is durable: the lane goes on."""
        lane = self.lanes[queued.lane]
        self.metrics.answers.labels(self.name, outcome).inc()
        queued.flying = False
        queued.sent = queued.lost and outcome == "refused"  # an answer to this try says nothing of one that had none
        if outcome == "accepted" or queued.withdrawn:
            self.delivered += outcome == "accepted"
            lane.waiting.popleft()
            self._forget(queued, lane)
        elif outcome == "refused":
            queued.refused = True
            self._refused.add(queued.id)
            log.error("the hospital refused a message; its lane waits for a person", destination=self.name, delivery=queued.id)
        if lane.waiting:
            self._line_up(lane)

    # -- what people see -----------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many deliveries wait, refused ones included."""
        return len(self.items)

    @property
    def refused(self) -> int:
        """How many heads wait for a person."""
        return len(self._refused)

    @property
    def retrying(self) -> int:
        """How many heads back off, to be sent again."""
        return len(self._retries())

    def next_try(self) -> float:
        """Seconds until the first of them is sent again; 0 when there is none."""
        return max(0.0, min(self._retries(), default=0.0) - float(self.reactor.seconds()))

    def _retries(self) -> list[float]:
        return [float(lane.timer.getTime()) for lane in self._timed if lane.waiting[0].waits]

    def oldest(self) -> float:
        """The age in seconds of the oldest delivery that waits; 0 when none does."""
        first = next(iter(self.items.values()), None)
        return max(0.0, self.clock() - first.at / 1e6) if first else 0.0

    @property
    def connections(self) -> int:
        """How many connections are up."""
        return sum(1 for courier in self.couriers if courier.link is not None)

    @property
    def idle(self) -> bool:
        """Nothing is in flight, and no answer and nothing that follows waits to be stored."""
        unsettled = self._settling or self._answers or self._doubts
        return not unsettled and all(c.carrying is None for c in self.couriers)
