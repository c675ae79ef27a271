"""What stands in the place of a body that retention has deleted: who deleted it, and its SHA-256.

The ledger covers the last column of a fact (a message's body, a document, a payload, a reply) through its SHA-256 alone,
so that the fact can still be proven when the bytes are gone. The mark is 56 bytes: ``labbridge-erased``, the id of the
audit row that lists what was deleted (8 bytes, big-endian), and the SHA-256 of what stood there. Bytes of a sender that
look like a mark are told from one by the audit row, which does not list them.
"""

import struct
from typing import NamedTuple

MAGIC = b"labbridge-erased"
ACTION = "retention"  # of the audit row
SIZE = 56

_MARK = struct.Struct(">16sq32s")


class Erased(NamedTuple):
    """What a mark says."""

    audit_id: int
    digest: bytes


def mark(audit_id: int, digest: bytes) -> bytes:
    """The bytes that take the place of a body."""
    return _MARK.pack(MAGIC, audit_id, digest)


def erased(body: object) -> Erased | None:
    """What a mark says; None where the bytes are none."""
    if not isinstance(body, bytes) or len(body) != SIZE or not body.startswith(MAGIC):
        return None
    _, audit_id, digest = _MARK.unpack(body)
    return Erased(audit_id, digest)
