"""What the screens ask of many rows at once."""

from collections.abc import Iterator

import pytest

from labbridge.store import Reader, Store, Transaction

from .support import open_ready, received


def _queue(tx: Transaction) -> None:
    for key in ("S1", "S1", "S1", "S2", "S3"):
        received(tx, key)
    tx.set_delivery_state(1, "refused")
    tx.set_delivery_state(5, "delivered")
    tx.attempt(delivery_id=1, outcome="again AE", reply=b"one")
    tx.attempt(delivery_id=1, outcome="refused AE", reply=b"two")


def test_what_waits_is_counted_and_listed_a_page_at_a_time(store: Store, reader: Reader) -> None:
    store.call(_queue)
    counts = reader.waiting_counts()
    assert {key: count for key, (count, _) in counts.items()} == {("his", "queued"): 3, ("his", "refused"): 1}
    assert [(one.id, one.specimen) for one in reader.waiting_page("his", "queued", 2)] == [(2, "S1"), (3, "S1")]
    assert [one.id for one in reader.waiting_page("his", "queued", 2, 2)] == [4]
    assert [one.id for one in reader.waiting_page("his", "refused", 10)] == [1]
    assert reader.waiting_page("other", "queued", 10) == []


def test_how_many_wait_behind_a_refused_delivery(store: Store, reader: Reader) -> None:
    store.call(_queue)
    assert reader.waiting_behind("his", ["his/S1", "his/S3"]) == {"his/S1": 2}
    assert reader.waiting_behind("his", []) == {}


def test_the_last_answer_to_each_delivery(store: Store, reader: Reader) -> None:
    store.call(_queue)
    last = reader.last_attempts([1, 2, 99])
    assert {id: (one.outcome, one.reply) for id, one in last.items()} == {1: ("refused AE", b"two"), 2: ("AA", b"MSA|AA")}
    assert reader.last_attempts([]) == {}


@pytest.fixture
def days(store_url: str) -> Iterator[tuple[Store, Reader]]:
    """A store of which every transaction is a second (10^6) after the one before."""
    store = Store(store_url, clock=iter(range(1, 1_000_000)).__next__)
    open_ready(store)
    reader = Reader(store_url)
    yield store, reader
    reader.close()
    assert store.close()


def test_what_was_accepted_since_is_found_by_halving(days: tuple[Store, Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = days
    assert (reader.first_answer_since(0), reader.next_answer()) == (1, 1)
    store.call(received)
    for number in range(60):
        store.call(lambda tx: tx.attempt(delivery_id=1, outcome="again AE" if number % 3 else "accepted AA", reply=b""))  # noqa: B023
    times = {one.id: one.at for one in reader.attempts(1)}
    asked: list[str] = []
    read = Reader._read
    monkeypatch.setattr(Reader, "_read", lambda self, statement, *more: asked.append(statement) or read(self, statement, *more))
    for id, at in times.items():
        assert reader.first_answer_since(at) == id
        assert reader.first_answer_since(at + 1) == id + 1
    assert len(asked) <= 2 * len(times) * 9
    accepted = sum(1 for one in reader.attempts(1) if one.id >= 20 and one.outcome == "accepted AA")
    assert reader.accepted(20, reader.next_answer()) == {"his": accepted}
    assert reader.accepted(62, 62) == {}


def test_of_the_audit_only_what_is_new_is_looked_through(store: Store, reader: Reader) -> None:
    assert reader.last_audit() == 0
    store.call(lambda tx: [received(tx, key) for key in ("S1", "S2", "S1")])
    assert reader.last_audit() == 3
    assert [one.id for one in reader.audits(["S1"])] == [1, 3]
    assert [one.id for one in reader.audits(["S1"], after=1)] == [3]


def test_ids_that_begin_alike(store: Store, reader: Reader) -> None:
    store.call(lambda tx: [received(tx, key) for key in ("70001", "70002", "70112", "8", "70001")])
    assert reader.specimens_near("700019") == ["70001"]
    assert reader.specimens_near("70009") == ["70001", "70002"]
    assert reader.specimens_near("7015") == ["70112"]
    assert reader.specimens_near("701x") == ["70112"]
    assert reader.specimens_near("8") == []
    assert reader.specimens_near("") == []
    assert reader.specimens_near("70\x00") == []
    assert len(reader.specimens_near("70", 2)) == 0
