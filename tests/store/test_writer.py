"""One writer, group commit: what was reported as done is there, what failed leaves nothing behind."""

import os
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from labbridge.store import Reader, Store, StoreError, StoreLocked, StoreState, StoreUnavailable, Transaction, verify
from labbridge.store import writer as writer_module

from .postgres import Server
from .support import behind, count, open_ready, received, submit_together


def test_jobs_that_wait_share_a_commit(store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs that wait while one commits need one more commit, not a hundred."""
    monkeypatch.setattr(writer_module, "GROUP_SECONDS", 10.0)
    answers = submit_together(store, [received] * 100)
    assert [value for _, value in answers] == list(range(1, 101))
    assert verify(reader).transactions == 1
    assert count(reader) == 100


def test_a_job_with_patience_shares_the_transaction_of_another(store: Store, reader: Reader) -> None:
    """It waits for company, but no longer than it may, nor longer than the store is open."""
    answers: SimpleQueue[Any] = SimpleQueue()
    store.submit(received, answers.put, answers.put, 60.0)
    with pytest.raises(Empty):
        answers.get(timeout=0.3)
    assert store.call(received) == 2
    assert (answers.get(timeout=10), verify(reader).transactions) == (1, 1)
    store.submit(received, answers.put, answers.put, 0.2)
    assert (answers.get(timeout=10), verify(reader).transactions) == (3, 2)
    store.submit(received, answers.put, answers.put, 60.0)
    assert store.close()
    assert answers.get(timeout=10) == 4


def test_a_group_has_bounds(store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group ends with its number of jobs, its bytes, or its time; the rest goes into the next ones."""
    monkeypatch.setattr(writer_module, "GROUP_JOBS", 10)
    submit_together(store, [received] * 25)
    assert verify(reader).transactions == 3
    monkeypatch.setattr(writer_module, "GROUP_JOBS", 512)
    monkeypatch.setattr(writer_module, "GROUP_BYTES", 1)
    submit_together(store, [received] * 4)
    assert verify(reader).transactions == 7
    monkeypatch.setattr(writer_module, "GROUP_BYTES", 2**20)
    monkeypatch.setattr(writer_module, "GROUP_SECONDS", -1.0)
    submit_together(store, [received] * 4)
    assert verify(reader).transactions == 11


def test_one_bad_job_fails_alone(store: Store, reader: Reader) -> None:
    """A job that raises takes nothing of its group with it and leaves nothing behind."""

    def bad(tx: Transaction) -> None:
        received(tx, "BAD")
        tx.flush()
        raise ValueError("no")

    answers = submit_together(store, [received, bad, received])
    assert [well for well, _ in answers] == [True, False, True]
    assert isinstance(answers[1][1], ValueError)
    assert reader.trace("BAD").reports == []
    assert len(reader.trace("S1").reports) == 2
    assert verify(reader).problems == []
    assert store.call(received) > answers[2][1]


def test_a_database_error_is_told_without_data(store: Store) -> None:
    """What the database refuses fails as a StoreError that does not repeat what was to be stored."""

    def bad(tx: Transaction) -> None:
        tx.message(direction="in", analyzer="xn-1", kind="stored", body=b"", link={"SMITH"})  # type: ignore[arg-type]
        tx.flush()

    with pytest.raises(StoreError) as error:
        store.call(bad)
    assert "SMITH" not in str(error.value)
    assert store.call(received)


def test_an_error_that_a_job_passed_over_still_fails_it(store: Store, reader: Reader) -> None:
    """A job cannot hide a statement that failed: its transaction may have been undone."""

    def careless(tx: Transaction) -> None:
        received(tx, "LOST")
        try:
            tx.spooled_body({1})  # type: ignore[arg-type]
        except Exception:
            return

    answers = submit_together(store, [received, careless])
    assert [well for well, _ in answers] == [True, False]
    assert reader.trace("LOST").reports == []


def test_answers_come_through_one_wake(store_url: str) -> None:
    """All answers of a group reach the caller's thread as one call, and one that goes wrong keeps none back."""
    calls: list[Any] = []
    got: list[int] = []
    store = Store(store_url, wake=calls.append)
    open_ready(store)
    calls.clear()
    go = threading.Event()
    store.submit(lambda tx: go.wait(60), lambda _: None, lambda _: None)
    for _ in range(3):
        store.submit(received, lambda id: got.append(id) or 1 / 0, lambda _: None)
    go.set()
    assert store.close()
    assert got == []
    for call in calls:
        call()
    assert got == [1, 2, 3]
    assert len(calls) <= 3  # the first job, the group, the state "closed"


def test_call_says_when_the_store_is_slow(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="has not answered"):
        store.call(lambda tx: time.sleep(0.3), timeout=0.01)

    def late(tx: Transaction) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        store.call(late)


def test_close_finishes_what_waits(store_url: str) -> None:
    """What was submitted before close is committed; what comes after is refused."""
    store = Store(store_url)
    with pytest.raises(StoreUnavailable, match="not open"):
        store.call(received)
    open_ready(store)
    done: list[int] = []
    store.submit(lambda tx: time.sleep(0.05), lambda _: None, lambda _: None)
    for _ in range(5):
        store.submit(received, done.append, lambda _: None)
    assert store.close()
    assert done == [1, 2, 3, 4, 5]
    assert store.state.name == "closed"
    with pytest.raises(StoreUnavailable, match="closed"):
        store.call(received)


def test_ids_and_ledger_go_on_after_a_restart(store_url: str) -> None:
    for expected in (1, 2):
        store = Store(store_url)
        open_ready(store)
        assert store.call(received) == expected
        assert store.close()
    reader = Reader(store_url)
    result = verify(reader)
    assert (result.facts, result.transactions, result.problems) == (13, 2, [])
    reader.close()


def test_disk_full(tmp_path: Path) -> None:
    """A full disk fails the jobs that need room and nothing else; with room again, the store goes on."""
    store = Store(f"sqlite:///{tmp_path}/labbridge.db")
    store.open()
    store.call(received)
    limit = "PRAGMA max_page_count = {}"
    store.call(lambda tx: tx._cursor.execute(limit.format(1)))  # no fewer than there are
    failures = [value for well, value in submit_together(store, [_large] * 3) if not well]
    assert len(failures) == 3
    assert all(isinstance(failure, StoreUnavailable) and "full" in str(failure) for failure in failures)
    store.call(lambda tx: tx._cursor.execute(limit.format(1_000_000)))
    assert store.call(_large)
    assert store.close()
    reader = Reader(f"sqlite:///{tmp_path}/labbridge.db")
    assert verify(reader).problems == []
    reader.close()


def _large(tx: Transaction) -> int:
    return received(tx, body=bytes(200_000))


def test_a_log_that_cannot_be_written_again_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab.db-wal").mkdir()
    store = Store(f"sqlite:///{tmp_path}/lab.db")
    with pytest.raises(StoreUnavailable, match=r"lab\.db-wal cannot be written: Is a directory"):
        store.open()


def test_another_writer_fails_jobs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something else holds SQLite's write lock, whatever waits fails after one wait, not one after the other."""
    monkeypatch.setattr("labbridge.store.engine._BUSY_SECONDS", 0.5)
    begun: list[int] = []
    begin = writer_module._Session.begin
    monkeypatch.setattr(writer_module._Session, "begin", lambda session, at: (begun.append(at), begin(session, at))[1])
    url = f"sqlite:///{tmp_path}/labbridge.db"
    store = Store(url)
    store.open()
    with behind(url):
        answers = submit_together(store, [received] * 20)
    assert len(begun) < 5
    assert all(not well and isinstance(value, StoreUnavailable) for well, value in answers)
    assert store.call(received)
    assert store.close()


@pytest.mark.postgresql
def test_postgresql_comes_and_goes(postgresql_server: Server, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its database a store refuses jobs at once; when the database is back, it goes on by itself."""
    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", (0.0, 0.2))
    states: list[StoreState] = []
    postgresql_server.stop()
    store = Store(postgresql_url, on_state=states.append)
    store.open()
    with pytest.raises(StoreUnavailable):
        store.wait_ready(0.5)
    with pytest.raises(StoreUnavailable):
        store.call(received, timeout=0.5)
    postgresql_server.start()
    store.wait_ready(60)
    assert store.call(received)

    postgresql_server.stop()
    started = time.monotonic()
    answers = submit_together(store, [received] * 3)
    with pytest.raises(StoreUnavailable):
        store.call(received)
    assert time.monotonic() - started < 20  # a call waits for 30 s
    assert all(not well and isinstance(value, StoreUnavailable) for well, value in answers)
    postgresql_server.start()
    store.wait_ready(60)
    assert store.call(received)
    assert store.close()
    assert [state.name for state in states if state.name != "unavailable"] == ["ready", "ready", "closed"]
    reader = Reader(postgresql_url)
    assert verify(reader).problems == []
    reader.close()


@pytest.mark.postgresql
def test_a_restart_while_nothing_happens_goes_unnoticed(
    postgresql_server: Server, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was restarted in a pause costs no job: the connection is made again before the job runs."""
    monkeypatch.setattr(writer_module, "_PAUSE_SECONDS", 0.0)
    states: list[str] = []
    store = Store(postgresql_url, on_state=lambda state: states.append(state.name))
    open_ready(store)
    store.call(received)
    postgresql_server.stop()
    postgresql_server.start()
    assert store.call(received) == 2
    assert store.close()
    assert states == ["ready", "closed"]


@pytest.mark.postgresql
def test_close_while_postgresql_is_away(postgresql_server: Server, postgresql_url: str) -> None:
    postgresql_server.stop()
    store = Store(postgresql_url)
    store.open()
    assert store.close(timeout=60)
    assert store.state.name == "closed"
    postgresql_server.start()


def test_one_store_one_writer(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second writer is refused, in words that name the first."""
    monkeypatch.setattr(writer_module, "_LOCK_GRACE", 0.1)
    second = Store(store_url)
    with pytest.raises(StoreLocked, match=rf"in use by .*\b{os.getpid()}\b.*: stop that one first"):
        open_ready(second)
    with pytest.raises((StoreLocked, StoreUnavailable)):
        second.call(received)
    assert second.close()
    assert store.call(received)
