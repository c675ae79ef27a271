"""The ledger: a hash chain over every fact that was stored, made by the writer, verified by anyone who can read.

One row per transaction. ``facts`` is, for each fact of the transaction, 41 bytes: the table's code (1 byte, as in
``schema.FACTS``), the id (8 bytes, big-endian), and SHA-256 of the fact's canonical encoding: a MessagePack array of its
immutable columns in the table's order (integers and strings in their shortest form), where the SHA-256 of a body stands
for the body (``schema.Fact.body``). ``hash`` is SHA-256 of the MessagePack array of the previous hash (32 zero bytes for
the first), sequence, writer, time and the SHA-256 of ``facts``. docs/ledger.md says it for those who write a verifier.

Version 0.1.0 wrote bodies and ``facts`` whole into what is hashed: such entries still verify (``old_leaf``, ``old_follow``).
"""

import struct
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from .schema import Fact

WRITER = "main"

HEAD = struct.Struct(">Bq")
SIZE = HEAD.size + 32
_canonical = msgspec.msgpack.Encoder().encode


class Link(NamedTuple):
    """The end of the chain."""

    sequence: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"


START = Link(0, bytes(32))


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
    """The link that comes after another."""
    return _next(link, writer, at, sha256(facts).digest())


def old_follow(link: Link, writer: str, at: int, facts: bytes) -> Link:
    """The link that comes after another, as version 0.1.0 wrote it."""
    return _next(link, writer, at, facts)


def _next(link: Link, writer: str, at: int, facts: bytes) -> Link:
    sequence = link.sequence + 1
    return Link(sequence, sha256(_canonical((link.hash, sequence, writer, at, facts))).digest())
