"""The ledger: a hash chain over every fact that was stored, made by the writer, verified by anyone who can read.

One row per transaction. ``facts`` is, for each fact of the transaction, 41 bytes: the table's code (1 byte, as in
``schema.FACTS``), the id (8 bytes, big-endian), and SHA-256 of the fact's canonical encoding: a MessagePack array of its
immutable columns in the table's order (integers and strings in their shortest form), where the SHA-256 of a body stands
for the body (``schema.Fact.body``). ``hash`` is SHA-256 of the MessagePack array of the previous hash (32 zero bytes for
the first), sequence, writer, time, the SHA-256 of ``facts``, and the hash of the entry that it skips back to (``skip``).
docs/ledger.md says it for those who write a verifier.

Version 0.1.0 wrote bodies and ``facts`` whole into what is hashed: such entries still verify (``old_leaf``, ``old_follow``).
"""

import struct
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from .schema import Fact

WRITER = "main"

_HASH = "SELECT hash FROM ledger WHERE sequence = {:d}"

HEAD = struct.Struct(">Bq")
SIZE = HEAD.size + 32
_canonical = msgspec.msgpack.Encoder().encode


class Link(NamedTuple):
    """An entry of the chain, as the one after it sees it; ``back`` is the entry that it skips back to."""

    sequence: int
    hash: bytes
    back: "Link | None" = None

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"

    def find(self, sequence: int) -> "Link | None":
        """The link of an earlier entry, where it can be reached by skipping."""
        link: Link | None = self
        while link is not None and link.sequence > sequence:
            link = link.back
        return link if link is not None and link.sequence == sequence else None


START = Link(0, bytes(32))


def skip(sequence: int) -> int:
    """The entry that one skips back to: its sequence without the lowest bit; 0 is the beginning.

    So any earlier entry is reached from any later one in a few hundred steps, and proven without those between them.
    """
    return sequence & (sequence - 1)


def leaf(fact: Fact, row: Any, digest: bytes | None = None) -> bytes:
    """The 41 bytes of one fact, from its row; ``digest`` is that of its body, where it is known or the body is gone."""
    covered = fact.covered(row)
    if fact.body:
        covered = (*covered, digest or sha256(row[-1]).digest())
    return HEAD.pack(fact.code, row[0]) + sha256(_canonical(covered)).digest()


def old_leaf(fact: Fact, row: Any) -> bytes:
    """The 41 bytes of a fact as version 0.1.0 wrote them."""
    covered = (*fact.covered(row), row[-1]) if fact.body else fact.covered(row)
    return HEAD.pack(fact.code, row[0]) + sha256(_canonical(covered)).digest()


def follow(link: Link, writer: str, at: int, facts: bytes) -> Link:
    """The link that comes after another, which must know its way back."""
    sequence = link.sequence + 1
    back = link.find(skip(sequence))
    said = (link.hash, sequence, writer, at, sha256(facts).digest(), back.hash if back else b"")
    return Link(sequence, sha256(_canonical(said)).digest(), back)


def old_follow(link: Link, writer: str, at: int, facts: bytes) -> bytes:
    """The hash of the entry after a link, as version 0.1.0 wrote it."""
    return sha256(_canonical((link.hash, link.sequence + 1, writer, at, facts))).digest()


def last_link(read: Callable[[str], Any]) -> Link:
    """The end of the chain with its way back; ``read`` gives the first row of a statement, or None."""
    sequence, ways = int(read("SELECT coalesce(max(sequence), 0) FROM ledger")[0]), []
    while sequence:
        ways.append(sequence)
        sequence = skip(sequence)
    link = START
    for sequence in reversed(ways):
        found = read(_HASH.format(sequence))
        link = Link(sequence, bytes(found[0]) if found else b"", link)
    return link
