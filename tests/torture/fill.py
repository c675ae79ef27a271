"""Fills a store's tables straight: as many facts as wanted, as the writer would have written them.

    python -m tests.torture.fill sqlite:////tmp/store.db 1000000

A fifth of the facts is of each kind: message, report, decision, delivery, attempt; every delivery was accepted. Groups
of 64 messages are one transaction.
"""

import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import count, islice
from typing import Any

from labbridge import model
from labbridge.model import Decided, Decision, Report, Result, Specimen, Verdict
from labbridge.store import Store
from labbridge.store.engine import is_sqlite, parse, writing
from labbridge.store.ledger import Link, follow, leaf
from labbridge.store.lookups import spoken
from labbridge.store.rows import Entry
from labbridge.store.schema import ATTEMPT, DECISION, DELIVERY, MESSAGE, REPORT, Fact, insert

GROUP = 64
DAY = 86_400_000_000
TESTS = ("WBC", "RBC", "HGB")
Row = tuple[Any, ...]


def chain(number: int, at: int) -> Iterator[tuple[Fact, Row]]:
    """One specimen's whole chain, delivered."""
    specimen = f"{20_000_000 + number}"
    values = [f"{number % 97}.{place}" for place, _ in enumerate(TESTS)]
    body = f"MSH|^~\\&|XN|LAB|||20261121||ORU^R01|{number}|P|2.5\rOBR|1||{specimen}\r".encode()
    body += b"".join(f"OBX|{n}|NM|{test}||{value}\r".encode() for n, (test, value) in enumerate(zip(TESTS, values, strict=True)))
    results = tuple(Result(code=test, value=value) for test, value in zip(TESTS, values, strict=True))
    report = model.encode(Report(Specimen(specimen), results))
    pairs = enumerate(zip(TESTS, values, strict=True))
    decided = tuple(Decided(n, test, Verdict("release"), test, value) for n, (test, value) in pairs)
    digest = sha256(body).digest()
    yield MESSAGE, (number, at, "in", "xn-1", "10.0.0.7", "stored", str(number), digest, len(body), "", "", body)
    yield REPORT, (number, number, at, "xn-1", specimen, specimen, "", "patient", digest, b"", "released", report)
    yield DECISION, (number, number, at, "rules", 1, model.encode(Decision(decided)))
    yield DELIVERY, (number, at, "his", specimen, number, number, f"C{number}", 0, "delivered", body)
    yield ATTEMPT, (number, number, at, "accepted AA", f"MSH|^~\\&\rMSA|AA|C{number}\r".encode())


def fill(url: str, facts: int, begin: int = 1, at: int = 1_700_000_000_000_000, step: int = 1000) -> None:
    """Adds chains to a store, from this number and this time on, ``step`` microseconds apart."""
    store = Store(url)
    store.open()
    store.wait_ready(20)
    if begin == 1:
        store.call(lambda tx: tx.revision(b"r" * 32, b"rules"))
    link = store.head
    assert store.close()
    engine = writing(parse(url))
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        numbers = iter(range(begin, begin + facts // 5))
        for group in count():
            if is_sqlite(parse(url)) and group % 100 == 0:
                cursor.execute("BEGIN IMMEDIATE")
            some = list(islice(numbers, GROUP))
            if not some:
                break
            link = _write(cursor, is_sqlite(parse(url)), link, at + some[0] * step, some)
            if group % 100 == 99:
                connection.connection.commit()
        connection.connection.commit()
    engine.dispose()


def _write(cursor: Any, sqlite: bool, link: Link, at: int, numbers: list[int]) -> Link:
    rows = [pair for number in numbers for pair in chain(number, at)]
    for fact in (MESSAGE, REPORT, DECISION, DELIVERY, ATTEMPT):
        cursor.executemany(spoken(fact.insert, sqlite), [row for kind, row in rows if kind is fact])
    facts = b"".join(leaf(fact, row) for fact, row in rows)
    after = follow(link, "main", at, facts)
    cursor.execute(spoken(insert(Entry), sqlite), (after.sequence, "main", at, link.hash, after.hash, facts))
    return after


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))
