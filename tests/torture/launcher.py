"""Runs the real daemon with one fault planted: ``python launcher.py FAULT[+FAULT] PYTHON -m labbridge run …``.

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
        link = transaction.finish()
        self._settle(told)
        self._turns.over()
        time.sleep(WINDOW_S)
        session.commit(link)
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
    from labbridge.store.transaction import Transaction

    finish = Transaction.finish

    def finished(self: Any) -> Any:
        self.flush()
        self._cursor.connection.commit()
        self._cursor.execute("BEGIN IMMEDIATE")
        return finish(self)

    Transaction.finish = finished


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


def dropped_retry() -> None:
    """A message that was not answered is given up."""
    from labbridge import delivery

    def returned(self: Any, courier: Any) -> None:
        queued, courier.carrying = courier.carrying, None
        if queued is not None:
            self.lanes[queued.lane].busy = queued.flying = False
            self.remove(queued.id)
            self.store.submit(lambda tx: tx.set_delivery_state(queued.id, "cancelled"), lambda _: None, lambda _: None)

    delivery.Outbox.returned = returned


def another_control_id() -> None:
    """A message that was not answered is sent again as a new one."""
    from labbridge import delivery

    returned = delivery.Outbox.returned

    def renamed(self: Any, courier: Any) -> None:
        if (queued := courier.carrying) is not None:
            new = f"{time.monotonic_ns():020d}"[-20:]
            queued.payload = queued.payload.replace(queued.control_id.encode(), new.encode())
            queued.control_id = new
        returned(self, courier)

    delivery.Outbox.returned = renamed


def swapped_specimen() -> None:
    """Of two messages that wait, one is given the results of the other."""
    from labbridge import delivery

    add, last = delivery.Outbox.add, [b""]

    def mixed(self: Any, queued: Any) -> None:
        if queued.payload and queued.id % 10 == 0 and last[0]:
            queued.payload = queued.payload.partition(b"\rOBX")[0] + b"\rOBX" + last[0].partition(b"\rOBX")[2]
        last[0] = queued.payload or b""
        add(self, queued)

    delivery.Outbox.add = mixed


def lane_order_ignored() -> None:
    """What came last for a specimen leaves first."""
    from labbridge import delivery

    line_up = delivery.Outbox._line_up

    def lined_up(self: Any, lane: Any) -> None:
        lane.waiting.rotate(1)
        line_up(self, lane)

    delivery.Outbox._line_up = lined_up


def broken_off_taken_for_whole() -> None:
    """What had come of a message when its connection broke is read and reported."""
    from labbridge import batch, pipeline
    from labbridge.wire.events import Abandoned, Received

    write = batch.Batch._write

    def wrote(self: Any, item: Any, reading: Any) -> None:
        body = self.tx.spooled_body(item.session) if isinstance(item.event, Abandoned) else b""
        if not body:
            write(self, item, reading)
            return
        part = batch.Item(item.desk, item.session, Received(0, body), item.rules)
        try:
            reading = pipeline.read(body, item.rules)
        except Exception:
            return
        self.context = batch.context_of(self.tx, {pipeline.key_of(one, item.rules, self.moment) for one in reading.reports})
        write(self, part, reading)

    batch.Batch._write = wrote


def never_overdue() -> None:
    """No analyzer is answered before the store has answered, however long it takes."""
    import msgspec

    from labbridge import stations

    for name in ("Lis01Settings", "MllpSettings"):
        kind = getattr(stations, name)

        def made(*values: Any, kind: Any = kind, **named: Any) -> Any:
            return msgspec.structs.replace(kind(*values, **named), answer_time=None)

        setattr(stations, name, made)


def failure_not_noticed() -> None:
    """A commit that fails is taken for one that does not."""
    from labbridge.store import writer

    commit = writer._Session.commit

    def committed(self: Any, link: Any) -> None:
        try:
            commit(self, link)
        except Exception:
            self.roll_back()

    writer._Session.commit = committed


def acknowledged_when_locked() -> None:
    """An analyzer whose message cannot be stored is told that it is: what waits will be stored later."""
    from labbridge import batch
    from labbridge.formats.acknowledgement import acknowledge
    from labbridge.wire.events import Answer

    def failed(self: Any, error: Exception) -> None:
        if self.items is None:
            self.items = self.intake.take()
        for item in self.items:
            replies = acknowledge(item.body, "A", stamp="20261121", control_id="1") if item.speaks_hl7 else ()
            item.answer = Answer(True, replies)
        self.intake.batch_done(self.items)

    batch.Batch.failed = failed


def clock_jumps() -> None:
    """No fault: the clock is wrong by the seconds that stand in a file beside the configuration, while it is there."""
    true, last = time.time, [0.0, 0.0]

    def now() -> float:
        if time.monotonic() > last[0]:
            try:
                with open(sys.argv[-1] + ".clock") as file:
                    last[1] = float(file.read() or 0)
            except FileNotFoundError:
                last[1] = 0.0
            last[0] = time.monotonic() + 0.05
        return true() + last[1]

    time.time = now


def commit_in_doubt() -> None:
    """No fault: of every tenth commit the answer is lost with the connection, as when a server is stopped; it is durable."""
    import sqlite3

    from labbridge.store import writer

    commit, count = writer._Session.commit, [0]

    def committed(self: Any, link: Any) -> None:
        commit(self, link)
        count[0] += 1
        if count[0] % 10 == 0:
            self._raw.driver_connection.close()
            raise sqlite3.OperationalError("the answer is lost")

    writer._Session.commit = committed


def _synchronous(level: str) -> None:
    from labbridge.store import engine

    engine._PRAGMAS = tuple(pragma.replace("synchronous=FULL", f"synchronous={level}") for pragma in engine._PRAGMAS)
    engine._OPTIONS = engine._OPTIONS.replace("synchronous_commit=on", "synchronous_commit=off")


def _delivered(tx: Any, queued: Any) -> None:
    tx.attempt(delivery_id=queued.id, outcome="accepted AA")
    tx.set_delivery_state(queued.id, "delivered")


def moves_forgotten() -> None:
    """What was on its way under a wrong specimen id when the daemon died is left where it is."""
    from labbridge import daemon

    daemon.still_moving = lambda tx: {}


def moves_settled_too_early() -> None:
    """What was cancelled for a corrected specimen id is believed not to have left."""
    from labbridge import delivery

    delivery.Outbox.knows = lambda self, number: False


def _by_name(*plants: Callable[[], None]) -> dict[str, Callable[[], None]]:
    return {plant.__name__.replace("_", "-"): plant for plant in plants}


FAULTS = _by_name(
    acknowledge_before_commit,
    no_fsync,
    fsync_at_checkpoints_alone,
    ledger_in_a_second_commit,
    send_before_commit,
    settle_before_answer,
    next_before_settled,
    frames_not_kept,
)
MISTAKES = _by_name(  # of these the power cut alone finds nothing
    dropped_retry,
    another_control_id,
    swapped_specimen,
    lane_order_ignored,
    broken_off_taken_for_whole,
    never_overdue,
    failure_not_noticed,
    acknowledged_when_locked,
    clock_jumps,
    commit_in_doubt,
    moves_forgotten,
    moves_settled_too_early,
)

if __name__ == "__main__":
    for name in sys.argv[1].split("+"):
        (FAULTS | MISTAKES)[name]()
    del sys.argv[1:4]  # the fault, the interpreter, "-m"
    del sys.argv[0]
    from labbridge.cli import main

    main()
