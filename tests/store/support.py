"""What the store's tests write, and how they look behind it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from labbridge.store import Reader, Store, Transaction
from labbridge.store.engine import parse, writing

Answers = list[tuple[bool, Any]]


def open_ready(store: Store, timeout: float = 60) -> None:
    """Open a store and wait until it takes jobs."""
    store.open()
    store.wait_ready(timeout)


def received(tx: Transaction, key: str = "S1", *, state: str = "released", body: bytes = b"MSH|^~\\&") -> int:
    """One whole message with its report, decision, delivery and attempt; gives the report's id."""
    message = tx.message(direction="in", analyzer="xn-1", link="10.0.0.7", kind="stored", control_id="1", body=body)
    report = tx.report(
        message_id=message,
        analyzer="xn-1",
        key=key,
        specimen=key,
        patient="P1",
        role="patient",
        state=state,
        digest=b"d" * 32,
        content=b"c" * 32,
        document=b'{"specimen":{}}',
    )
    revision = tx.revision(b"r" * 32, b"rules")
    decision = tx.decision(report_id=report, actor="rules", revision=revision, document=b'{"results":[]}')
    delivery = tx.delivery(
        destination="his", lane=f"his/{key}", report_id=report, decision_id=decision, control_id=f"C{report}", payload=b"MSH|1"
    )
    tx.attempt(delivery_id=delivery, outcome="AA", reply=b"MSA|AA")
    tx.audit(actor="lab", action="release", subject=key, reason="seen", old="held", new="released")
    return report


def submit_together(store: Store, jobs: Sequence[Callable[[Transaction], Any]]) -> Answers:
    """Have jobs wait until the writer can take them all at once; gives (well, value) for each, in order."""
    go = threading.Event()
    left = threading.Semaphore(0)
    answers: Answers = [(False, None)] * len(jobs)

    def answer(index: int, well: bool) -> Callable[[Any], None]:
        def keep(value: Any) -> None:
            answers[index] = (well, value)
            left.release()

        return keep

    store.submit(lambda tx: go.wait(60), lambda _: left.release(), lambda _: left.release())
    for index, job in enumerate(jobs):
        store.submit(job, answer(index, True), answer(index, False))
    go.set()
    for _ in range(len(jobs) + 1):
        assert left.acquire(timeout=60)
    return answers


def count(reader: Reader, table: str = "message") -> int:
    """How many rows a table has."""
    with reader.snapshot() as snapshot:
        number: int = snapshot.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
        return number


@contextmanager
def behind(url: str) -> Iterator[Connection]:
    """A connection that goes round the store, in one transaction."""
    engine = writing(parse(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()
