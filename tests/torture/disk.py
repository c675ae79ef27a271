"""What a disk may hold after a power cut, from one trace of what was done to its files.

A write is certain once an fsync of its file that began after it has returned. Of the writes since then any may be there, in
part, or not, sector by sector of 512 bytes; a file may have got longer without its data, which then reads as zeros. The
names in a folder are certain after the folder's fsync; by the milder of two rules (that of a journaling file system) also
after an fsync of the file that was made, and in the order in which they were made.

``Disk`` walks through a trace; at any position it makes an ``Image``: the contents of all files, as one throw of dice has it.
"""

import pickle
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from tests.torture.tracer import Call

SECTOR = 512
Image = dict[str, bytes]  # by name
Write = tuple[int, bytes]  # offset and bytes
CHANGES = ("write", "truncate")
NAMING = ("create", "unlink", "rename")


class TraceError(Exception):
    """The trace cannot be believed."""


def load(file: Path) -> list[Call]:
    """The calls of a trace, in the order in which they returned; raises TraceError when it is not whole."""
    calls = []
    with file.open("rb") as stream:
        while not calls or calls[-1].kind != "end":
            try:
                calls.append(Call(*pickle.load(stream)))
            except (EOFError, pickle.UnpicklingError):
                raise TraceError("the tracer did not come to its end") from None
    if unknown := {call.name for call in calls if call.kind == "unknown"}:
        raise TraceError(f"these calls are not modelled: {sorted(unknown)}")
    return [call for call in calls if not call.name.endswith("-shm")]  # rebuilt by whoever opens the store


class File:
    """One file (not its name): what is certain of it, and what is not yet."""

    def __init__(self, content: bytes = b"") -> None:
        self.certain = bytearray(content)
        self.loose: list[Call] = []
        self.synced = False

    def sync(self, sync: Call) -> None:
        """What had been done when the fsync began is certain now."""
        self.synced = True
        for call in self.loose:
            if call.returned < sync.entered:
                _apply(self.certain, call)
        self.loose = [call for call in self.loose if call.returned >= sync.entered]

    def fail(self, sync: Call) -> None:
        """An fsync failed: what it was to write is lost, and the kernel takes it for written (fsync(2), "Linux notes")."""
        self.loose = [call for call in self.loose if call.returned >= sync.entered]

    def after(self, dice: random.Random, manner: str) -> bytes:
        """What may be found after a power cut."""
        content = bytearray(self.certain)
        sizes = [len(content)]
        for call in self.loose:
            sizes.append(call.offset if call.kind == "truncate" else max(sizes[-1], call.offset + len(call.data)))
        MANNERS[manner](content, self.loose, dice)
        if manner not in ("all", "none") and self.loose and dice.random() < 0.3:
            size = dice.choice(sizes)  # the length came without the data, or the data without the length
            del content[size:]
            content.extend(bytes(size - len(content)))
        return bytes(content)


class Disk:
    """All files of a trace, as they are at a position that only grows; ``base`` was there before it."""

    def __init__(self, calls: list[Call], base: Image | None = None) -> None:
        ours = [call for call in calls if call.kind in (*CHANGES, *NAMING, "sync", "syncdir", "failed")]
        self._events = sorted((_counts(call), call) for call in ours)
        self._next = 0
        self._files: dict[int, File] = {}  # by inode; a number that is used again is a new file
        self._names = {name: File(content) for name, content in (base or {}).items()}
        self._naming: list[tuple[Call, File | None]] = []  # not certain yet

    def advance(self, position: int) -> None:
        """Everything before this position has happened: entered, or returned in the case of an fsync."""
        while self._next < len(self._events) and self._events[self._next][0] < position:
            self._happen(self._events[self._next][1])
            self._next += 1

    def _happen(self, call: Call) -> None:
        if call.kind == "create":
            self._files[call.subject] = File()
        if call.kind in NAMING:
            self._naming.append((call, self._files.get(call.subject)))
        elif call.kind == "syncdir":
            self._name(sum(named.returned < call.entered for named, _ in self._naming))
        elif call.kind == "sync":
            self._file(call).sync(call)
        elif call.kind == "failed":
            self._file(call).fail(call)
        else:
            self._file(call).loose.append(call)

    def _file(self, call: Call) -> File:
        if call.subject not in self._files:
            if call.name not in self._names:
                raise TraceError(f"{call.name} was there before the trace began")
            self._files[call.subject] = self._names[call.name]
        return self._files[call.subject]

    def _name(self, count: int) -> None:
        """So many of the loose names are certain now."""
        for call, file in self._naming[:count]:
            _rename(self._names, call, file)
        del self._naming[:count]

    def image(self, dice: random.Random, manner: str = "") -> Image:
        """What a power cut now may leave; every file in a manner of its own, unless told."""
        names = dict(self._names)
        for call, file in self._kept_names(dice, manner):
            _rename(names, call, file)
        return {name: file.after(dice, manner or _any_manner(dice)) for name, file in sorted(names.items())}

    def everything(self) -> Image:
        """What the files hold at the end of the trace, as long as the power stays."""
        self.advance(self._events[-1][0] + 1)
        return self.image(random.Random(0), "all")

    def _kept_names(self, dice: random.Random, manner: str) -> Iterator[tuple[Call, File | None]]:
        loose = self._naming
        if manner == "all":
            yield from loose
        elif dice.random() < 0.5:  # a journaling file system: in order, and never fewer than a synced file needs
            needed = [index for index, (call, file) in enumerate(loose, 1) if call.kind == "create" and file and file.synced]
            yield from loose[: max(dice.randint(0, len(loose)), *needed, 0)]
        else:
            lost: set[str] = set()
            for call, file in loose:
                paths = set(call.name.split("\0"))
                if paths & lost or dice.random() < 0.5:
                    lost |= paths
                else:
                    yield call, file


def _rename(names: dict[str, File], call: Call, file: File | None) -> None:
    if call.kind == "create" and file is not None:
        names[call.name] = file
    elif call.kind == "unlink":
        names.pop(call.name, None)
    elif call.kind == "rename":
        old, new = call.name.split("\0")
        if old in names:
            names[new] = names.pop(old)


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == "truncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
    else:
        _put(content, call.offset, call.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


# -- manners of losing -------------------------------------------------------------------------------------------------


def _none(content: bytearray, loose: list[Call], dice: random.Random) -> None:
    """Nothing had left the cache."""


def _all(content: bytearray, loose: list[Call], dice: random.Random) -> None:
    """Everything had left the cache."""
    for call in loose:
        _apply(content, call)


def _prefix(content: bytearray, loose: list[Call], dice: random.Random) -> None:
    """In order, up to one write that is torn."""
    count = dice.randint(0, len(loose))
    _all(content, loose[:count], dice)
    if count < len(loose) and (last := loose[count]).kind == "write":
        for offset, data in _sectors(last)[: dice.randint(0, len(last.data) // SECTOR + 1)]:
            _put(content, offset, data)


def _subset(content: bytearray, loose: list[Call], dice: random.Random) -> None:
    """Whole writes, any of them, later ones without earlier ones."""
    share = dice.choice((0.1, 0.5, 0.9))
    _all(content, [call for call in loose if dice.random() < share], dice)


def _torn(content: bytearray, loose: list[Call], dice: random.Random) -> None:
    """Any sectors, each as it was after any of the writes to it."""
    share = dice.choice((0.1, 0.5, 0.9, 0.99))
    kept: dict[int, bool] = {}
    latest: dict[int, int] = {}  # a sector's last write that is there
    touching: dict[int, int] = {}
    for call in loose:
        for offset, _ in _sectors(call) if call.kind == "write" else ():
            touching[offset // SECTOR] = touching.get(offset // SECTOR, 0) + 1
    for sector, count in touching.items():
        kept[sector] = dice.random() < share
        latest[sector] = (count if dice.random() < 0.7 else dice.randint(0, count)) if kept[sector] else 0
    seen: dict[int, int] = {}
    for call in loose:
        if call.kind == "truncate":
            _apply(content, call)
            continue
        for offset, data in _sectors(call):
            sector = offset // SECTOR
            seen[sector] = seen.get(sector, 0) + 1
            if seen[sector] <= latest[sector]:
                _put(content, offset, data)


def _sectors(call: Call) -> list[Write]:
    """A write, cut where sectors begin."""
    cuts = range(SECTOR - call.offset % SECTOR, len(call.data), SECTOR)
    edges = [0, *cuts, len(call.data)]
    return [(call.offset + start, call.data[start:end]) for start, end in pairwise(edges) if start < end]


MANNERS: dict[str, Callable[[bytearray, list[Call], random.Random], None]] = {
    "none": _none,
    "all": _all,
    "prefix": _prefix,
    "subset": _subset,
    "torn": _torn,
}


def _any_manner(dice: random.Random) -> str:
    return dice.choices(tuple(MANNERS), (30, 10, 20, 20, 20))[0]


# -- where the power may fail -------------------------------------------------------------------------------------------


def boundaries(calls: list[Call]) -> list[int]:
    """Before and after each durable step: an fsync, a naming, a truncation, what is said on a socket.

    Of positions between which nothing happens there is one. The writes themselves are the many points between.
    """
    steps = ("sync", "syncdir", "failed", "truncate", *NAMING, "sent")
    happen = sorted((_counts(call), call.kind in steps) for call in calls if call.kind != "open")
    after = [(before + 1, step) for before, step in happen]  # of one event is before the next
    pairs = zip([happen[0], *after], [*happen, after[-1]], strict=True)
    return sorted({position for (position, step), (_, following) in pairs if step or following})


def _counts(call: Call) -> int:
    """The position from which a call makes a difference: what must have ended counts from its end."""
    return call.returned if call.kind in ("sync", "syncdir", "failed", "received") else call.entered
