"""Retention deletes the bodies of what is settled and old, and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labbridge.store import Reader, Store, Transaction, verify
from labbridge.store.erasure import erased, mark
from labbridge.store.ledger import START, Link, follow, old_follow, old_leaf, skip
from labbridge.store.lookups import HISTORY
from labbridge.store.retention import Step, last_old, step
from labbridge.store.rows import Attempt, Audit, Decision, Delivery, Earlier, Entry, Message
from labbridge.store.schema import FACTS
from tests.torture.fill import fill

from .support import behind, open_ready, received

DAY = 86_400_000_000
NOW = 1_000 * DAY
CUTOFF = NOW - 30 * DAY


class Aged:
    """A store whose clock a test sets, in days before ``NOW``."""

    def __init__(self, url: str) -> None:
        self.days = 100.0
        self.url = url
        self.open()
        self.reader = Reader(url)

    def open(self) -> None:
        """Opens it, again."""
        self.store = Store(self.url, clock=lambda: (NOW - self.days * DAY) / 1e6)
        open_ready(self.store)

    def tell(self, key: str = "S1", *, days: float = 100, delivery: str = "delivered", **columns: Any) -> int:
        """One specimen's chain of so many days ago; gives the report's id."""
        self.days = days

        def job(tx: Transaction) -> int:
            number = received(tx, key, body=b"MSH|" + key.encode(), **columns)
            for one in tx.deliveries_of(number):
                tx.set_delivery_state(one.id, delivery)
            return number

        return self.store.call(job)

    def run(self) -> int:
        """A whole pass; gives how many bodies it deleted."""
        self.days, after, bodies = 0.0, 0, 0
        for _ in range(1000):
            done: Step = self.store.call(lambda tx: step(tx, after, CUTOFF))  # noqa: B023 (run at once)
            after, bodies = done.upto, bodies + done.bodies
            if done.done:
                return bodies
        raise AssertionError("it never ends")

    def bodies(self, report_id: int) -> list[bytes]:
        """What stands in the large columns of a report's chain."""
        [report] = self.reader.rows(Earlier, "id", [report_id])
        deliveries = self.reader.rows(Delivery, "report_id", [report_id])
        return [
            *(one.body for one in self.reader.rows(Message, "id", [report.message_id])),
            report.document,
            *(one.document for one in self.reader.rows(Decision, "report_id", [report_id])),
            *(one.payload for one in deliveries),
            *(one.reply for one in self.reader.rows(Attempt, "delivery_id", [one.id for one in deliveries])),
        ]

    def whole(self, report_id: int) -> bool:
        """Whether all bodies are there; some of them never."""
        gone = {erased(body) is not None for body in self.bodies(report_id)}
        assert len(gone) == 1
        return gone == {False}


@pytest.fixture
def aged(store_url: str) -> Iterator[Aged]:
    one = Aged(store_url)
    yield one
    assert verify(one.reader).problems == []
    assert one.store.close()
    one.reader.close()


def test_purge_never_deletes_undelivered(aged: Aged) -> None:
    """However old: what waits for the hospital or for a person keeps every byte, and all of its specimen."""
    kept = [
        aged.tell("queued", delivery="queued"),
        aged.tell("refused", delivery="refused"),
        aged.tell("held", state="held"),
        aged.tell("waits"),
        aged.tell("waits", delivery="queued"),
        aged.tell("person"),
        aged.tell("person", state="held"),
        aged.tell("", state="held"),
        aged.tell("", delivery="queued"),
        aged.tell("", delivery="refused"),
    ]
    message = aged.store.call(
        lambda tx: tx.message(direction="in", analyzer="xn-1", kind="unreadable", body=b"what is it?", state="open")
    )
    gone = [aged.tell("delivered"), aged.tell("cancelled", delivery="cancelled"), aged.tell("over", delivery="superseded")]
    before = {number: aged.bodies(number) for number in kept}
    assert aged.run() == 5 * len(gone)
    assert {number: aged.bodies(number) for number in kept} == before
    assert aged.reader.rows(Message, "id", [message])[0].body == b"what is it?"
    assert not any(aged.whole(number) for number in gone)
    assert {
        row.payload for row in aged.store.call(lambda tx: [tx.find_delivery(row.id) for row in tx.waiting_deliveries()]) if row
    } == {b"MSH|1"}
    assert aged.run() == 0


def test_what_is_settled_later_is_deleted_later(aged: Aged) -> None:
    number = aged.tell("S1", delivery="queued")
    message = aged.store.call(lambda tx: tx.message(direction="in", analyzer="a", kind="stray", body=b"stray", state="open"))
    assert aged.run() == 0
    aged.store.call(lambda tx: tx.set_delivery_state(1, "delivered"))
    aged.store.call(lambda tx: tx.set_message_state(message, "settled"))
    assert aged.run() == 6
    assert not aged.whole(number)


@pytest.mark.parametrize("what", ["message", "decision", "delivery", "attempt"])
def test_what_is_young_stays(aged: Aged, what: str) -> None:
    """Its last event counts: of a report that was decided, sent or answered lately, nothing is deleted."""
    number = aged.tell("S1", days=29 if what == "message" else 100)
    aged.days = 29
    late: dict[str, Callable[[Transaction], Any]] = {
        "message": lambda tx: None,
        "decision": lambda tx: tx.decision(report_id=number, actor="lab", revision=1, document=b"{}"),
        "delivery": lambda tx: tx.set_delivery_state(
            tx.delivery(destination="his", lane="S1", report_id=number, decision_id=1, control_id="9", payload=b"M"), "delivered"
        ),
        "attempt": lambda tx: tx.attempt(delivery_id=1, outcome="AA", reply=b"late"),
    }
    aged.store.call(late[what])
    assert aged.run() == 0
    assert aged.whole(number)


def test_a_specimen_that_came_again_keeps_what_is_looked_back_upon(aged: Aged) -> None:
    """Of a control that is measured every day, as many reports as are ever looked at; the older ones go."""
    first = [aged.tell("QC1") for _ in range(3)]
    again = [aged.tell("QC1") for _ in range(HISTORY - 2)]
    again += [aged.tell("QC1", days=1)]
    assert aged.run() == 5 * 2
    assert [aged.whole(number) for number in first] == [False, False, True]
    history = aged.reader.history(["QC1"])["QC1"]
    assert len(history) == HISTORY
    assert [row.report_id for row in history] == [first[2], *again]


def test_a_specimen_that_is_gone_is_no_history(aged: Aged) -> None:
    aged.tell("S1")
    assert aged.run() == 5
    assert aged.reader.history(["S1"]) == {"S1": []}


def test_it_is_audited_and_the_marks_say_where(aged: Aged) -> None:
    """One audit row a step: how many of each table, of which rows, until when."""
    numbers = [aged.tell("S1"), aged.tell("S2", delivery="queued"), aged.tell("S3")]
    aged.run()
    [audit] = [row for row in aged.reader.rows(Audit, "id", range(10)) if row.action == "retention"]
    assert (audit.actor, audit.reason) == ("labbridge", "settled before 1972-08-28T00:00:00Z")
    assert json.loads(audit.old) == dict.fromkeys([fact.name for fact in FACTS[:5]], 2)
    assert json.loads(audit.new) == {fact.name: [[1, 1], [3, 3]] for fact in FACTS[:5]}
    assert {mark.audit_id for body in aged.bodies(numbers[0]) if (mark := erased(body))} == {audit.id}
    assert verify(aged.reader).erased == 10


def test_a_body_that_somebody_else_deleted_is_found(aged: Aged) -> None:
    """A mark counts only where the audit tells of it; and what was deleted rightly still has all its other columns."""
    aged.tell("S1")
    aged.tell("S2", delivery="queued")
    aged.run()
    [message] = aged.reader.rows(Message, "id", [2])
    changes = [
        ("UPDATE message SET body = {} WHERE id = 2", mark(1, message.digest)),
        ("UPDATE message SET body = {} WHERE id = 2", mark(3, message.digest)),
        ("UPDATE report SET specimen = 'S9' WHERE id = {}", 1),
        ("UPDATE attempt SET reply = {} WHERE id = 1", mark(3, b"x" * 32)),
        ("UPDATE delivery SET payload = {} WHERE id = 1", b""),
    ]
    for statement, value in changes:
        table = statement.split()[1]
        sqlite = aged.url.startswith("sqlite")
        with behind(aged.url) as connection:
            before = connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY id").all()
            connection.exec_driver_sql(statement.format("?" if sqlite else "%s"), (value,))
        assert [problem.split()[0] for problem in verify(aged.reader).problems] == [table]
        with behind(aged.url) as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")
            places = ", ".join(["?" if sqlite else "%s"] * len(before[0]))
            for row in before:
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({places})", tuple(row))


def test_bytes_of_a_sender_that_look_like_a_mark_are_a_message(aged: Aged) -> None:
    aged.days = 10
    aged.store.call(lambda tx: tx.message(direction="in", analyzer="a", kind="stray", body=mark(1, b"x" * 32)))
    assert verify(aged.reader).problems == []


def test_what_version_0_1_0_wrote_verifies_and_keeps_its_bodies(aged: Aged) -> None:
    """Its facts cannot be proven without their bodies, whatever its clock said and its last entry is about."""
    for days in (100, 60, 90):
        aged.tell(f"S{days}", days=days)
    aged.store.call(lambda tx: tx.attempt(delivery_id=1, outcome="AA"))
    aged.tell("S80", days=80)
    assert aged.store.close()
    rewrite(aged.url, entries=4)
    aged.open()
    assert verify(aged.reader).problems == []

    def entry(sequence: int) -> Entry | None:
        return next(iter(aged.reader.rows(Entry, "sequence", [sequence])), None)

    assert last_old(entry, aged.store.head.sequence) == 3
    assert last_old(entry, 0) == 0
    assert aged.store.call(lambda tx: step(tx, 0, CUTOFF, 3)).bodies == 5
    assert [aged.whole(number) for number in (1, 2, 3, 4)] == [True, True, True, False]


def rewrite(url: str, entries: int) -> None:
    """Makes the first entries of a ledger what version 0.1.0 would have written, and lets the later ones follow."""
    by_code = {fact.code: fact for fact in FACTS}
    with behind(url) as connection:
        place = "?" if url.startswith("sqlite") else "%s"
        link = START
        for entry in connection.exec_driver_sql("SELECT * FROM ledger ORDER BY sequence").all():
            facts = entry.facts
            if entry.sequence <= entries:
                leaves = []
                for at in range(0, len(facts), 41):
                    fact, id = by_code[facts[at]], int.from_bytes(facts[at + 1 : at + 9], "big")
                    row = connection.exec_driver_sql(f"SELECT * FROM {fact.name} WHERE id = {id}").one()
                    leaves.append(old_leaf(fact, row))
                facts = b"".join(leaves)
                assert facts != entry.facts
                digest = old_follow(link, entry.writer, entry.at, facts)
                after = Link(entry.sequence, digest, link.find(skip(entry.sequence)))
            else:
                after = follow(link, entry.writer, entry.at, facts)
            connection.exec_driver_sql(
                f"UPDATE ledger SET previous = {place}, hash = {place}, facts = {place} WHERE sequence = {entry.sequence}",
                (link.hash, after.hash, facts),
            )
            link = after


def test_storage_stays_flat(tmp_path: Path) -> None:
    """What is filled in, deleted and filled in again takes the room of the first time, but for the rows that stay."""
    url, sizes = f"sqlite:///{tmp_path}/lab.db", []
    for round in range(4):
        fill(url, 5_000, 1 + round * 1000, at=(1 + round) * DAY, tests=100)
        sizes.append((tmp_path / "lab.db").stat().st_size)
        store, after = Store(url), 0
        open_ready(store)
        while not (done := store.call(lambda tx: step(tx, after, (2 + round) * DAY))).done:  # noqa: B023 (run at once)
            after = done.upto
        assert store.close()
    with behind(url) as connection:
        rows = connection.exec_driver_sql("SELECT sum(length(body)), count(*) FROM message").one()
    assert tuple(rows) == (4000 * 56, 4000)
    reader = Reader(url)
    result = verify(reader)
    reader.close()
    assert (result.problems, result.erased) == ([], 4000 * 5)
    print(sizes)
    assert sizes[-1] < 1.25 * sizes[0]
