"""What the daemon had promised at any moment of a trace, read from its sockets alone; and whether an image keeps it.

Nothing here asks the daemon, and nothing depends on what the analyzers or the hospital of the load remember: what came in
and what went out, in order, is the whole of the model. A promise counts from the moment in which the call that sends its
last byte is entered; what the hospital said counts from the moment in which the daemon has read it.
"""

import json
import re
import sqlite3
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbridge.store import ledger
from labbridge.store.schema import FACTS
from tests.support import ACK, END, ENQ, EOT, START, STX
from tests.torture.tracer import Call

HELD = "9"  # specimens that begin so have a result that a person must look at
_TAKEN_BACK = ("superseded", "cancelled", "refused")


@dataclass
class Promises:
    """Everything that was promised, each with the position from which it counts; lists are in order of position."""

    stored: list[tuple[int, bytes]] = field(default_factory=list)  # whole messages that were acknowledged
    frames: list[tuple[int, bytes]] = field(default_factory=list)  # the acknowledged beginning of a transmission
    sent: list[tuple[int, str, bytes]] = field(default_factory=list)  # to the hospital: MSH-10, and the bytes
    answered: dict[str, int] = field(default_factory=dict)  # MSH-10: when the daemon had read AA
    audited: list[tuple[int, str]] = field(default_factory=list)  # reasons of commands that were told to be done

    def made(self) -> "Promises":
        """All of them, as promises of long ago."""
        stored, frames = [(0, body) for _, body in self.stored], [(0, text) for _, text in self.frames]
        sent, audited = [(0, control_id, message) for _, control_id, message in self.sent], [(0, why) for _, why in self.audited]
        return Promises(stored, frames, sent, dict.fromkeys(self.answered, 0), audited)

    def before(self, position: int) -> "Promises":
        """What counts at this position."""
        cut = [promise[: bisect_left(promise, (position,))] for promise in (self.stored, self.frames, self.sent, self.audited)]
        answered = {name: at for name, at in self.answered.items() if at < position}
        return Promises(cut[0], cut[1], cut[2], answered, cut[3])


def read(calls: list[Call], before: Promises) -> Promises:
    """The promises of a trace, after those that had been made when it began."""
    promises = Promises(*(list(made) for made in (before.stored, before.frames, before.sent)), {}, list(before.audited))
    promises.answered |= before.answered
    sockets: dict[int, list[Call]] = defaultdict(list)
    for call in sorted(calls):
        if call.kind in ("sent", "received"):
            sockets[call.subject].append(call)
    for talk in sockets.values():
        first = talk[0]
        begins = (first.kind, first.data[:1])
        reader = {("received", START): _mllp, ("received", ENQ): _lis01, ("sent", START): _hospital, ("received", b"{"): _control}
        if begins in reader:
            reader[begins](talk, promises)
    for listed in (promises.stored, promises.frames, promises.sent, promises.audited):
        listed.sort()
    return promises


def _blocks(talk: list[Call], kind: str, end: bytes = END) -> Iterator[tuple[int, bytes]]:
    """The MLLP blocks (or lines) of one direction, each with where its last byte was sent, or had been read."""
    buffer = b""
    for call in talk:
        if call.kind == kind:
            *blocks, buffer = (buffer + call.data).split(end)
            yield from ((call.entered if kind == "sent" else call.returned, block.removeprefix(START)) for block in blocks)


def _mllp(talk: list[Call], promises: Promises) -> None:
    came = {_field(message, b"MSH", 9): message for _, message in _blocks(talk, "received")}
    for position, answer in _blocks(talk, "sent"):
        if _field(answer, b"MSA", 1) == "AA":
            promises.stored.append((position, came[_field(answer, b"MSA", 2)]))


def _lis01(talk: list[Call], promises: Promises) -> None:
    """An analyzer that waits for each answer: what came since the last answer is what ACK is about."""
    text, pending = b"", b""
    for call in talk:
        if call.kind == "received":
            pending += call.data
            continue
        if call.data == ACK and pending.endswith(ENQ):
            text = b""
        elif call.data == ACK:
            frame = pending[pending.index(STX) + 2 : -5]
            text += frame
            (promises.stored if frame.startswith(b"L|") else promises.frames).append((call.entered, text))
        pending = b""
    assert EOT not in text


def _hospital(talk: list[Call], promises: Promises) -> None:
    promises.sent += [(position, _field(block, b"MSH", 9), block) for position, block in _blocks(talk, "sent")]
    for position, answer in _blocks(talk, "received"):
        if _field(answer, b"MSA", 1) == "AA":
            promises.answered.setdefault(_field(answer, b"MSA", 2), position)


def _control(talk: list[Call], promises: Promises) -> None:
    asked = [json.loads(line)["reason"] for _, line in _blocks(talk, "received", b"\n")]
    for reason, (position, line) in zip(asked, _blocks(talk, "sent", b"\n"), strict=False):
        if json.loads(line)["ok"]:
            promises.audited.append((position, reason))


def _field(message: bytes, segment: bytes, number: int) -> str:
    found = re.search(rb"(?:^|\r)" + segment + rb"\|([^\r]*)", message)
    fields = found[1].split(b"|") if found else []
    return fields[number - 1].decode() if len(fields) >= number else ""


# -- the judgement -----------------------------------------------------------------------------------------------------


def judge(store: Path, promises: Promises) -> list[str]:
    """What the image of a store at this path does not keep, in words; opens it as SQLite does after a crash."""
    found: list[str] = []
    try:
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # of this check's own checkpoint
            for problem in _Judge(connection, promises).problems():
                found.append(problem)
    except Exception as error:  # damaged rows may be anything
        found.append(f"the image cannot be read: {type(error).__name__}: {error}")
    return found


class _Judge:
    """One image, read whole."""

    def __init__(self, connection: sqlite3.Connection, promises: Promises) -> None:
        self.connection, self.promises = connection, promises

    def problems(self) -> Iterator[str]:
        for (said,) in self.connection.execute("PRAGMA integrity_check(5)"):
            if said != "ok":
                yield f"integrity_check: {said}"
        self.tables = {name for (name,) in self.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not self.tables:
            if any((self.promises.stored, self.promises.frames, self.promises.sent, self.promises.audited)):
                yield "the store is empty"
            return
        self.rows = {fact.name: self._all(fact.name) for fact in FACTS}
        yield from self._ledger()
        yield from self._messages()
        yield from self._deliveries()

    def _all(self, table: str) -> list[Any]:
        cursor = self.connection.cursor()
        cursor.row_factory = sqlite3.Row
        return list(cursor.execute(f"SELECT * FROM {table} ORDER BY 1"))

    def _ledger(self) -> Iterator[str]:
        """Every fact is in the chain, nothing in the chain is missing."""
        link, listed = ledger.START, set()
        for sequence, writer, at, previous, digest, facts in self.connection.execute("SELECT * FROM ledger ORDER BY sequence"):
            follows = ledger.follow(link, writer, at, facts)
            if (sequence, previous, digest) != (follows.sequence, link.hash, follows.hash):
                yield f"ledger: entry {sequence} does not follow"
            link = follows._replace(sequence=sequence, hash=digest)
            listed |= {facts[start : start + 41] for start in range(0, len(facts), 41)}
        found = {ledger.leaf(fact, row) for fact in FACTS for row in self.rows[fact.name]}
        if found != listed:
            yield f"ledger: {len(listed - found)} facts are missing, {len(found - listed)} are in no entry"

    def _messages(self) -> Iterator[str]:
        """What was acknowledged is in the journal, with its report, its decision and its delivery."""
        reports = {row["message_id"]: row for row in self.rows["report"]}
        decided = {row["report_id"] for row in self.rows["decision"]}
        outgoing = {row["report_id"]: row["payload"] for row in self.rows["delivery"]}
        journal: dict[bytes, Any] = {}
        for row in self.rows["message"]:
            journal.setdefault(row["body"], row)  # a repeat of it is a duplicate, without a report
        for _, body in self.promises.stored:
            if (row := journal.get(body)) is None:
                yield f"acknowledged, but not in the journal: {_about(body)}"
            elif (report := reports.get(row["id"])) is None or report["id"] not in decided:
                yield f"acknowledged, but without report and decision: {_about(body)}"
            elif (said := _about(body))[0] != report["specimen"]:
                yield f"filed under another specimen: {said} under {report['specimen']}"
            elif report["state"] == "released" and _about(outgoing.get(report["id"], b"")) != said:
                yield f"acknowledged, but without its delivery: {said}"
            elif report["state"] != "released" and not said[0].startswith(HELD):
                yield f"acknowledged, and not released: {said} is {report['state']}"
        spool: dict[str, bytes] = defaultdict(bytes)
        for session, part in self.connection.execute("SELECT session, body FROM spool ORDER BY id"):
            spool[session] += part
        kept = b"\0" + b"\0".join([*spool.values(), *journal])
        for _, text in self.promises.frames:
            if b"\0" + text not in kept:
                yield f"a frame was acknowledged, and is nowhere: {text[:40]!r}"
        reasons = {row["reason"] for row in self.rows["audit"]}
        for _, reason in self.promises.audited:
            if reason not in reasons:
                yield f"a command was told to be done, and is not in the audit trail: {reason}"

    def _deliveries(self) -> Iterator[str]:
        """What was sent is there to be sent again, the same; only what was answered is settled, and lanes keep order."""
        deliveries = {row["control_id"]: row for row in self.rows["delivery"]}
        accepted = {row["delivery_id"] for row in self.rows["attempt"] if row["outcome"].startswith("accepted")}
        lanes: dict[str, list[Any]] = defaultdict(list)
        for row in self.rows["delivery"]:
            lanes[row["lane"]].append(row)
            if row["state"] not in ("queued", "delivered", *_TAKEN_BACK):
                yield f"unknown state: delivery {row['id']} is {row['state']}"
            if (row["state"] == "delivered") != (row["id"] in accepted):
                yield f"the state is not what the attempts say: delivery {row['id']} is {row['state']}"
            if row["state"] == "delivered" and row["control_id"] not in self.promises.answered:
                yield f"settled, and the hospital had not answered: delivery {row['id']}"
        for _, control_id, payload in self.promises.sent:
            if (row := deliveries.get(control_id)) is None or row["payload"] != payload:
                yield f"sent, but not in the store with the same bytes: {control_id}"
                continue
            for earlier in lanes[row["lane"]]:
                if earlier["id"] < row["id"] and earlier["state"] == "queued":
                    yield f"sent, and an earlier one of its lane would follow: delivery {row['id']}, {earlier['id']}"


def judge_arrivals(promises: Promises, got: list[tuple[str, bytes]]) -> list[str]:
    """What is wrong with what a hospital got after a power cut, beside what it had been sent before."""
    problems = []
    before = {control_id: message for _, control_id, message in promises.sent}
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for control_id, message in [*before.items(), *got]:
        ids[_about(message)].add(control_id)
        if before.get(control_id, message) != message:
            problems.append(f"sent again with other bytes: {control_id}")
    problems += [f"delivered twice under different ids: {about}" for about, one in ids.items() if len(one) > 1]
    arrived = set(promises.answered) | {control_id for control_id, _ in got}
    for about in {_about(body) for _, body in promises.stored}:
        if not about[0].startswith(HELD) and not ids[about] & arrived:
            problems.append(f"acknowledged before the power cut, never delivered: {about}")
    problems += [f"sent before the power cut, and not again: {one}" for one in before.keys() - arrived]
    order: dict[str, list[str]] = defaultdict(list)
    for _, message in got:
        order[_about(message)[0]].append(_about(message)[1])
    return problems + [f"out of order: {specimen} {values}" for specimen, values in order.items() if values != sorted(values)]


def _about(message: bytes) -> tuple[str, str]:
    """The specimen and the value that a message of the load, or its delivery, is about."""
    record = re.search(rb"(?:^|\r)(?:OBR\|[^|]*\|[^|]*\||O\|1\|\|(?:2\^1\^)?)[ ]*([^|^\r]*)", message)
    value = re.search(rb"(?:^|\r)(?:OBX\|1\|NM\|[^|]*\|[^|]*|R\|1\|[^|]*)\|([^|\r]*)", message)
    return (record[1].decode() if record else "", value[1].decode() if value else "")
