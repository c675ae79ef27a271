"""What stands around the facts is proven too: the noted head, the schema and its version, the file and its pages."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from labbridge.store import Link, Reader, Store, StoreError, StoreUnavailable, verify
from labbridge.store.integrity import is_damage
from labbridge.store.ledger import START, follow, last_link, skip
from labbridge.store.schema import HEAD

from .support import behind, open_ready, received


@pytest.fixture
def filled(store_url: str) -> str:
    store = Store(store_url)
    open_ready(store)
    for number in range(5):
        store.call(lambda tx: received(tx, f"S{number}"))  # noqa: B023 (run at once)
    assert store.close()
    return store_url


def problems(url: str, head: Link | None = None) -> list[str]:
    reader = Reader(url)
    found = verify(reader, head=head).problems
    reader.close()
    return found


def heads(url: str) -> list[Link]:
    with behind(url) as connection:
        return [Link(row[0], bytes(row[1])) for row in connection.exec_driver_sql("SELECT sequence, hash FROM ledger ORDER BY 1")]


def test_a_noted_head_is_found_again(filled: str) -> None:
    for head in heads(filled):
        assert problems(filled, head) == []
    assert len(heads(filled)) == 5


def test_a_chain_that_was_written_anew_is_found_by_a_noted_head(filled: str) -> None:
    """By itself it is sound."""
    noted = heads(filled)
    place = "?" if filled.startswith("sqlite") else "%s"
    with behind(filled) as connection:
        link = START
        for entry in connection.exec_driver_sql("SELECT * FROM ledger ORDER BY sequence").all():
            before, link = link, follow(link, entry.writer, entry.at + 1, entry.facts)
            statement = f"UPDATE ledger SET at = at + 1, previous = {place}, hash = {place} WHERE sequence = {entry.sequence}"
            connection.exec_driver_sql(statement, (before.hash, link.hash))
    assert problems(filled) == []
    assert problems(filled, noted[2]) == ["ledger entry 3 is not the one that was noted: the chain was written anew"]


def test_an_end_that_was_cut_off_is_found_by_a_noted_head(filled: str) -> None:
    noted = heads(filled)
    with behind(filled) as connection:
        connection.exec_driver_sql("DELETE FROM ledger WHERE sequence = 5")
        for table in ("message", "report", "decision", "delivery", "attempt", "audit"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE id = 5")
    assert problems(filled) == []
    assert problems(filled, noted[4]) == ["the ledger ends at entry 4, before the noted 5: its end was cut off"]


def test_the_head_of_the_writer_is_the_end_of_the_chain(store_url: str) -> None:
    """Before and after each commit, and after it was opened again."""
    for round in range(3):
        store = Store(store_url)
        open_ready(store)
        for _ in range(3):
            store.call(received)
        store.call(lambda tx: None)
        head = store.head
        assert store.close()
        assert head.sequence == 3 * (round + 1)
        assert (heads(store_url)[-1].hash, str(head)) == (head.hash, f"{head.sequence}:{head.hash.hex()}")
    assert problems(store_url) == []


@pytest.mark.parametrize("length", [1, 2, 3, 8, 21, 64, 100])
def test_every_entry_knows_its_way_back(length: int) -> None:
    links, rows = [START], {}
    for _ in range(length):
        links.append(follow(links[-1], "main", 1, b""))
        assert links[-1].back is not None
        assert links[-1].back[:2] == links[skip(len(links) - 1)][:2]
        rows[links[-1].sequence] = links[-1].hash

    def read(statement: str) -> tuple[object] | None:
        return (length,) if "max" in statement else (rows[int(statement.rpartition(" ")[2])],)

    again = last_link(read)
    assert follow(again, "main", 1, b"") == follow(links[-1], "main", 1, b"")


@pytest.mark.parametrize(
    ("statement", "name"), [("DROP INDEX report_held", "report_held"), ("ALTER TABLE attempt ADD COLUMN more text", "attempt")]
)
def test_another_schema_is_found(new_url: str, statement: str, name: str) -> None:
    """A table of somebody else's in the same PostgreSQL database is nobody's business."""
    store = Store(new_url)
    open_ready(store)
    assert store.close()
    if not new_url.startswith("sqlite"):
        with behind(new_url) as connection:
            connection.exec_driver_sql("CREATE TABLE another (a int)")
    assert problems(new_url) == []
    with behind(new_url) as connection:
        connection.exec_driver_sql(statement)
    [found] = problems(new_url)
    assert found.startswith("the schema is not this version's: ")
    assert name in found


def test_another_version_of_the_schema_is_found(new_url: str) -> None:
    store = Store(new_url)
    open_ready(store)
    assert store.close()
    for statement, version in (
        ("UPDATE alembic_version SET version_num = '1001'", "1001"),
        ("DELETE FROM alembic_version", "gone"),
    ):
        with behind(new_url) as connection:
            connection.exec_driver_sql(statement)
        assert problems(new_url) == [f"the schema's version is {version}, expected {HEAD}"]


def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """A page of nothing, an empty file and another's: told in words, not as a crash."""
    url, file = f"sqlite:///{tmp_path}/lab.db", tmp_path / "lab.db"
    store = Store(url)
    store.open()
    store.call(received)
    assert store.close()
    whole = file.read_bytes()
    for page in range(1, len(whole) // 4096):
        file.write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
        assert problems(url), page
    file.write_bytes(whole[:-4096])
    assert any("cut" in one or "damaged" in one for one in problems(url))
    file.write_bytes(b"another's" * 5000)
    assert any("damaged" in one for one in problems(url))
    file.write_bytes(b"")
    assert problems(url)
    file.write_bytes(whole)
    assert problems(url) == []


@pytest.mark.parametrize("at", [18, 20, 27, 31, 47, 59, 60, 68, 80, 95])
def test_the_fields_of_the_files_header_are_held_against_what_they_must_be(tmp_path: Path, at: int) -> None:
    url, file = f"sqlite:///{tmp_path}/lab.db", tmp_path / "lab.db"
    store = Store(url)
    store.open()
    assert store.close()
    whole = bytearray(file.read_bytes())
    whole[at] ^= 4
    file.write_bytes(whole)
    assert problems(url)


def test_a_copy_that_sqlite_made_is_whole(tmp_path: Path) -> None:
    """`VACUUM INTO` writes one without the mark of a write-ahead log; labbridge puts it back when it opens the copy."""
    store = Store(f"sqlite:///{tmp_path}/lab.db")
    store.open()
    store.call(received)
    with contextlib.closing(sqlite3.connect(tmp_path / "lab.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
    assert store.close()
    assert (tmp_path / "copy.db").read_bytes()[18:20] == b"\x01\x01"
    assert problems(f"sqlite:///{tmp_path}/copy.db") == []


def test_a_store_that_is_away_is_no_problem_of_its_content() -> None:
    assert not is_damage(StoreUnavailable("the store x: connection refused"))
    assert is_damage(StoreError("the store x: database disk image is malformed"))
    with pytest.raises(StoreError, match="there is no store"):
        verify(Reader("sqlite:////nowhere/lab.db"))
