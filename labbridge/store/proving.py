"""The proof: the whole ledger is computed again from the tables, and everything around it is checked.

One pass over the ledger, in which every table is read beside it in the order of ids, in short pages and bounded memory,
while the writer goes on; what it commits meanwhile is left for the next time.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Table

from . import integrity
from .engine import StoreError
from .erasure import ACTION, erased
from .ledger import HEAD, SIZE, START, Link, follow, leaf, old_follow, old_leaf, skip
from .reader import Reader
from .rows import Audit, Entry
from .schema import FACTS, MESSAGE, Fact, ledger

T = TypeVar("T")

PROBLEMS = 100  # so many are told
PAGE_BYTES = 4 << 20  # of large columns that are read at once

_LAST = "SELECT coalesce(max({key}), 0) FROM {table}"
_ROWS = "SELECT * FROM {table} WHERE {key} > ? AND {key} <= ? ORDER BY {key} LIMIT 500"


class Verification(msgspec.Struct):
    """What a verification covered and found: ``problems`` in words, the first hundred; ``head`` is the chain's end."""

    facts: int = 0
    transactions: int = 0
    problems: list[str] = []
    head: Link = START
    erased: int = 0  # facts whose body retention has deleted

    def problem(self, words: str) -> None:
        """Take down what was found."""
        if len(self.problems) < PROBLEMS:
            self.problems.append(words)


class States(Protocol):
    """Who works out anew what the derived states must be."""

    old: int  # the latest time of a transaction of version 0.1.0, in microseconds

    def see(self, table: str) -> Callable[[Any], None] | None:
        """Who is shown each row of a table, in any order; None for nobody."""

    def problems(self, reader: Reader) -> Iterator[str]:
        """Which states do not follow from what was seen."""


def verify(
    reader: Reader,
    progress: Callable[[int, int], None] = lambda done, total: None,
    head: Link | None = None,
    states: States | None = None,
) -> Verification:
    """Prove a store: finds what was changed, removed, added or relinked.

    ``head`` is an end of the chain as it was noted before: the chain must still contain it. ``states`` adds a check of
    the derived states. The spool is not covered. ``progress`` gets the transactions done and their number. What cannot
    be read is a problem; only a store that is not there, or not reached, raises StoreError.
    """
    done = Verification()
    for problem in integrity.problems(reader):
        done.problem(problem)
    try:
        _prove(reader, done, progress, head, states)
        if states:
            for problem in islice(states.problems(reader), PROBLEMS):
                done.problem(problem)
    except StoreError as error:
        if not integrity.is_damage(error):
            raise
        done.problem(f"it cannot be read to its end: {error}")
    return done


def _prove(
    reader: Reader, done: Verification, progress: Callable[[int, int], None], head: Link | None, states: States | None
) -> None:
    with reader.snapshot() as snapshot:
        total = _last(snapshot, ledger)
        last = {fact.code: _last(snapshot, fact.table) for fact in FACTS}
    listing = _Retention(reader)
    tables = {fact.code: _Facts(reader, fact, last[fact.code], done, listing, states) for fact in FACTS}
    link = START
    for entry in _pages(reader, ledger, total, lambda row: Entry(*row)):
        done.transactions += 1
        link = _linked(entry, link, done, states)
        if head and entry.sequence == head.sequence and entry.hash != head.hash:
            done.problem(f"ledger entry {entry.sequence} is not the one that was noted: the chain was written anew")
        _listed(entry, tables, done)
        progress(done.transactions, total)
    done.head = link
    for table in tables.values():
        table.pass_over(2**63)
    if head and head.sequence > link.sequence:
        done.problem(f"the ledger ends at entry {link.sequence}, before the noted {head.sequence}: its end was cut off")


def _linked(entry: Entry, link: Link, done: Verification, states: States | None) -> Link:
    """The link after an entry, which must follow the one before it."""
    if entry.sequence != link.sequence + 1:
        done.problem(f"ledger entry {link.sequence + 1} is missing")
    elif entry.previous != link.hash:
        done.problem(f"ledger entry {entry.sequence} does not follow the one before it")
    before = link
    if (link.sequence, link.hash) != (entry.sequence - 1, entry.previous):
        before = Link(entry.sequence - 1, entry.previous, link.find(skip(entry.sequence - 1)))
    link = Link(entry.sequence, entry.hash, before.find(skip(entry.sequence)))
    said = (before, entry.writer, entry.at, entry.facts)
    if not isinstance(entry.facts, bytes) or len(entry.facts) % SIZE:
        done.problem(f"ledger entry {entry.sequence} was changed")
    elif follow(*said).hash != entry.hash:
        if old_follow(*said) != entry.hash:
            done.problem(f"ledger entry {entry.sequence} was changed")
        elif states:
            states.old = max(states.old, entry.at)  # a clock may have gone back
    return link


def _listed(entry: Entry, tables: Mapping[int, "_Facts"], done: Verification) -> None:
    """Hold every fact that an entry lists against its table."""
    facts = entry.facts
    for start in range(0, len(facts) - SIZE + 1 if isinstance(facts, bytes) else 0, SIZE):
        done.facts += 1
        listed = facts[start : start + SIZE]
        if table := tables.get(listed[0]):
            table.check(listed)
        else:
            done.problem(f"ledger entry {entry.sequence} lists a fact of an unknown kind")


class _Facts:
    """The facts of one table in order of id, up to the last one that there was at the beginning."""

    def __init__(
        self, reader: Reader, fact: Fact, end: int, found: Verification, listing: "_Retention", states: States | None
    ) -> None:
        self._fact = fact
        self._found = found
        self._listing = listing
        self._see = states.see(fact.name) if states else None
        self._rows = _pages(reader, fact.table, end, lambda row: row)
        self._next = next(self._rows, None)

    def check(self, listed: bytes) -> None:
        """Hold what the ledger lists against the next fact."""
        row = self._next
        if row is None or HEAD.pack(self._fact.code, row[0]) != listed[:9]:
            _, id = HEAD.unpack_from(listed)
            self.pass_over(id)
            row = self._next
            if row is None or row[0] != id:
                self._found.problem(f"{self._fact.name} {id} is missing")
                return
        try:
            whole = self._is(row, listed)
        except TypeError:  # text where bytes belong, or the reverse
            whole = False
        if not whole:
            self._found.problem(f"{self._fact.name} {row[0]} was changed")
        elif self._see:
            self._see(row)
        self._next = next(self._rows, None)

    def pass_over(self, id: int) -> None:
        """Leave the facts before this id behind: no ledger entry lists them."""
        while self._next and self._next[0] < id:
            self._found.problem(f"{self._fact.name} {self._next[0]} is in no ledger entry")
            self._next = next(self._rows, None)

    def _is(self, row: Any, listed: bytes) -> bool:
        """Whether a row is what was listed, its body as it came or rightly deleted."""
        fact, body = self._fact, row[-1]
        if fact is MESSAGE:
            if leaf(fact, row) != listed:
                return False
            return sha256(body).digest() == row.digest or self._is_erased(row, row.digest)
        if leaf(fact, row) == listed:
            return True
        if not fact.body:
            return False
        gone = erased(body)
        if gone and leaf(fact, row, gone.digest) == listed:
            return self._is_erased(row, gone.digest)
        return isinstance(body, bytes) and old_leaf(fact, row) == listed

    def _is_erased(self, row: Any, digest: bytes) -> bool:
        gone = erased(row[-1])
        if gone is None or gone.digest != digest or not self._listing.lists(gone.audit_id, self._fact.name, row[0]):
            return False
        self._found.erased += 1
        return True


class _Retention:
    """What the audit says that retention has deleted."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ranges = lru_cache(64)(self._read)

    def lists(self, audit_id: int, table: str, id: int) -> bool:
        """Whether this audit row tells of the deletion of this row's body."""
        return any(first <= id <= last for first, last in self._ranges(audit_id).get(table, ()))

    def _read(self, audit_id: int) -> dict[str, list[tuple[int, int]]]:
        try:
            [audit] = self._reader.rows(Audit, "id", [audit_id])
            told = json.loads(audit.new if audit.action == ACTION else "{}")
            return {str(table): [(int(first), int(last)) for first, last in ranges] for table, ranges in told.items()}
        except (ValueError, TypeError, AttributeError):  # none, or not what retention writes
            return {}


def _last(snapshot: Connection, table: Table) -> int:
    """The highest key of a table; 0 where it is empty."""
    return int(snapshot.exec_driver_sql(_LAST.format(key=table.columns.keys()[0], table=table.name)).scalar_one())


def _pages(reader: Reader, table: Table, last: int, make: Callable[[Any], T]) -> Iterator[T]:
    """What is made of each row of a table, in order of its key, up to ``last``; each page is a snapshot of its own.

    A page is 500 rows, or what comes to some megabytes.
    """
    page = _ROWS.format(key=table.columns.keys()[0], table=table.name)
    after = -(2**63)
    while rows := reader.page(page, PAGE_BYTES, after, last):
        after = rows[-1][0]
        for row in rows:
            yield make(row)
