"""Retention: the bodies of what is settled and old are deleted, a few messages at a time; the rows and the ledger stay.

The unit is a message with everything that came of it. Its bodies go when all of it is older than the cutoff, nothing of
it waits for a person or for a destination, and what is decided of the specimen next does not need it: no report of the
specimen is held, none of its deliveries waits, and either the specimen was not seen since the cutoff or enough newer
reports are there (``HISTORY``, which is as many as are ever looked at).

A row is taken out and put back with a mark in place of its body (see ``erasure``), so that SQLite joins the pages that
become empty and fills them again: the file does not grow. Each step is one job of the writer, and one audit row.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from .erasure import ACTION, MAGIC, SIZE, erased, mark
from .ledger import HEAD, Link, old_follow
from .ledger import SIZE as LEAF
from .lookups import HISTORY
from .rows import Attempt, Decision, Delivery, Earlier, Entry, Message, Row
from .schema import ATTEMPT, DECISION, DELIVERY, MESSAGE, REPORT, Fact
from .transaction import Transaction

ACTOR = "labbridge"
WINDOW = 5000  # messages whose bodies are looked for at once
MESSAGES = 40  # whose bodies are deleted in one step
BYTES = 1 << 20  # or so many, if that is less

_NEXT = """
    SELECT id, at, length(body) FROM message WHERE id > ? AND id <= ? AND length(body) > 0
    AND (length(body) != ? OR substr(body, 1, 16) != ?) ORDER BY id LIMIT ?"""
_FIRST = "SELECT id, message_id FROM report WHERE id >= ? ORDER BY id LIMIT 1"
_REPORTS = "SELECT id, message_id, at, key, state FROM report WHERE id >= ? ORDER BY id LIMIT ?"
_LAST = "SELECT coalesce(max(id), 0) FROM {}"
# The texts are joined so that no index of the waiting is read instead of the one that was meant.
_KEYS = """
    SELECT wanted.value,
        (SELECT at FROM report WHERE key = wanted.value ORDER BY id DESC LIMIT 1),
        coalesce((SELECT id FROM report WHERE key = wanted.value ORDER BY id DESC LIMIT 1 OFFSET ?), 0),
        (SELECT count(*) FROM report WHERE key = wanted.value AND state || '' = 'held'),
        (SELECT count(*) FROM report JOIN delivery ON delivery.report_id = report.id
            WHERE report.key = wanted.value AND delivery.state || '' IN ('queued', 'refused'))
    FROM {list}"""


class Step(msgspec.Struct, frozen=True):
    """What one step did: up to which message it looked, how many bodies it deleted, whether nothing more is old."""

    upto: int
    bodies: int = 0
    done: bool = False


class _Part(msgspec.Struct):
    """A report and what came of it."""

    report: Earlier
    decisions: list[Decision]
    deliveries: list[Delivery]
    attempts: list[Attempt]


def step(tx: Transaction, after: int, cutoff: int, old: int = 0) -> Step:
    """Delete the bodies of the next few messages after this id that came before ``cutoff`` (microseconds since 1970).

    Messages up to ``old`` stay, with all that came of them: see ``last_old``.
    """
    window = after + WINDOW
    found = tx.rows_of(_NEXT, after, window, SIZE, MAGIC, MESSAGES)
    if not any(at < cutoff for _, at, _ in found):
        over = bool(found) or window >= tx.rows_of(_LAST.format("message"))[0][0]
        return Step(after if over else window, done=over)
    some, size = [], 0
    for id, _, length in found:
        some.append(id)
        size += length
        if size > BYTES:
            break
    messages = [one for one in tx.found(Message, "id", some) if one.id > old and one.at < cutoff and one.state != "open"]
    parts = _parts(tx, some[0], some[-1])
    free = _free_keys(tx, {part.report.key for of in parts.values() for part in of} - {""}, cutoff)
    chosen: list[tuple[Message, list[_Part]]] = []
    for message in messages:
        of = parts.get(message.id, [])
        if all(_is_settled(part, cutoff) and free(part.report) for part in of):
            chosen.append((message, of))
    return Step(some[-1], _erase(tx, chosen, cutoff))


def last_old(read: Callable[[int], Entry | None], last: int) -> int:
    """The last message that version 0.1.0 wrote, 0 where there is none: its bodies are needed for the proof.

    ``read`` gives an entry of the ledger; the old ones are the first, so that a few are looked at.
    """
    low, high = 0, last  # entry ``low`` is old, ``high + 1`` is not
    while low < high:
        middle = (low + high + 1) // 2
        entry = read(middle)
        before = Link(middle - 1, entry.previous) if entry else None
        if entry and before and old_follow(before, entry.writer, entry.at, entry.facts) == entry.hash:
            low = middle
        else:
            high = middle - 1
    messages: list[int] = []
    while low and not messages:
        facts = entry.facts if (entry := read(low)) else b""
        listed = [HEAD.unpack_from(facts, at) for at in range(0, len(facts), LEAF)]
        messages, low = [id for code, id in listed if code == MESSAGE.code], low - 1
    return max(messages, default=0)


def _parts(tx: Transaction, first: int, last: int) -> dict[int, list[_Part]]:
    """By message, its reports with what came of them: both have rising ids, so that no index is needed."""
    low, high = 1, tx.rows_of(_LAST.format("report"))[0][0] + 1
    while low < high:
        middle = (low + high) // 2
        found = tx.rows_of(_FIRST, middle)
        if found and found[0][1] < first:
            low = found[0][0] + 1
        else:
            high = middle
    ids: list[int] = []
    limit = 4 * MESSAGES
    while True:
        rows = tx.rows_of(_REPORTS, low, limit)
        ids = [row[0] for row in rows if row[1] <= last]
        if len(ids) < limit:
            break
        limit *= 4
    decisions, deliveries = _grouped(tx.found(Decision, "report_id", ids), "report_id"), tx.found(Delivery, "report_id", ids)
    attempts = _grouped(tx.found(Attempt, "delivery_id", [one.id for one in deliveries]), "delivery_id")
    by_report = _grouped(deliveries, "report_id")
    parts: defaultdict[int, list[_Part]] = defaultdict(list)
    for report in tx.found(Earlier, "id", ids):
        sent = by_report[report.report_id]
        answers = [answer for one in sent for answer in attempts[one.id]]
        parts[report.message_id].append(_Part(report, decisions[report.report_id], sent, answers))
    return parts


def _grouped(rows: Iterable[Any], name: str) -> defaultdict[int, list[Any]]:
    groups: defaultdict[int, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, name)].append(row)
    return groups


def _free_keys(tx: Transaction, keys: Collection[str], cutoff: int) -> Callable[[Earlier], bool]:
    """Whether what is decided of a report's specimen next can do without it."""
    of = {key: rest for key, *rest in tx.rows_of(_KEYS, HISTORY - 1, msgspec.json.encode(sorted(keys)).decode())}

    def free(report: Earlier) -> bool:
        if not report.key:
            return True
        at, edge, held, waiting = of[report.key]
        return not held and not waiting and bool(at < cutoff or report.report_id < edge)

    return free


def _is_settled(part: _Part, cutoff: int) -> bool:
    """Whether nothing of a report waits, and nothing of it is newer."""
    waits = part.report.state == "held" or any(one.state in ("queued", "refused") for one in part.deliveries)
    times = [part.report.at, *(one.at for of in (part.decisions, part.deliveries, part.attempts) for one in of)]
    return not waits and max(times) < cutoff


def _erase(tx: Transaction, chosen: Sequence[tuple[Message, list[_Part]]], cutoff: int) -> int:
    """Put marks in the place of all bodies, and write down which; gives their number."""
    parts = [part for _, of in chosen for part in of]
    rows: list[tuple[Fact, Sequence[Row]]] = [
        (MESSAGE, [message for message, _ in chosen]),
        (REPORT, [part.report for part in parts]),
        (DECISION, [one for part in parts for one in part.decisions]),
        (DELIVERY, [one for part in parts for one in part.deliveries]),
        (ATTEMPT, [one for part in parts for one in part.attempts]),
    ]
    going = {fact: [found for row in of if (found := _values(fact, row))[-1] and not erased(found[-1])] for fact, of in rows}
    number = sum(map(len, going.values()))
    if number:
        until = datetime.fromtimestamp(cutoff / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        counts = msgspec.json.encode({fact.name: len(of) for fact, of in going.items() if of}).decode()
        listed = msgspec.json.encode({fact.name: _ranges(sorted(row[0] for row in of)) for fact, of in going.items() if of})
        told = {"subject": "bodies", "reason": f"settled before {until}", "old": counts, "new": listed.decode()}
        audit = tx.audit(actor=ACTOR, action=ACTION, **told)
        for fact, of in going.items():
            tx.put_again(fact, [(*row[:-1], mark(audit, _digest(fact, row))) for row in of])
    return number


def _values(fact: Fact, row: Row) -> tuple[Any, ...]:
    values: tuple[Any, ...] = msgspec.structs.astuple(row)
    return values[: len(fact.table.columns)]


def _digest(fact: Fact, row: tuple[Any, ...]) -> bytes:
    """What the ledger covers a body with: of a message it is a column, which stays."""
    return bytes(row[fact.table.columns.keys().index("digest")]) if fact is MESSAGE else sha256(row[-1]).digest()


def _ranges(ids: Sequence[int]) -> list[list[int]]:
    """Rising numbers as first and last of each row without gaps."""
    ranges: list[list[int]] = []
    for id in ids:
        if ranges and ranges[-1][1] == id - 1:
            ranges[-1][1] = id
        else:
            ranges.append([id, id])
    return ranges
