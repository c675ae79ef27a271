"""The ledger: a hash chain over every fact that was stored, made by the writer, verified by anyone who can read.

One row per transaction. ``facts`` is, for each fact of the transaction, 41 bytes: the table's code (1 byte, as in
``schema.FACTS``), the id (8 bytes, big-endian), and SHA-256 of the fact's canonical encoding, which is a MessagePack
array of its immutable columns in the table's order (integers and strings in their shortest form). A message's body is
covered through its digest. ``hash`` is SHA-256 of the MessagePack array of the previous hash (32 zero bytes for the
first), sequence, writer, time and ``facts``.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Table, func, select

from .reader import Reader
from .schema import FACTS, Fact, ledger, message

T = TypeVar("T")

WRITER = "main"

_PROBLEMS = 100  # so many are told in words
_PAGE = 200

_HEAD = struct.Struct(">Bq")
_SIZE = _HEAD.size + 32
_canonical = msgspec.msgpack.Encoder().encode


class Link(NamedTuple):
    """The end of the chain."""

    sequence: int
    hash: bytes


START = Link(0, bytes(32))


def leaf(code: int, columns: tuple[Any, ...]) -> bytes:
    """The 41 bytes of one fact, from the number of its table and its immutable columns, the id first."""
    return _HEAD.pack(code, columns[0]) + sha256(_canonical(columns)).digest()


def follow(link: Link, writer: str, at: int, facts: bytes) -> Link:
    """The link that comes after another."""
    sequence = link.sequence + 1
    return Link(sequence, sha256(_canonical((link.hash, sequence, writer, at, facts))).digest())


class Verification(NamedTuple):
    """What a verification covered and found.

    ``problems`` are the first hundred of ``problem_count``, in words. ``head`` is the last hash: who keeps it elsewhere
    can tell whether the end of the ledger was cut off.
    """

    facts: int
    transactions: int
    problems: list[str]
    problem_count: int
    head: bytes


def verify(reader: Reader, progress: Callable[[int, int], None] = lambda done, total: None) -> Verification:
    """Recompute the whole ledger from the tables: finds what was changed, removed, added or relinked.

    Derived states and the spool are not covered. Reads in short pages, in bounded memory, while the writer goes on;
    what it commits meanwhile is left for the next time. ``progress`` gets the transactions done and their number.
    """
    with reader.snapshot() as snapshot:
        total = snapshot.execute(select(func.coalesce(func.max(ledger.c.sequence), 0))).scalar_one()
        tables = {fact.code: _Facts(reader, fact, snapshot) for fact in FACTS}
    check = _Check(tables)
    names = ("sequence", "previous", "writer", "at", "facts", "hash")
    for row in _pages(reader, ledger, names, total, tuple):
        check.transaction(*row)
        progress(check.transactions, total)
    check.unlisted()
    return Verification(check.facts, check.transactions, check.problems, check.problem_count, check.link.hash)


class _Facts:
    """The facts of one table in order of id, as leaves, up to the last one that there was at the beginning."""

    def __init__(self, reader: Reader, fact: Fact, snapshot: Connection) -> None:
        self.name = fact.table.name
        self._code = fact.code
        self._digest = fact.columns.index("digest") if fact.table is message else -1
        columns = (*fact.columns, "body") if fact.table is message else fact.columns
        last = snapshot.execute(select(func.coalesce(func.max(fact.table.c.id), 0))).scalar_one()
        self._leaves = _pages(reader, fact.table, columns, last, self._leaf)
        self.next: tuple[int, bytes] | None = None
        self.advance()

    def advance(self) -> None:
        """Go to the next fact; ``next`` is its id and leaf, or None at the end."""
        self.next = next(self._leaves, None)

    def _leaf(self, row: Any) -> tuple[int, bytes]:
        columns, whole = tuple(row), True
        if self._digest >= 0:
            *_, body = columns
            columns, whole = columns[:-1], sha256(body).digest() == columns[self._digest]
        return columns[0], leaf(self._code, columns) if whole else b""


def _pages(reader: Reader, table: Table, columns: Sequence[str], last: int, make: Callable[[Any], T]) -> Iterator[T]:
    """What is made of each row of a table, in order of its key, up to ``last``; each page is a snapshot of its own.

    Bodies may be large, so that each row is made into what is needed as it is fetched.
    """
    key = table.c[columns[0]]
    page = select(*(table.c[name] for name in columns)).where(key <= last).order_by(key).limit(_PAGE)
    options = {"stream_results": True, "max_row_buffer": 20}
    after = -(2**63)
    while True:
        made = []
        with reader.snapshot() as snapshot:
            for row in snapshot.execute(page.where(key > after), execution_options=options):
                made.append(make(row))
                after = row[0]
        if not made:
            return
        yield from made


class _Check:
    def __init__(self, tables: dict[int, _Facts]) -> None:
        self.facts = 0
        self.transactions = 0
        self.problems: list[str] = []
        self.problem_count = 0
        self.link = START
        self._tables = tables

    def transaction(self, sequence: int, previous: bytes, writer: str, at: int, facts: bytes, hash: bytes) -> None:
        """Check one row of the ledger and every fact that it lists."""
        self.transactions += 1
        if sequence != self.link.sequence + 1:
            self._problem(f"ledger entry {self.link.sequence + 1} is missing")
        elif previous != self.link.hash:
            self._problem(f"ledger entry {sequence} does not follow the one before it")
        if follow(Link(sequence - 1, previous), writer, at, facts).hash != hash or len(facts) % _SIZE:
            self._problem(f"ledger entry {sequence} was changed")
        self.link = Link(sequence, hash)
        for start in range(0, len(facts) - _SIZE + 1, _SIZE):
            self._fact(sequence, facts[start : start + _SIZE])

    def unlisted(self) -> None:
        """Check that nothing is left over."""
        for table in self._tables.values():
            while table.next:
                self._skip(table)

    def _fact(self, sequence: int, listed: bytes) -> None:
        self.facts += 1
        code, id = _HEAD.unpack_from(listed)
        table = self._tables.get(code)
        if table is None:
            self._problem(f"ledger entry {sequence} lists a fact of an unknown kind")
            return
        while table.next and table.next[0] < id:
            self._skip(table)
        if not table.next or table.next[0] > id:
            self._problem(f"{table.name} {id} is missing")
            return
        if table.next[1] != listed:
            self._problem(f"{table.name} {id} was changed")
        table.advance()

    def _skip(self, table: _Facts) -> None:
        if table.next:
            self._problem(f"{table.name} {table.next[0]} is in no ledger entry")
            table.advance()

    def _problem(self, words: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _PROBLEMS:
            self.problems.append(words)
