"""A specimen's passport: its whole chain as one document, with what another program needs to prove it.

Every fact stands there with all columns that the ledger covers; every ledger entry that lists one of them, and the links
that lead from the head back to these entries. docs/ledger.md says how to verify it; ``tests/passport.py`` does so.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from msgspec.structs import astuple

from labbridge.store import Link, Reader
from labbridge.store.erasure import erased
from labbridge.store.ledger import SIZE, follow, leaf, old_leaf, skip
from labbridge.store.rows import Audit, Delivery, Earlier, Entry, Message, Revision, Row
from labbridge.store.schema import FACTS

FORMAT = "labbridge passport 1"
OLD = "this was written by version 0.1.0, whose facts can be verified in the store alone: labbridge verify"

_FACTS = {fact.name: fact for fact in FACTS}
_NAMES = {fact.name: fact.table.columns.keys() for fact in FACTS}


class PassportError(Exception):
    """No passport can be made; the text says why."""


def passport(reader: Reader, specimen: str, head: Link | None = None) -> dict[str, Any]:
    """The passport of a specimen, as plain values, up to a noted ``head`` or to the end of the ledger as it is now.

    Raises PassportError where nothing is known of the specimen, or where the store does not prove it.
    """
    with reader.still() as still:
        rows = list(_rows(still, specimen))
        head = head or still.head()
        entries = _proving(still, rows, head)
        links = list(_links(still, entries, head))
    return {
        "format": FORMAT,
        "specimen": specimen,
        "head": {"sequence": head.sequence, "hash": head.hash.hex()},
        "facts": [_fact(row) for row in rows],
        "states": {f"{row.table} {astuple(row)[0]}": row.state for row in rows if isinstance(row, Message | Earlier | Delivery)},
        "links": links,
    }


def _rows(reader: Reader, specimen: str) -> Iterator[Row]:
    found = reader.trace(specimen)
    if not found.reports:
        raise PassportError(f"nothing is known of specimen {specimen}")
    messages = reader.rows(Message, "id", {report.message_id for report in found.reports})
    deliveries = reader.rows(Delivery, "id", [delivery.id for delivery in found.deliveries])
    revisions = reader.rows(Revision, "id", {decision.revision for decision in found.decisions})
    rows: list[Row] = [*messages, *found.reports, *found.decisions, *deliveries, *found.attempts, *revisions]
    subjects = [f"specimen {specimen}", *(f"{row.table} {astuple(row)[0]}" for row in rows)]
    audits = {audit.id: audit for audit in reader.audits(subjects)}
    gone = {mark.audit_id for row in rows if (mark := erased(_values(row)[-1]))}
    audits |= {audit.id: audit for audit in reader.rows(Audit, "id", gone)}
    yield from rows
    yield from (audits[id] for id in sorted(audits))


def _values(row: Row) -> tuple[Any, ...]:
    """The columns of a row, without what stands behind them."""
    return astuple(row)[: len(_NAMES[row.table])]


def _fact(row: Row) -> dict[str, Any]:
    covered = {name: _value(value) for name, value in zip(_NAMES[row.table], _values(row), strict=True) if name != "state"}
    *_, last = _NAMES[row.table]
    if gone := erased(_values(row)[-1]):
        covered[last] = {"deleted_by_audit": gone.audit_id, "sha256": gone.digest.hex()}
    return {"fact": row.table, "columns": covered}


def _value(value: Any) -> Any:
    return {"base64": b64encode(value).decode()} if isinstance(value, bytes) else value


def _proving(reader: Reader, rows: Sequence[Row], head: Link) -> dict[int, Entry]:
    """The ledger's entries that list these facts, by their sequence."""
    wanted = {}
    for row in rows:
        fact, values = _FACTS[row.table], _values(row)
        gone = erased(values[-1])
        wanted[leaf(fact, values, gone.digest if gone else None)] = (fact, values)
    times = {values[_NAMES[fact.name].index("at")] for fact, values in wanted.values()}
    found: dict[int, Entry] = {}
    for entry in reader.rows(Entry, "at", times):
        listed = {entry.facts[start : start + SIZE] for start in range(0, len(entry.facts), SIZE)}
        proven = wanted.keys() & listed
        if proven:
            found[entry.sequence] = entry
        for one in proven:
            del wanted[one]
        if any(old_leaf(*one) in listed for one in wanted.values()):
            raise PassportError(OLD)
    if wanted:
        missing = ", ".join(f"{fact.name} {values[0]}" for fact, values in wanted.values())
        raise PassportError(f"not in the ledger: {missing}; the store does not verify: labbridge verify")
    if late := [sequence for sequence in found if sequence > head.sequence]:
        raise PassportError(f"the noted head is older than entry {late[0]}, which is needed: take a later one")
    return found


def _links(reader: Reader, entries: dict[int, Entry], head: Link) -> Iterator[dict[str, Any]]:
    """From the head back to the first of the entries, by way of all of them, the shortest way."""
    path, targets = [head.sequence], sorted(entries, reverse=True)
    for target in targets:
        while path[-1] != target:
            further = skip(path[-1])
            path.append(further if further >= target else path[-1] - 1)
    there = {entry.sequence: entry for entry in reader.rows(Entry, "sequence", path)}
    backs = {entry.sequence: entry.hash for entry in reader.rows(Entry, "sequence", {skip(one) for one in path})}
    for sequence in path:
        entry = there.get(sequence)
        if entry is None:
            raise PassportError(f"ledger entry {sequence} is missing: labbridge verify")
        back = backs.get(skip(sequence), bytes(32))
        before = Link(sequence - 1, entry.previous, Link(skip(sequence), back))
        if skip(sequence) == sequence - 1:
            before = Link(sequence - 1, entry.previous)
        if follow(before, entry.writer, entry.at, entry.facts).hash != entry.hash:
            raise PassportError(OLD)
        yield _link(entry, back, whole=sequence in entries)


def _link(entry: Entry, back: bytes, *, whole: bool) -> dict[str, Any]:
    facts = _value(entry.facts) if whole else sha256(entry.facts).hexdigest()
    return {
        "sequence": entry.sequence,
        "writer": entry.writer,
        "at": entry.at,
        "previous": entry.previous.hex(),
        "back": back.hex(),
        "facts" if whole else "facts_sha256": facts,
    }
