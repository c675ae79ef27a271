"""A store's URL is checked when it is named, its place when it is opened."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from labbridge.store import Reader, Store, StoreError
from labbridge.store.engine import parse, writing

from .support import open_ready


@pytest.mark.parametrize(
    "url", ["labbridge.db", "mysql://lab:secret@db/lab", "sqlite://", "sqlite:///:memory:", "sqlite://host/x", "x://:y:z"]
)
def test_a_wrong_url_is_named_with_what_was_expected(url: str) -> None:
    with pytest.raises(StoreError, match="expected sqlite:///FILE") as error:
        Store(url)
    assert "secret" not in str(error.value)


def test_a_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"{tmp_path}/no does not exist: make it"):
        Store(f"sqlite:///{tmp_path}/no/labbridge.db").open()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labbridge.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{path}").open()


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}").open()


def test_reading_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        Reader(f"sqlite:///{tmp_path}/labbridge.db")


def test_a_file_that_is_no_store_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "labbridge.db").touch()
    reader = Reader(f"sqlite:///{tmp_path}/labbridge.db")
    with pytest.raises(StoreError, match="no such table"):
        reader.queued()
    reader.close()


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "labbridge.db.lock").mkdir()
    with pytest.raises(StoreError, match=r"labbridge\.db\.lock cannot be opened"):
        Store(f"sqlite:///{tmp_path}/labbridge.db").open()


@pytest.mark.postgresql
def test_options_of_the_url_are_kept(postgresql_url: str) -> None:
    """What the URL tells the server holds, and commits wait for the disk all the same."""
    store = Store(postgresql_url + "&options=-c%20work_mem%3D5MB&connect_timeout=7")
    open_ready(store)
    settings = "SELECT current_setting('work_mem'), current_setting('synchronous_commit')"
    assert store.call(lambda tx: tx._cursor.execute(settings).fetchall()) == [("5MB", "on")]
    assert store.close()


def test_a_password_is_never_shown() -> None:
    assert "secret" not in Store("postgresql+psycopg://lab:secret@db/lab?password=secret").name


def test_a_new_store_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "labbridge.db"
    store = Store(f"sqlite:///{path}")
    store.open()
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert store.close()
    assert modes.keys() >= {"labbridge.db", "labbridge.db-wal", "labbridge.db.lock"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("size", [4096, 16384])
def test_the_log_has_one_length_whatever_the_size_of_a_page(tmp_path: Path, size: int) -> None:
    """A store keeps the pages that it was made with."""
    file = tmp_path / "lab.db"
    with closing(sqlite3.connect(file)) as base:
        base.executescript(f"PRAGMA page_size={size}; CREATE TABLE made (before)")
    with writing(parse(f"sqlite:///{file}")).connect() as connection:
        pages, found = (connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("wal_autocheckpoint", "page_size"))
    assert (pages * found, found) == (4_096_000, size)
