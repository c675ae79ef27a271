"""Readers see what is committed, and are in nobody's way."""

from labbridge.store import Reader, Store, Transaction, Waiting

from .support import received


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
    assert reader.payloads([3, 2, 99]) == {2: b"MSH|1", 3: b"MSH|1"}


def test_counts_tell_what_is_stored_and_what_waits(store: Store, reader: Reader) -> None:
    empty = reader.counts()
    assert (empty.messages, empty.held, empty.waiting) == (0, 0, [])
    store.call(_work)
    counts = reader.counts()
    assert (counts.messages, counts.reports, counts.decisions, counts.deliveries) == (4, 3, 3, 3)
    assert (counts.held, counts.open) == (1, 1)
    at = reader.queued()[0].at
    assert counts.waiting == [Waiting("his", "queued", 1, at), Waiting("his", "refused", 1, at)]


def test_trace_is_everything_about_one_specimen(store: Store, reader: Reader) -> None:
    store.call(_work)
    trace = reader.trace("S1")
    assert [one.id for one in trace.messages] == [1, 3]
    assert [one.report_id for one in trace.reports] == [1, 3]
    assert [(one.id, one.actor, one.revision) for one in trace.decisions] == [(1, "rules", 1), (3, "rules", 1)]
    assert [(one.id, one.state) for one in trace.deliveries] == [(1, "delivered"), (3, "refused")]
    assert [(one.delivery_id, one.outcome, one.reply) for one in trace.attempts] == [(1, "AA", b"MSA|AA"), (3, "AA", b"MSA|AA")]
    assert reader.trace("nothing").reports == []


def test_single_rows(store: Store, reader: Reader) -> None:
    store.call(_work)
    message, revision = reader.message(1), reader.revision(1)
    assert message is not None
    assert revision is not None
    assert (message.body, message.link, revision.body) == (b"MSH|^~\\&", "10.0.0.7", b"rules")
    assert reader.message(99) is None
    assert reader.revision(99) is None
    assert [one.outcome for one in reader.attempts(3)] == ["AA"]
    assert [(one.id, one.actor, one.new) for one in reader.audit(2)] == [(2, "lab", "released"), (3, "lab", "released")]


def test_a_reader_blocks_nobody_and_sees_one_state(store: Store, reader: Reader) -> None:
    """While a snapshot is open the writer commits; the snapshot still sees what it began with."""
    store.call(received)
    with reader.snapshot() as snapshot:
        count = "SELECT count(*) FROM message"
        assert snapshot.exec_driver_sql(count).scalar() == 1
        store.call(received, timeout=1)
        assert snapshot.exec_driver_sql(count).scalar() == 1
    assert len(reader.trace("S1").messages) == 2


def test_a_writer_blocks_no_reader(store: Store, reader: Reader) -> None:
    """While a transaction is open, readers see what was committed before it."""

    def job(tx: Transaction) -> int:
        received(tx)
        tx.flush()
        return reader.counts().messages

    assert store.call(job) == 0
