"""Readers see what is committed, and are in nobody's way."""

from labbridge.store import Reader, Store, Transaction

from .support import count, received


def _work(tx: Transaction) -> None:
    received(tx, "S1")
    received(tx, "S2", state="held")
    received(tx, "S1")
    tx.set_delivery_state(1, "delivered")
    tx.set_delivery_state(3, "refused")
    tx.message(direction="in", analyzer="bc-1", kind="unreadable", body=b"?", note='[{"code":"msh"}]', state="open")


def test_pending_is_what_waits_for_a_person(store: Store, reader: Reader) -> None:
    store.call(_work)
    (held,) = reader.pending()
    assert (held.report_id, held.specimen, held.decisions) == (2, "S2", (b'{"results":[]}',))
    (message,) = reader.unsettled()
    assert (message.id, message.kind, message.note, message.body) == (4, "unreadable", '[{"code":"msh"}]', b"")
    store.call(lambda tx: (tx.set_message_state(4, "settled"), tx.set_report_state(2, "rejected")))
    assert reader.pending() == []
    assert reader.unsettled() == []


def test_queued_is_what_senders_must_know(store: Store, reader: Reader) -> None:
    store.call(_work)
    assert [(one.id, one.state, one.lane, one.specimen) for one in reader.queued()] == [
        (2, "queued", "his/S2", "S2"),
        (3, "refused", "his/S1", "S1"),
    ]
    assert reader.queued("his") == reader.queued()
    assert reader.queued("other") == []
    assert [one.outcome for one in reader.attempts(3)] == ["AA"]


def test_trace_is_everything_about_one_specimen(store: Store, reader: Reader) -> None:
    store.call(_work)
    trace = reader.trace("S1")
    assert [one.id for one in trace.messages] == [1, 3]
    assert [one.report_id for one in trace.reports] == [1, 3]
    assert [(one.id, one.actor, one.revision) for one in trace.decisions] == [(1, "rules", 1), (3, "rules", 1)]
    assert [(one.id, one.state) for one in trace.deliveries] == [(1, "delivered"), (3, "refused")]
    assert [(one.delivery_id, one.outcome, one.reply) for one in trace.attempts] == [(1, "AA", b"MSA|AA"), (3, "AA", b"MSA|AA")]
    assert reader.trace("nothing").reports == []


def test_a_reader_blocks_nobody_and_sees_one_state(store: Store, reader: Reader) -> None:
    """While a snapshot is open the writer commits; the snapshot still sees what it began with."""
    store.call(received)
    with reader.snapshot() as snapshot:
        count = "SELECT count(*) FROM message"
        assert snapshot.exec_driver_sql(count).scalar() == 1
        store.call(received)
        assert snapshot.exec_driver_sql(count).scalar() == 1
    assert len(reader.trace("S1").messages) == 2


def test_a_writer_blocks_no_reader(store: Store, reader: Reader) -> None:
    """While a transaction is open, readers see what was committed before it."""

    def job(tx: Transaction) -> int:
        received(tx)
        tx.flush()
        return count(reader)

    assert store.call(job) == 0
