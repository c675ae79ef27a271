"""Every changed bit of a store's file is found; here sixty of them, in `python -m tests.torture.bits` as many as wanted."""

from pathlib import Path

from labbridge.store import Reader, Store, verify
from tests.torture.bits import Pages, run


def test_every_changed_bit_is_found(tmp_path: Path) -> None:
    assert run(60, 11, tmp_path) == []


def test_what_belongs_to_something_is_nearly_all_of_a_small_store(tmp_path: Path) -> None:
    """The map of a file is right where all that was stored is in it: no body stands outside."""
    file = tmp_path / "lab.db"
    store = Store(f"sqlite:///{file}")
    store.open()
    bodies = [bytes([65 + number]) * (700 * 4**number) for number in range(5)]
    for body in bodies:
        store.call(lambda tx: tx.message(direction="in", analyzer="a", kind="stray", body=body, state="open"))  # noqa: B023
    assert store.close()
    data = file.read_bytes()
    used = b"".join(data[begin:end] for begin, end in Pages(file).used())
    assert all(used.count(body[:1]) >= len(body) for body in bodies)
    reader = Reader(f"sqlite:///{file}")
    assert verify(reader).problems == []
    reader.close()
