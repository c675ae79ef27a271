"""The ledger: a hash chain over every fact that was stored, made by the writer, verified by anyone who can read.

One row per transaction. ``facts`` is, for each fact of the transaction, 41 bytes: the table's code (1 byte, as in
``schema.FACTS``), the id (8 bytes, big-endian), and SHA-256 of the fact's canonical encoding, which is a MessagePack
array of its immutable columns in the table's order (integers and strings in their shortest form). A message's body is
covered through its digest. ``hash`` is SHA-256 of the MessagePack array of the previous hash (32 zero bytes for the
first), sequence, writer, time and ``facts``.
"""

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Table

from .reader import Reader
from .rows import Entry
from .schema import FACTS, MESSAGE, Fact, ledger

T = TypeVar("T")

WRITER = "main"

_PROBLEMS = 100  # so many are told

_LAST = "SELECT coalesce(max({key}), 0) FROM {table}"
_ROWS = "SELECT * FROM {table} WHERE {key} > ? AND {key} <= ? ORDER BY {key} LIMIT 200"

_HEAD = struct.Struct(">Bq")
_SIZE = _HEAD.size + 32
_canonical = msgspec.msgpack.Encoder().encode


class Link(NamedTuple):
    """The end of the chain."""

    sequence: int
    hash: bytes


START = Link(0, bytes(32))


def leaf(fact: Fact, row: Any) -> bytes:
    """The 41 bytes of one fact, from its row."""
    return _HEAD.pack(fact.code, row[0]) + sha256(_canonical(fact.covered(row))).digest()


def follow(link: Link, writer: str, at: int, facts: bytes) -> Link:
    """The link that comes after another."""
    sequence = link.sequence + 1
    return Link(sequence, sha256(_canonical((link.hash, sequence, writer, at, facts))).digest())


class Verification(msgspec.Struct):
    """What a verification covered and found: ``problems`` in words, the first hundred."""

    facts: int = 0
    transactions: int = 0
    problems: list[str] = []

    def problem(self, words: str) -> None:
        """Take down what was found."""
        if len(self.problems) < _PROBLEMS:
            self.problems.append(words)


def verify(reader: Reader, progress: Callable[[int, int], None] = lambda done, total: None) -> Verification:
    """Recompute the whole ledger from the tables: finds what was changed, removed, added or relinked.

    Derived states and the spool are not covered. Reads in short pages, in bounded memory, while the writer goes on;
    what it commits meanwhile is left for the next time. ``progress`` gets the transactions done and their number.
    """
    done = Verification()
    with reader.snapshot() as snapshot:
        total = _last(snapshot, ledger)
        tables = {fact.code: _Facts(reader, fact, _last(snapshot, fact.table), done) for fact in FACTS}
    link = START
    for entry in _pages(reader, ledger, total, lambda row: Entry(*row)):
        done.transactions += 1
        if entry.sequence != link.sequence + 1:
            done.problem(f"ledger entry {link.sequence + 1} is missing")
        elif entry.previous != link.hash:
            done.problem(f"ledger entry {entry.sequence} does not follow the one before it")
        link = Link(entry.sequence, entry.hash)
        before = Link(entry.sequence - 1, entry.previous)
        if follow(before, entry.writer, entry.at, entry.facts) != link or len(entry.facts) % _SIZE:
            done.problem(f"ledger entry {entry.sequence} was changed")
        for start in range(0, len(entry.facts) - _SIZE + 1, _SIZE):
            done.facts += 1
            listed = entry.facts[start : start + _SIZE]
            if table := tables.get(listed[0]):
                table.check(listed)
            else:
                done.problem(f"ledger entry {entry.sequence} lists a fact of an unknown kind")
        progress(done.transactions, total)
    for table in tables.values():
        table.pass_over(2**63)
    return done


class _Facts:
    """The facts of one table in order of id, up to the last one that there was at the beginning, as leaves."""

    def __init__(self, reader: Reader, fact: Fact, end: int, found: Verification) -> None:
        self._fact = fact
        self._found = found
        self._leaves = _pages(reader, fact.table, end, self._leaf)
        self._next = next(self._leaves, None)

    def check(self, listed: bytes) -> None:
        """Hold what the ledger lists against the next fact."""
        _, id = _HEAD.unpack_from(listed)
        self.pass_over(id)
        if not self._next or self._next[0] != id:
            self._found.problem(f"{self._fact.table.name} {id} is missing")
            return
        if self._next[1] != listed:
            self._found.problem(f"{self._fact.table.name} {id} was changed")
        self._next = next(self._leaves, None)

    def pass_over(self, id: int) -> None:
        """Leave the facts before this id behind: no ledger entry lists them."""
        while self._next and self._next[0] < id:
            self._found.problem(f"{self._fact.table.name} {self._next[0]} is in no ledger entry")
            self._next = next(self._leaves, None)

    def _leaf(self, row: Any) -> tuple[int, bytes]:
        whole = self._fact is not MESSAGE or (isinstance(row.body, bytes) and sha256(row.body).digest() == row.digest)
        return row[0], leaf(self._fact, row) if whole else b""


def _last(snapshot: Connection, table: Table) -> int:
    """The highest key of a table; 0 where it is empty."""
    return int(snapshot.exec_driver_sql(_LAST.format(key=table.columns.keys()[0], table=table.name)).scalar_one())


def _pages(reader: Reader, table: Table, last: int, make: Callable[[Any], T]) -> Iterator[T]:
    """What is made of each row of a table, in order of its key, up to ``last``; each page is a snapshot of its own."""
    page = _ROWS.format(key=table.columns.keys()[0], table=table.name)
    after = -(2**63)
    while made := [(row[0], make(row)) for row in reader.stream(page, after, last)]:
        after = made[-1][0]
        yield from (one for _, one in made)
