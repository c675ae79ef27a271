"""An independent verifier of `labbridge trace SPECIMEN --export`: the standard library alone, nothing of labbridge.

    python passport.py FILE [SEQUENCE:HASH]

Exit status 0 when every fact in the file is proven by the chain that ends in the head (the one given, else the file's
own), 1 with what is wrong otherwise. The format is that of docs/ledger.md.
"""

import base64
import hashlib
import json
import struct
import sys
from typing import Any

# Of each kind of fact its code and the columns that are covered, in order; the last, where it is marked, by its SHA-256.
FACTS = {
    "message": (1, "id at direction analyzer link kind control_id digest size note body*"),
    "report": (2, "id message_id at analyzer key specimen patient role digest content document*"),
    "decision": (3, "id report_id at actor revision document*"),
    "delivery": (4, "id at destination lane report_id decision_id control_id due payload*"),
    "attempt": (5, "id delivery_id at outcome reply*"),
    "revision": (6, "id at digest body"),
    "audit": (7, "id at actor action subject reason old new"),
}
SIZE = 41


class Wrong(Exception):
    """The passport does not prove what it says."""


def pack(value: Any) -> bytes:
    """MessagePack in its shortest form: integers, texts, bytes, arrays."""
    if isinstance(value, int) and not isinstance(value, bool):
        if -32 <= value < 128:
            return struct.pack(">b", value)
        for code, form, low, high in zip(b"\xcc\xcd\xce\xcf", "BHIQ", [0] * 4, [2**8, 2**16, 2**32, 2**64], strict=True):
            if low <= value < high:
                return bytes([code]) + struct.pack(">" + form, value)
        for code, form, bits in zip(b"\xd0\xd1\xd2\xd3", "bhiq", [7, 15, 31, 63], strict=True):
            if -(2**bits) <= value < 0:
                return bytes([code]) + struct.pack(">" + form, value)
    if isinstance(value, str):
        text = value.encode()
        return head(len(text), (0xA0, 31), b"\xd9\xda\xdb") + text
    if isinstance(value, bytes):
        return head(len(value), (0, -1), b"\xc4\xc5\xc6") + value
    if isinstance(value, list):
        return head(len(value), (0x90, 15), b"\x00\xdc\xdd") + b"".join(map(pack, value))
    raise Wrong(f"no value of this kind is ever stored: {type(value).__name__}")


def head(length: int, small: tuple[int, int], codes: bytes) -> bytes:
    """The beginning of a text, bytes or an array."""
    if length <= small[1]:
        return bytes([small[0] | length])
    for code, form in zip(codes, "BHI", strict=True):
        if code and length < 2 ** (8 * struct.calcsize(form)):
            return bytes([code]) + struct.pack(">" + form, length)
    raise Wrong("longer than anything that is stored")


def raw(value: Any) -> Any:
    """A column's value as it was stored."""
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def body(value: Any, fact: str, id: int, audits: dict[int, Any]) -> bytes:
    """The digest of a body; of one that was deleted, an audit row must tell of it."""
    if "sha256" not in value:
        return digest(raw(value))
    audit = audits.get(value["deleted_by_audit"], {})
    ranges = json.loads(audit["new"]).get(fact, []) if audit.get("action") == "retention" else []
    if not any(first <= id <= last for first, last in ranges):
        raise Wrong(f"nothing tells of the deletion of the body of {fact} {id}")
    return bytes.fromhex(value["sha256"])


def leaf(fact: str, columns: dict[str, Any], audits: dict[int, Any]) -> bytes:
    """The 41 bytes by which the ledger knows a fact."""
    code, names = FACTS[fact]
    if list(columns) != names.rstrip("*").split():
        raise Wrong(f"a {fact} has other columns")
    values = [raw(value) for value in columns.values() if not (isinstance(value, dict) and "sha256" in value)]
    if names.endswith("*"):
        of_body = body(list(columns.values())[-1], fact, columns["id"], audits)
        values[len(columns) - 1 :] = [of_body]
        if fact == "message" and values.pop() != raw(columns["digest"]):  # covered through that column
            raise Wrong(f"the body of message {columns['id']} is not the one that was stored")
    return struct.pack(">Bq", code, columns["id"]) + digest(pack(values))


def verify(text: str, noted: str = "") -> int:
    """How many facts are proven; raises Wrong, or what malformed JSON raises."""
    passport = json.loads(text)
    sequence, _, hash = (noted or "{sequence}:{hash}".format(**passport["head"])).partition(":")
    expected = {int(sequence): bytes.fromhex(hash)}
    listed = []
    for link in passport["links"]:  # from the head back
        number, facts = link["sequence"], raw(link["facts"]) if "facts" in link else None
        previous, back = bytes.fromhex(link["previous"]), bytes.fromhex(link["back"])
        of_facts = bytes.fromhex(link["facts_sha256"]) if facts is None else digest(facts)
        said = [previous, number, link["writer"], link["at"], of_facts, back]
        if expected.get(number) != digest(pack(said)):
            raise Wrong(f"ledger entry {number} does not lead to the head")
        expected |= {number - 1: previous, number & (number - 1): back}
        listed += [facts[at : at + SIZE] for at in range(0, len(facts or b""), SIZE)] if facts else []
    audits = {one["columns"]["id"]: one["columns"] for one in passport["facts"] if one["fact"] == "audit"}
    for one in passport["facts"]:
        if leaf(one["fact"], one["columns"], audits) not in listed:
            raise Wrong(f"{one['fact']} {one['columns']['id']} is not what the ledger lists")
    return len(passport["facts"])


if __name__ == "__main__":
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            print(verify(file.read(), *sys.argv[2:3]), "facts proven")
    except (Wrong, LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        sys.exit(f"not proven: {error}")
