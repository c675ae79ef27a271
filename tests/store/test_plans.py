"""The cost of a message does not grow with what is stored: every look-up has its index."""

from typing import Any

import pytest

from labbridge.store import Reader, Store, Transaction
from labbridge.store.engine import parse, writing
from labbridge.store.lookups import spoken

from .support import received


def _everything(tx: Transaction) -> None:
    """Every look-up and change that is made for a message, a command or an answer."""
    tx.history(["S1", "S2"])
    tx.reports_of("S1")
    tx.find_delivery(1)
    tx.deliveries_of(1)
    tx.payloads([1, 2])
    tx.message_state(1)
    tx.open_incomplete("xn-1")
    tx.spooled_body("a")
    received(tx)
    tx.set_message_state(1, "open")
    tx.set_report_state(1, "held")
    tx.set_delivery_state(1, "refused")
    tx.clear_spool("a")


def test_no_look_up_reads_a_whole_table(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store.call(lambda tx: [received(tx, f"S{number}") for number in range(50)])
    ran: list[tuple[str, Any]] = []
    run = Transaction._run

    def spy(tx: Transaction, how: Any, statement: str, values: Any) -> None:
        ran.append((statement, values[0] if isinstance(values, list) else values))
        run(tx, how, statement, values)

    monkeypatch.setattr(Transaction, "_run", spy)
    store.call(_everything)
    assert len(ran) == 20
    engine = writing(parse(store_url))
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        for statement, values in ran:
            explain = ("EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN ") + spoken(statement, sqlite)
            plan = [str(row[-1]).strip(" ->") for row in connection.exec_driver_sql(explain, values)]
            whole = [line for line in plan if line.startswith(("SCAN ", "Seq Scan"))]
            assert all(line.startswith(("SCAN wanted VIRTUAL TABLE", "SCAN chosen")) for line in whole), (statement, plan)
    engine.dispose()


@pytest.mark.parametrize("name", ["message_open", "report_held", "delivery_waiting"])
def test_what_waits_is_read_from_its_index(
    store: Store, reader: Reader, store_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of what waits do not look at what is settled."""
    ran: list[tuple[str, Any]] = []
    stream = Reader.stream

    def spy(reader: Reader, statement: str, *parameters: Any) -> Any:
        ran.append((statement, parameters))
        return stream(reader, statement, *parameters)

    monkeypatch.setattr(Reader, "stream", spy)
    reader.unsettled()
    reader.pending()
    reader.queued()
    sqlite = store_url.startswith("sqlite")
    plans = []
    with reader.snapshot() as snapshot:
        for statement, values in ran:
            explain = ("EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN ") + spoken(statement, sqlite)
            plans += [str(row[-1]) for row in snapshot.exec_driver_sql(explain, values)]
    assert any(name in line for line in plans)
