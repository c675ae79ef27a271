"""The cost of a message does not grow with what is stored: every look-up has its index."""

from typing import Any

import pytest

from labbridge.store import Reader, Store
from labbridge.store.engine import parse, writing
from labbridge.store.statements import Statements

from .support import received


@pytest.mark.parametrize(
    "name",
    [
        "history",
        "decisions",
        "report",
        "reports_of",
        "delivery",
        "deliveries_of",
        "incomplete",
        "revision",
        "set_message",
        "set_report",
        "set_delivery",
        "clear_spool",
    ],
)
def test_no_look_up_reads_a_whole_table(store: Store, store_url: str, name: str) -> None:
    store.call(lambda tx: [received(tx, f"S{number}") for number in range(50)])
    engine = writing(parse(store_url))
    sql = getattr(Statements(engine.dialect), name)
    texts, numbers = ("[]", "[]") if engine.dialect.name == "sqlite" else ([], [])
    known: dict[str, tuple[Any, ...]] = {
        "history": (texts,),
        "decisions": (numbers,),
        "reports_of": ("S1", "S1"),
        "incomplete": ("xn-1",),
        "revision": (b"r",),
        "clear_spool": ("a",),
    }
    parameters = known.get(name, ("open", 1) if name.startswith("set") else (1,))
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        plan = [str(row[-1]) for row in connection.exec_driver_sql(explain + sql, parameters)]
    engine.dispose()
    wanted = ("SCAN wanted VIRTUAL TABLE", "Function Scan on unnest wanted")
    assert not [line for line in plan if ("SCAN " in line or "Seq Scan" in line) and not line.strip(" ->").startswith(wanted)]


@pytest.mark.parametrize("name", ["message_open", "report_held", "delivery_waiting"])
def test_what_waits_is_counted_from_its_index(store: Store, reader: Reader, store_url: str, name: str) -> None:
    """The live figures read only the partial indices."""
    from labbridge.store.reader import _COUNTS, _WAITING

    if not store_url.startswith("sqlite"):
        explain = "EXPLAIN "
    else:
        explain = "EXPLAIN QUERY PLAN "
    with reader.snapshot() as snapshot:
        plans = [str(row[-1]) for sql in (_COUNTS, _WAITING) for row in snapshot.exec_driver_sql(explain + sql.text)]
    assert any(name in line for line in plans)
