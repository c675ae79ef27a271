"""Fills a store with messages that were delivered long ago, through the store's own writer: its ledger is right.

Ten chains that a daemon made (message, report, decision, delivery, attempt; W1 of numbers 0 to 9) are written again and
again with other numbers, so that every row has the form and the size that the daemon gives it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from labbridge.store import Store, Transaction

TEMPLATES = 10
FIRST = 10_000_000  # the number of the first message that is filled in
GROUP = 64  # messages in a transaction
_CHAIN = """
    SELECT message.*, report.*, decision.*, delivery.*, attempt.* FROM message
    JOIN report ON message_id = message.id JOIN decision ON decision.report_id = report.id
    JOIN delivery ON delivery.report_id = report.id JOIN attempt ON delivery_id = delivery.id
    ORDER BY message.id LIMIT ?"""
_TABLES = ("message", "report", "decision", "delivery", "attempt")


class Chain(NamedTuple):
    """One message's rows, by the names of their columns, and the number that is theirs alone."""

    number: int
    rows: dict[str, dict[str, Any]]

    def written(self, transaction: Transaction, number: int) -> None:
        """Appends the chain with another number."""
        message, report, decision, delivery, attempt = (self._renumbered(table, number) for table in _TABLES)
        body = message["body"]
        common = {name: message[name] for name in ("direction", "analyzer", "kind", "link", "control_id", "note")}
        message_id = transaction.message(body=body, **common)
        names = ("analyzer", "key", "specimen", "role", "state", "document", "patient")
        report_id = transaction.report(
            message_id=message_id,
            digest=sha256(body).digest(),
            content=sha256(report["document"]).digest(),
            **{name: report[name] for name in names},
        )
        said = {name: decision[name] for name in ("actor", "revision", "document")}
        decision_id = transaction.decision(report_id=report_id, **said)
        sent = {name: delivery[name] for name in ("destination", "lane", "control_id", "payload", "due")}
        delivery_id = transaction.delivery(report_id=report_id, decision_id=decision_id, **sent)
        transaction.set_delivery_state(delivery_id, "delivered")
        transaction.attempt(delivery_id=delivery_id, outcome=attempt["outcome"], reply=attempt["reply"])

    def _renumbered(self, table: str, number: int) -> dict[str, Any]:
        pairs = (f"{self.number:010}", f"{number:010}"), (self.rows["delivery"]["control_id"], f"{number:020}")
        return {name: _changed(value, pairs) for name, value in self.rows[table].items()}


def _changed(value: Any, pairs: tuple[tuple[str, str], ...]) -> Any:
    for old, new in pairs:
        if isinstance(value, str):
            value = value.replace(old, new)
        elif isinstance(value, bytes):
            value = value.replace(old.encode(), new.encode())
    return value


def templates(file: Path) -> Iterator[Chain]:
    """The first chains of a store."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
        columns = [[name for _, name, *_ in base.execute(f"PRAGMA table_info({table})")] for table in _TABLES]
        for number, row in enumerate(base.execute(_CHAIN, (TEMPLATES,))):
            values, rows = iter(row), {}
            for table, names in zip(_TABLES, columns, strict=True):
                rows[table] = {name: next(values) for name in names}
            yield Chain(number, rows)


def fill(file: Path, begin: int, end: int) -> None:
    """Adds the messages with these places, counted from ``FIRST``, to a store that no daemon has open."""
    chains = list(templates(file))
    numbers = [chain.rows["message"]["control_id"] for chain in chains]
    if numbers != [f"MSG{number:010}" for number in range(TEMPLATES)]:
        raise SystemExit(f"the store to be filled begins with other messages: {numbers}")
    store = Store(f"sqlite:///{file}")
    store.open()
    store.wait_ready(20)
    for first in range(begin, end, GROUP):

        def job(transaction: Transaction, first: int = first) -> None:
            for place in range(first, min(first + GROUP, end)):
                chains[place % TEMPLATES].written(transaction, FIRST + place)

        store.call(job)
    assert store.close(600)
