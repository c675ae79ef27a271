"""What a job may do, and that it sees what was done before it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbridge.store import Reader, Store, Transaction
from labbridge.store.lookups import HISTORY, storable

from .support import open_ready, received


def test_history_gives_each_key_its_reports_in_order(store: Store) -> None:
    """Earlier reports come by key, newest last, with their decisions in order; a key without any gives none."""

    def job(tx: Transaction) -> dict[str, list[tuple[int, tuple[bytes, ...]]]]:
        first, _, third = received(tx, "A"), received(tx, "B"), received(tx, "A")
        tx.decision(report_id=first, actor="lab", revision=1, document=b"later")
        tx.set_report_state(third, "held")
        found = tx.history(["A", "fresh", "B"])
        assert [earlier.state for earlier in found["A"]] == ["released", "held"]
        assert found["A"][0].document == b'{"specimen":{}}'
        return {key: [(one.report_id, one.decisions) for one in reports] for key, reports in found.items()}

    plain = b'{"results":[]}'
    expected = {"A": [(1, (plain, b"later")), (3, (plain,))], "fresh": [], "B": [(2, (plain,))]}
    assert store.call(job) == expected
    assert store.call(lambda tx: tx.history([])) == {}


def test_history_is_bounded(store: Store) -> None:
    """Of a key with very many reports the newest are looked at."""

    def job(tx: Transaction) -> None:
        for _ in range(HISTORY + 5):
            received(tx, "QC1")

    store.call(job)
    found = store.call(lambda tx: tx.history(["QC1"]))["QC1"]
    assert [earlier.report_id for earlier in found] == list(range(6, HISTORY + 6))
    assert store.call(lambda tx: tx.reports_of("QC1")) == found


def test_reports_are_found_by_specimen_and_by_key(store: Store) -> None:
    """A report whose key is not its specimen's id is found by both, and only once."""

    def job(tx: Transaction) -> list[list[int]]:
        tx.report(
            message_id=1,
            analyzer="xn-1",
            key="xn-1/0417/12",
            specimen="S1",
            role="patient",
            state="held",
            digest=b"",
            content=b"",
            document=b"",
        )
        received(tx, "S1")
        return [[one.report_id for one in tx.reports_of(name)] for name in ("S1", "xn-1/0417/12", "S2")]

    assert store.call(job) == [[1, 2], [1], []]


def test_facts_are_found_by_id(store: Store) -> None:
    def job(tx: Transaction) -> None:
        report = received(tx)
        (delivery,) = tx.deliveries_of(report)
        tx.set_delivery_state(delivery.id, "delivered")
        found = tx.find_delivery(delivery.id)
        assert found is not None
        assert (found.state, found.payload, found.lane, found.report_id) == ("delivered", b"MSH|1", "his/S1", report)
        assert tx.find_delivery(99) is None
        assert tx.deliveries_of(99) == []

    store.call(job)


def test_what_waits_is_found(store: Store) -> None:
    """Held reports and waiting deliveries come in order; payloads are fetched apart."""

    def job(tx: Transaction) -> None:
        for key, state in (("A", "released"), ("B", "held"), ("C", "released"), ("D", "held")):
            received(tx, key, state=state)
        tx.set_delivery_state(1, "delivered")
        tx.set_delivery_state(3, "refused")
        assert [(one.report_id, len(one.decisions)) for one in tx.held_reports()] == [(2, 1), (4, 1)]
        waiting = tx.waiting_deliveries()
        assert [(one.id, one.state, one.control_id, one.payload) for one in waiting] == [
            (2, "queued", "C2", b""),
            (3, "refused", "C3", b""),
            (4, "queued", "C4", b""),
        ]
        assert tx.payloads([2, 3, 99]) == {2: b"MSH|1", 3: b"MSH|1"}

    store.call(job)


def test_a_revision_is_kept_once(store: Store) -> None:
    def job(tx: Transaction) -> list[int]:
        return [tx.revision(b"a" * 32, b"A"), tx.revision(b"b" * 32, b"B"), tx.revision(b"a" * 32, b"A")]

    assert store.call(job) == [1, 2, 1]
    assert store.call(job) == [1, 2, 1]


def test_the_spool_keeps_what_is_not_whole(store: Store) -> None:
    """Parts stay in order, session by session, until their session is cleared; later parts of it are new."""

    def job(tx: Transaction) -> None:
        for session, part in (("b", b"1"), ("a", b"2"), ("b", b"3")):
            tx.spool(session, "xn-1", part)
        tx.spool("c", "xn-1", b"gone")
        tx.clear_spool("c")
        tx.clear_spool("a")
        tx.spool("a", "xn-1", b"new")

    store.call(job)
    assert store.call(lambda tx: tx.spooled_body("b")) == b"13"
    found = store.call(lambda tx: tx.spooled())
    assert [(one.session, one.analyzer, one.body) for one in found] == [("b", "xn-1", b"13"), ("a", "xn-1", b"new")]
    store.call(lambda tx: [tx.clear_spool(session) for session in "ab"])
    assert store.call(lambda tx: tx.spooled()) == []


def test_incomplete_transmissions_stay_open_until_settled(store: Store) -> None:
    def job(tx: Transaction) -> list[tuple[int, bytes]]:
        for analyzer, kind, state in (
            ("xn-1", "incomplete", "open"),
            ("xn-1", "unreadable", "open"),
            ("xn-2", "incomplete", "open"),
            ("xn-1", "incomplete", "open"),
        ):
            tx.message(direction="in", analyzer=analyzer, kind=kind, body=b"H|", state=state)
        tx.set_message_state(1, "settled")
        assert [tx.message_state(id) for id in (1, 2, 99)] == ["settled", "open", ""]
        return tx.open_incomplete("xn-1")

    assert store.call(job) == [(4, b"H|")]


def test_times_are_the_transactions(store_url: str) -> None:
    """Every fact carries the beginning of its transaction, in microseconds since 1970."""
    store = Store(store_url, clock=lambda: 1_700_000_000.5)
    open_ready(store)
    assert store.call(lambda tx: [received(tx), tx.at][1]) == 1_700_000_000_500_000
    assert store.close()
    reader = Reader(store_url)
    found = reader.trace("S1")
    for rows in (found.messages, found.reports, found.decisions, found.deliveries, found.attempts):
        assert [row.at for row in rows] == [1_700_000_000_500_000]
    reader.close()


def test_size_and_digest_follow_the_body(store: Store, reader: Reader) -> None:
    """Size and digest are the body's, but that an oversize message tells its own size."""
    store.call(lambda tx: tx.message(direction="in", analyzer="a", kind="stored", body=b"abc"))
    store.call(lambda tx: tx.message(direction="in", analyzer="a", kind="oversize", body=b"abc", size=10**8))
    digest = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    found = [tuple(row) for row in reader.stream("SELECT size, digest, body FROM message ORDER BY id")]
    assert found == [(3, digest, b"abc"), (10**8, digest, b"abc")]


@given(text=st.text(st.characters(exclude_categories=[])), body=st.binary())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_and_bytes_are_kept(store: Store, text: str, body: bytes) -> None:
    """Whatever an analyzer sends can be stored and found again, NUL and lone surrogates included."""

    def job(tx: Transaction) -> None:
        report = received(tx, text, body=body)
        assert tx.history([text])[text][-1].report_id == report
        assert tx.reports_of(text)[-1].key == storable(text)

    store.call(job)


@pytest.mark.parametrize(("text", "kept"), [("Müller 张", "Müller 张"), ("a\0b", "a\\x00b"), ("\udc80", "\\udc80")])
def test_text_stays_as_it_is_where_that_can_be_stored(text: str, kept: str) -> None:
    assert storable(text) == kept
