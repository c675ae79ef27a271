"""Retention at work: one small step after another between the batches, then a rest until more has become old.

A step is a job of the store like any other, so nothing waits for it but the batch of the moment; after each there is a
pause of ten times as long, at least a twentieth of a second.
"""

import time
from collections.abc import Callable
from typing import Any

import structlog

from labbridge.store import Store, Transaction
from labbridge.store.retention import Step, last_old, step
from labbridge.store.rows import Entry

log = structlog.get_logger()

REST_S = 600.0  # when nothing is left that is old
AFRESH_S = 86_400.0  # what waited when it became old is looked at again
PAUSE_S, SHARE = 0.05, 10.0  # after each step at least so long; so many times as long as it took


class Keeper:
    """Deletes the bodies of what is settled and older than ``keep`` seconds; None keeps everything."""

    def __init__(self, store: Store, keep: float | None, reactor: Any, clock: Callable[[], float]) -> None:
        self.store = store
        self.keep = keep
        self.reactor = reactor
        self.clock = clock
        self.stopping = False
        self._after = 0  # the last message that was looked at
        self._began = 0.0
        self._old: int | None = None
        self._bodies = 0

    def start(self) -> None:
        """Begins, now that what an earlier run left behind has been taken up."""
        if self.keep is not None:
            self._began = self.reactor.seconds()
            self._go_on()

    def _go_on(self) -> None:
        if self.stopping:
            return
        if self.reactor.seconds() - self._began > AFRESH_S:
            self._after, self._began = 0, self.reactor.seconds()
        self.store.submit(self._job, self._done, self._failed)

    def _job(self, tx: Transaction) -> tuple[Step, float]:
        """One step, with how long it took; on the writer's thread."""
        began = time.monotonic()
        if self._old is None:
            self._old = last_old(lambda sequence: _entry(tx, sequence), self.store.head.sequence)
        cutoff = int((self.clock() - (self.keep or 0.0)) * 1_000_000)
        return step(tx, self._after, cutoff, self._old), time.monotonic() - began

    def _done(self, outcome: tuple[Step, float]) -> None:
        done, seconds = outcome
        self._after = done.upto
        self._bodies += done.bodies
        if done.done and self._bodies:
            log.info("retention", bodies=self._bodies)
            self._bodies = 0
        self.reactor.callLater(REST_S if done.done else max(PAUSE_S, SHARE * seconds), self._go_on)

    def _failed(self, error: Exception) -> None:
        log.error("retention could not go on, trying again", error=type(error).__name__)
        self.reactor.callLater(REST_S, self._go_on)


def _entry(tx: Transaction, sequence: int) -> Entry | None:
    return next(iter(tx.found(Entry, "sequence", [sequence])), None)
