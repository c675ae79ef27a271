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
Row = tuple[Any, ...]


def chain(number: int, at: int, tests: int = 3) -> Iterator[tuple[Fact, Row]]:
    """One specimen's whole chain, delivered; of 3 results a message is of 130 bytes, of 100 it is as large as most."""
    specimen = f"{20_000_000 + number}"
    names = [f"T{place:02}" for place in range(tests)]
    values = [f"{number % 97}.{place}" for place in range(tests)]
    body = f"MSH|^~\\&|XN|LAB|||20261121||ORU^R01|{number}|P|2.5\rOBR|1||{specimen}\r".encode()
    body += b"".join(f"OBX|{n}|NM|{test}||{value}\r".encode() for n, (test, value) in enumerate(zip(names, values, strict=True)))
    results = tuple(Result(code=test, value=value) for test, value in zip(names, values, strict=True))
    report = model.encode(Report(Specimen(specimen), results))
    pairs = enumerate(zip(names, values, strict=True))
    decided = tuple(Decided(n, test, Verdict("release"), test, value) for n, (test, value) in pairs)
    digest = sha256(body).digest()
    yield MESSAGE, (number, at, "in", "xn-1", "10.0.0.7", "stored", str(number), digest, len(body), "", "", body)
    yield REPORT, (number, number, at, "xn-1", specimen, specimen, "", "patient", digest, b"", "released", report)
    yield DECISION, (number, number, at, "rules", 1, model.encode(Decision(decided)))
    yield DELIVERY, (number, at, "his", specimen, number, number, f"C{number}", 0, "delivered", body)
    yield ATTEMPT, (number, number, at, "accepted AA", f"MSH|^~\\&\rMSA|AA|C{number}\r".encode())


def fill(url: str, facts: int, begin: int = 1, at: int = 1_700_000_000_000_000, *, tests: int = 3, group: int = GROUP) -> None:
    """Adds chains to a store, from this number and this time on, a microsecond apart, ``group`` in a transaction."""
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
        for turn in count():
            if is_sqlite(parse(url)) and turn % 100 == 0:
                cursor.execute("BEGIN IMMEDIATE")
            some = list(islice(numbers, group))
            if not some:
                break
            link = _write(cursor, is_sqlite(parse(url)), link, at + some[0], some, tests)
            if turn % 100 == 99:
                connection.connection.commit()
        connection.connection.commit()
    engine.dispose()


def _write(cursor: Any, sqlite: bool, link: Link, at: int, numbers: list[int], tests: int) -> Link:
    rows = [pair for number in numbers for pair in chain(number, at, tests)]
    for fact in (MESSAGE, REPORT, DECISION, DELIVERY, ATTEMPT):
        cursor.executemany(spoken(fact.insert, sqlite), [row for kind, row in rows if kind is fact])
    facts = b"".join(leaf(fact, row) for fact, row in rows)
    after = follow(link, "main", at, facts)
    cursor.execute(spoken(insert(Entry), sqlite), (after.sequence, "main", at, link.hash, after.hash, facts))
    return after


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))
