"""Runs the real daemon with one fault planted: ``python launcher.py FAULT PYTHON -m labbridge run …``.

Nothing in the package knows of it: the fault is put into this process's copy of the code. Each is a mistake that a
programmer could make, and that no test of a healthy machine would notice.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

WINDOW_S = 0.02  # how long a mistake stays open, so that the cut finds it


def acknowledge_before_commit() -> None:
    """The jobs of a group are answered when they have run, then committed."""
    from labbridge.store import writer

    def commit(self: Any, session: Any) -> list[Any]:
        transaction, told = session.begin(int(self._clock() * 1_000_000)), []
        while self._waiting:
            job = self._waiting.popleft()
            told.append((job.done, job.run(transaction)))
        self._settle(told)
        time.sleep(WINDOW_S)
        session.commit(transaction)
        return []

    writer.Store._commit = commit


def no_fsync() -> None:
    """The database is told to leave the disk alone."""
    _synchronous("OFF")


def fsync_at_checkpoints_alone() -> None:
    """The database's own default with a write-ahead log: whole after a power cut, and the last commits gone."""
    _synchronous("NORMAL")


def ledger_in_a_second_commit() -> None:
    """The facts are committed, and what proves them afterwards."""
    from labbridge.store import writer

    def commit(self: Any, transaction: Any) -> None:
        transaction.flush()
        self._raw.commit()
        self._cursor.execute("BEGIN IMMEDIATE")
        self.link = transaction.finish()
        self._raw.commit()

    writer._Session.commit = commit


def send_before_commit() -> None:
    """What was decided leaves for the hospital while its transaction is still open."""
    from labbridge import batch

    run = batch.Batch.run

    def ran(self: Any, tx: Any) -> None:
        from twisted.internet import reactor

        run(self, tx)
        reactor.callFromThread(self.intake.queued, self.queued)
        self.queued = []
        time.sleep(WINDOW_S)

    batch.Batch.run = ran


def settle_before_answer() -> None:
    """What was written to the hospital's socket counts as delivered."""
    from labbridge import delivery

    give = delivery.Outbox._give

    def gave(self: Any, courier: Any) -> None:
        give(self, courier)
        if (sent := courier.carrying) is not None:
            self.store.submit(lambda tx: _delivered(tx, sent), lambda _: None, lambda _: None)

    delivery.Outbox._give = gave


def next_before_settled() -> None:
    """A lane goes on when the answer is there, not when it is durable."""
    from labbridge import delivery

    def settle(self: Any) -> None:
        answers, self._answers = self._answers, []
        for queued, outcome, _reply, _code in answers:
            self._settled(queued, outcome)
            later = (lambda tx, queued=queued: _delivered(tx, queued)), (lambda _: None), (lambda _: None)
            self.reactor.callLater(WINDOW_S, self.store.submit, *later)

    delivery.Outbox._settle = settle


def frames_not_kept() -> None:
    """Frames are acknowledged, and kept in memory until the message is whole."""
    from labbridge.store import Transaction

    Transaction.spool = lambda self, session, analyzer, body: None


def _synchronous(level: str) -> None:
    from labbridge.store import engine

    engine._PRAGMAS = tuple(pragma.replace("synchronous=FULL", f"synchronous={level}") for pragma in engine._PRAGMAS)


def _delivered(tx: Any, queued: Any) -> None:
    tx.attempt(delivery_id=queued.id, outcome="accepted AA")
    tx.set_delivery_state(queued.id, "delivered")


FAULTS: dict[str, Callable[[], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        acknowledge_before_commit,
        no_fsync,
        fsync_at_checkpoints_alone,
        ledger_in_a_second_commit,
        send_before_commit,
        settle_before_answer,
        next_before_settled,
        frames_not_kept,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    del sys.argv[1:4]  # the fault, the interpreter, "-m"
    del sys.argv[0]
    from labbridge.cli import main

    main()
