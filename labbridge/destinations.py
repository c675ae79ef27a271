"""The configured destinations at work: their queues, read from the store and kept in its order, and their connections."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from labbridge.commands import Done
from labbridge.commands.identity import still_moving
from labbridge.config import Destination
from labbridge.delivery import Outbox
from labbridge.lanes import Policy, Queued
from labbridge.links.tcp import Connector
from labbridge.metrics import Metrics
from labbridge.outages import Outage
from labbridge.security import security_of
from labbridge.store import Store, Transaction
from labbridge.wire.mllp import MllpLink, MllpSettings

log = structlog.get_logger()


class Destinations:
    """The outbox and the connections of each destination, by name. Everything here runs on the reactor's thread."""

    def __init__(self, store: Store, metrics: Metrics, reactor: Any, clock: Callable[[], float]) -> None:
        self.outboxes: dict[str, Outbox] = {}
        self.connections: dict[str, Connections] = {}
        self._store, self._metrics, self._reactor, self._clock = store, metrics, reactor, clock
        self.gone: set[int] = set()  # what a command withdraws, while it is being committed
        self.late: Callable[[Transaction, int], Sequence[Queued]] = lambda tx, number: ()
        self._arriving: dict[str, list[Queued]] = {}  # for destinations whose queue is still being read
        self._dropped: list[Outbox] = []  # of what is no longer configured, until nothing of it is in flight
        self._moving = True  # something that was cancelled for a corrected id may be on its way

    def built(self, destination: Destination) -> "tuple[Outbox, Connections]":
        """What a destination needs; nothing happens until it is added. Raises SecurityError."""
        name, answers = destination.name, destination.answers
        policy = Policy(answers.ae, answers.ar, answers.tries, answers.pause_after, destination.timeout)
        outbox = Outbox(name, destination.connections, policy, self._store, self._metrics, self._reactor, self._clock)
        return outbox, Connections(destination, outbox, self._reactor)

    def add(self, outbox: Outbox, connections: "Connections") -> None:
        """Puts a destination beside the others."""
        outbox.gone, outbox.late, outbox.enqueue = self.gone, self._late, self.enqueue
        self.outboxes[outbox.name], self.connections[outbox.name] = outbox, connections

    def _late(self, tx: Transaction, number: int) -> Sequence[Queued]:
        return self.late(tx, number)

    def left_behind(self, queued: Sequence[Queued]) -> None:
        """Takes up a queue as the store has it, of which the first in each lane may have been sent already."""
        heads: set[tuple[str, str]] = set()
        for one in queued:
            due = one.due / 1e6 <= self._clock()
            one.sent = due and not one.refused and (one.destination, one.lane) not in heads
            heads.add((one.destination, one.lane))
        self.enqueue(queued)

    def start(self) -> None:
        """Connects to all."""
        for connections in self.connections.values():
            connections.start()

    def change(self, gone: Iterable[Destination], built: "Sequence[tuple[Outbox, Connections]]") -> None:
        """Drops some while running; connects others, with what the store has for them."""
        for destination in gone:
            outbox = self.outboxes.pop(destination.name)
            outbox.stopping = True
            self._dropped.append(outbox)
            self.connections.pop(destination.name).stop("the configuration changed")
        for outbox, connections in built:
            self.add(outbox, connections)
            connections.start()
            self._arriving[outbox.name] = []
        if built:
            self._read()

    def quiet(self) -> None:
        """Sends no more and makes no more connections; what is in flight is still answered."""
        for outbox in self.outboxes.values():
            outbox.stopping = True
        for connections in self.connections.values():
            connections.quiet()

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return all(outbox.idle for outbox in self._all())

    def _all(self) -> list[Outbox]:
        """Every outbox of which something may be on its way."""
        self._dropped = [outbox for outbox in self._dropped if not outbox.idle]
        return [*self.outboxes.values(), *self._dropped]

    def stop(self, why: str) -> None:
        """Closes everything."""
        for connections in self.connections.values():
            connections.stop(why)

    # -- the queues ----------------------------------------------------------------------------------------------

    def enqueue(self, queued: Sequence[Queued]) -> None:
        """Hands deliveries to their destinations' queues."""
        touched = set()
        for one in queued:
            outbox = self.outboxes.get(one.destination)
            if one.destination in self._arriving:
                self._arriving[one.destination].append(one)
                continue
            if outbox is None:
                log.error("a delivery for a destination that is not configured waits in the store", delivery=one.id)
                continue
            if one.id not in outbox.items:
                outbox.add(one)
                touched.add(outbox)
        for outbox in touched:
            outbox.pump()

    def follow(self, done: Done) -> None:
        """Does in memory what a command did in the store."""
        for outbox in self._all():
            outbox.remove(*done.removed)
        for outbox in self.outboxes.values():
            for number in done.again:
                outbox.again(number)
        self.gone.difference_update(done.removed)
        self.enqueue(done.queued)
        self._moving = True
        if done.removed:
            self.settle_moves()

    def settle_moves(self) -> None:
        """Notes of corrected ids that nothing of theirs is on its way any more; to be called now and then."""
        if self._moving and not self._arriving:
            self._moving = False
            self._store.submit(still_moving, self._moves_found, self._moves_not_settled)

    def _moves_found(self, moves: dict[int, list[int]]) -> None:
        outboxes = self._all()
        over = [move for move, parts in moves.items() if not any(outbox.knows(part) for outbox in outboxes for part in parts)]
        self._moving |= len(over) < len(moves)

        def job(tx: Transaction) -> None:
            for move in over:
                tx.set_proposal_state(move, "done")

        if over:
            self._store.submit(job, lambda _: None, self._moves_not_settled)

    def _moves_not_settled(self, error: Exception) -> None:
        log.error("corrected ids could not be settled, trying again", error=type(error).__name__)
        self._moving = True

    def read_again(self) -> None:
        """Reads all queues: a commit whose answer was lost may have queued or withdrawn what nobody here knows of."""
        self._arriving = {name: self._arriving.get(name, []) for name in self.outboxes}
        self._moving = True
        self._read()

    def _read(self) -> None:
        """Reads the queues of ``_arriving``; what is queued meanwhile comes after them, so that lanes keep their order."""

        def done(queued: list[Queued]) -> None:
            arriving, self._arriving = self._arriving, {}
            waiting = {one.id for one in queued}
            for outbox in (self.outboxes[name] for name in arriving if name in self.outboxes):
                outbox.remove(*(outbox.items.keys() - waiting))
            self.left_behind([one for one in queued if one.destination in arriving])
            for later in arriving.values():
                self.enqueue(later)

        def failed(error: Exception) -> None:
            log.error("the queue could not be read, trying again", error=type(error).__name__)
            self._reactor.callLater(1.0, self._read)

        self._store.submit(queue_of, done, failed)

    def status(self) -> list[dict[str, Any]]:
        """How each destination stands."""
        return [
            {
                "name": outbox.name,
                "connections": outbox.connections,
                "delivered": outbox.delivered,
                "queue": outbox.depth,
                "refused": outbox.refused,
                "retrying": outbox.retrying,
                "next_try": round(outbox.next_try(), 1),
                "answer": outbox.trouble,
                "oldest": round(outbox.oldest(), 1),
                "paused": outbox.paused,
                "down": self.connections[outbox.name].outage.seconds,
                "why": self.connections[outbox.name].outage.why,
            }
            for outbox in self.outboxes.values()
        ]


class Connections:
    """The connections to one destination, one for each courier of its outbox. Raises SecurityError."""

    def __init__(self, destination: Destination, outbox: Outbox, reactor: Any) -> None:
        self.destination = destination
        host, port = destination.connect.host, destination.connect.port
        settings = MllpSettings(release=destination.mllp_release, answer_time=None, max_message=destination.max_message)
        self.outage = Outage("destination", destination.name, reactor)
        security = security_of(destination)
        self._connectors = [
            Connector(reactor, host, port, lambda: MllpLink(settings), courier, self.outage.changed, security=security)
            for courier in outbox.couriers
        ]

    def start(self) -> None:
        """Connects, and goes on trying."""
        for connector in self._connectors:
            connector.start()

    def quiet(self) -> None:
        """Makes no more connections; what is in flight is still answered."""
        for connector in self._connectors:
            connector.stop()

    def stop(self, why: str) -> None:
        """Closes everything."""
        self.quiet()
        for link in [link for connector in self._connectors for link in connector.links]:
            link.close(why)

    def renew(self) -> None:
        """Reads the certificates again, for the connections to come. Raises SecurityError."""
        security = security_of(self.destination)
        for connector in self._connectors:
            connector.security = security


def queue_of(tx: Transaction) -> list[Queued]:
    """Everything that waits for a hospital, as the store has it."""
    return [
        Queued(row.id, row.destination, row.lane, row.control_id, row.at, None, row.due, row.state == "refused")
        for row in tx.waiting_deliveries()
    ]
