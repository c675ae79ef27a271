"""The ledger finds whatever was changed behind the store's back."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, LargeBinary, Table, Text, delete, insert, select, update

from labbridge.store import Reader, Store, Transaction, verify
from labbridge.store.engine import parse, writing
from labbridge.store.proving import Verification
from labbridge.store.schema import FACTS, ledger

from .support import behind, open_ready, received

COVERED = [(fact.table, fact.table.c[name]) for fact in FACTS for name in fact.columns]
COVERED += [(table, column) for table in {fact.table for fact in FACTS} for column in table.c if column.name == "body"]
COVERED += [(ledger, column) for column in ledger.c]


def _verify(url: str) -> Verification:
    reader = Reader(url)
    result = verify(reader)
    reader.close()
    return result


def _flip(connection: Connection, table: Table, column: "Column[Any]", row: int = 0) -> None:
    """Change one bit of one value."""
    key = next(iter(table.primary_key.columns))
    id, value = connection.execute(select(key, column).order_by(key)).all()[row]
    if isinstance(column.type, LargeBinary):
        value = bytes([value[0] ^ 1]) + value[1:]
    elif isinstance(column.type, Text):
        value = chr(ord(value[0]) ^ 1) + value[1:] if value else "x"
    else:
        value ^= 1 << 20
    connection.execute(update(table).where(key == id).values({column: value}))


@pytest.fixture
def filled(store_url: str) -> str:
    """A store with three transactions."""
    store = Store(store_url)
    open_ready(store)
    for _ in range(3):
        store.call(lambda tx: [received(tx, "S1"), received(tx, "S2")])
    assert store.close()
    return store_url


def test_an_untouched_store_has_no_problems(filled: str) -> None:
    progress: list[tuple[int, int]] = []
    reader = Reader(filled)
    result = verify(reader, lambda done, total: progress.append((done, total)))
    reader.close()
    assert (result.facts, result.transactions, result.problems) == (6 * 6 + 1, 3, [])
    assert result.head.sequence == 3
    assert progress[-1] == (3, 3)


def test_a_flipped_bit_is_found_in_every_column(filled: str) -> None:
    """One changed bit in any immutable column of any fact, or in the ledger itself, is named."""
    engine, reader = writing(parse(filled)), Reader(filled)
    for table, column in COVERED:
        with engine.begin() as connection:
            before = connection.execute(select(table)).all()
            _flip(connection, table, column)
        found = verify(reader).problems
        assert found, f"{table.name}.{column.name}"
        assert found[0].startswith("ledger entry" if table is ledger else table.name)
        with engine.begin() as connection:
            connection.execute(delete(table))
            connection.execute(insert(table), [dict(row._mapping) for row in before])
    assert verify(reader).problems == []
    reader.close()
    engine.dispose()


def test_states_and_spool_are_not_covered(filled: str) -> None:
    store = Store(filled)
    open_ready(store)
    before = _verify(filled)
    store.call(lambda tx: (tx.set_report_state(1, "held"), tx.set_delivery_state(1, "refused")))
    store.call(lambda tx: tx.spool("a", "xn-1", b"1"))
    assert store.close()
    assert _verify(filled) == before


def test_a_removed_fact_and_an_added_one_are_found(filled: str) -> None:
    """Of every table: what is gone is missed, and what nobody stored is noticed."""
    expected: set[str] = set()
    with behind(filled) as connection:
        for fact in FACTS:
            name, table = fact.table.name, fact.table
            row = dict(connection.execute(select(table).where(table.c.id == 1)).one()._mapping)
            connection.execute(delete(table).where(table.c.id == 1))
            others = [
                row | {"id": id, "digest": str(id).encode()} if table.name == "revision" else row | {"id": id} for id in (-1, 99)
            ]
            connection.execute(insert(table), others)
            expected |= {f"{name} -1 is in no ledger entry", f"{name} 99 is in no ledger entry", f"{name} 1 is missing"}
    assert set(_verify(filled).problems) == expected


def test_a_removed_entry_is_found(filled: str) -> None:
    with behind(filled) as connection:
        connection.execute(delete(ledger).where(ledger.c.sequence == 2))
    found = _verify(filled)
    assert found.problems[0] == "ledger entry 2 is missing"
    assert len(found.problems) > 1
    with behind(filled) as connection:
        connection.execute(delete(ledger))
    assert len(_verify(filled).problems) == 6 * 6 + 1


def test_an_entry_of_unknown_facts_is_found(filled: str) -> None:
    with behind(filled) as connection:
        facts = connection.execute(select(ledger.c.facts).where(ledger.c.sequence == 2)).scalar_one()
        connection.execute(update(ledger).where(ledger.c.sequence == 2).values(facts=b"\x63" + facts[1:] + b"short"))
    problems = _verify(filled).problems
    assert "ledger entry 2 was changed" in problems
    assert "ledger entry 2 lists a fact of an unknown kind" in problems


def test_problems_are_told_up_to_a_number(filled: str) -> None:
    with behind(filled) as connection:
        for number in range(150):
            connection.exec_driver_sql(f"INSERT INTO revision VALUES ({number + 50}, 1, '{number}', '')")
    assert len(_verify(filled).problems) == 100


def test_bytes_that_are_no_text_are_found(tmp_path: Path) -> None:
    """SQLite may hold bytes that are no UTF-8 where text belongs, and the reverse: that is a change, not a crash."""
    url = f"sqlite:///{tmp_path}/labbridge.db"
    store = Store(url)
    store.open()
    store.call(received)
    assert store.close()
    with behind(url) as connection:
        connection.exec_driver_sql("UPDATE report SET patient = CAST(x'ff41' AS TEXT), at = 'when'")
        connection.exec_driver_sql("UPDATE message SET body = 'text'")
    assert sorted(_verify(url).problems) == ["message 1 was changed", "report 1 was changed"]


_KINDS: dict[str, Callable[[Transaction, bytes], int]] = {
    "message": lambda tx, data: tx.message(direction="in", analyzer=data.hex(), kind="stored", body=data),
    "audit": lambda tx, data: tx.audit(actor="a", action="b", subject=data.decode("latin-1")),
    "attempt": lambda tx, data: tx.attempt(delivery_id=len(data), outcome="AA", reply=data),
    "all": lambda tx, data: received(tx, data.hex()),
}
_FACT = st.tuples(st.sampled_from(sorted(_KINDS)), st.binary(max_size=8), st.booleans())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "labbridge.db"
    store = Store(f"sqlite:///{path}")
    store.open()
    assert store.close()
    return path


@pytest.fixture
def copies(empty: Path, tmp_path: Path) -> Iterator[Callable[[], str]]:
    def copy() -> str:
        shutil.copy(empty, tmp_path / "labbridge.db")
        return f"sqlite:///{tmp_path}/labbridge.db"

    return copy


@given(history=st.lists(st.lists(_FACT, max_size=4), min_size=1, max_size=6), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_history_verifies_and_any_change_is_found(
    copies: Callable[[], str], history: list[list[tuple[str, bytes, bool]]], data: st.DataObject
) -> None:
    """Whatever was stored in whatever groups verifies; whichever row is then changed, moved or removed is found."""
    url = copies()
    store = Store(url)
    store.open()
    for facts in history:

        def job(tx: Transaction, facts: list[tuple[str, bytes, bool]] = facts) -> None:
            for kind, value, flush in facts:
                _KINDS[kind](tx, value)
                if flush:
                    tx.flush()

        store.call(job)
    assert store.close()
    sound = _verify(url)
    assert sound.problems == []
    assert sound.transactions == sum(bool(facts) for facts in history)
    with behind(url) as connection:
        changed = [pair for pair in COVERED if connection.execute(select(pair[1]).limit(1)).first()]
        if not changed:
            return
        table, column = data.draw(st.sampled_from(changed))
        key = next(iter(table.primary_key.columns))
        rows = connection.execute(select(key)).all()
        row = data.draw(st.integers(0, len(rows) - 1))
        if table is not ledger and data.draw(st.booleans()):
            connection.execute(delete(table).where(key == rows[row][0]))
        else:
            _flip(connection, table, column, row)
    assert _verify(url).problems
