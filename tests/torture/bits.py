"""Changes single bits of a store's file, at random, and asks `labbridge verify` each time whether it sees them.

    python -m tests.torture.bits 1000 SEED

A store of some hundred chains is made, closed and copied; in the copy one bit is changed that belongs to something: the
file's header, a page's header, its list of cells, a cell, an overflow page or a trunk of the list of free pages. Bits of
room that nothing uses hold no data and are left out, as are those that ``IGNORED`` names. Exit status 1 when one is
not found.
"""

import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from labbridge.states import States
from labbridge.store import Reader, Store, StoreError, verify
from labbridge.store.retention import step
from tests.torture.fill import fill

# Of the header: the schema cookie, and the SQLite library that wrote last. They say nothing of what is stored.
IGNORED = {*range(40, 44), *range(96, 100)}

_INNER, _TABLE = (0x02, 0x05), (0x05, 0x0D)
Range = tuple[int, int]  # of bytes in the file


class Pages:
    """The pages of a SQLite file, and which of their bytes belong to something (fileformat2.html, 1.6)."""

    def __init__(self, file: Path) -> None:
        self.data = file.read_bytes()
        self.size = int.from_bytes(self.data[16:18], "big")
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            self.roots = [1, *(row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE rootpage"))]
        connection.close()

    def used(self) -> Iterator[Range]:
        """What belongs to something."""
        yield 0, 100
        for root in self.roots:
            yield from self._tree(root)
        trunk = int.from_bytes(self.data[32:36], "big")
        while trunk:
            at = (trunk - 1) * self.size
            yield at, at + 8 + 4 * self._number(at + 4)
            trunk = self._number(at)

    def _number(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self.data[at : at + size], "big")

    def _tree(self, page: int) -> Iterator[Range]:
        start = (page - 1) * self.size
        head = start + (100 if page == 1 else 0)
        kind, cells = self.data[head], self._number(head + 3, 2)
        first = head + (12 if kind in _INNER else 8)
        yield head, first + 2 * cells
        if kind in _INNER:
            yield from self._tree(self._number(head + 8))
        for number in range(cells):
            yield from self._cell(kind, start + self._number(first + 2 * number, 2))

    def _cell(self, kind: int, at: int) -> Iterator[Range]:
        begin = at
        if kind in _INNER:
            yield from self._tree(self._number(at))
            at += 4
        if kind == 0x05:
            _, at = self._varint(at)
            yield begin, at
            return
        length, at = self._varint(at)
        if kind == 0x0D:
            _, at = self._varint(at)
        most = self.size - 35 if kind in _TABLE else (self.size - 12) * 64 // 255 - 23
        if length <= most:
            yield begin, at + length
            return
        least = (self.size - 12) * 32 // 255 - 23
        here = least + (length - least) % (self.size - 4)
        here = here if here <= most else least
        yield begin, at + here + 4
        yield from self._overflow(self._number(at + here), length - here)

    def _overflow(self, page: int, left: int) -> Iterator[Range]:
        while left > 0:
            at = (page - 1) * self.size
            here = min(left, self.size - 4)
            yield at, at + 4 + here
            left, page = left - here, self._number(at)

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for place in range(9):
            byte = self.data[at + place]
            if place == 8:
                return value << 8 | byte, at + 9
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, at + place + 1
        raise AssertionError


def make(file: Path) -> None:
    """A store with a few hundred chains, some of them deleted by retention, one larger than a page; closed."""
    url = f"sqlite:///{file}"
    fill(url, 1000)
    fill(url, 100, begin=201, at=1_700_000_001_000_000, tests=300)
    store = Store(url)
    store.open()
    store.call(lambda tx: tx.message(direction="in", analyzer="xn-1", kind="stray", body=bytes(100_000), state="open"))
    store.call(lambda tx: step(tx, 0, 1_700_000_000_500_000))
    assert store.close()


def change(file: Path, draw: random.Random, places: list[int]) -> tuple[int, int]:
    """Changes one bit; gives byte and bit."""
    at, bit = draw.choice(places), draw.randrange(8)
    with file.open("r+b") as opened:
        opened.seek(at)
        [before] = opened.read(1)
        opened.seek(at)
        opened.write(bytes([before ^ 1 << bit]))
    return at, bit


def found(file: Path) -> bool:
    """Whether `labbridge verify` would tell of a problem."""
    try:
        reader = Reader(f"sqlite:///{file}")
        try:
            return bool(verify(reader, states=States()).problems)
        finally:
            reader.close()
    except StoreError:
        return True


def run(count: int, seed: int, folder: Path) -> list[tuple[int, int]]:
    """Changes so many bits, one at a time; gives those that were not found."""
    whole, copy = folder / "whole.db", folder / "copy.db"
    make(whole)
    assert not found(whole)
    places = sorted({at for begin, end in Pages(whole).used() for at in range(begin, end)} - IGNORED)
    draw, missed = random.Random(seed), []
    for _ in range(count):
        shutil.copy(whole, copy)
        at, bit = change(copy, draw, places)
        if not found(copy):
            missed.append((at, bit))
    return missed


if __name__ == "__main__":
    number, start = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as made:
        left = run(number, start, Path(made))
        print(f"{number} bits changed, {number - len(left)} found (seed {start})", *left)
    sys.exit(bool(left))
