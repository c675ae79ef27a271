"""A watched folder: whole files become messages, and leave for done/ or failed/ when they are stored.

A thread of its own looks, reads and moves, so that a share that hangs stops no analyzer; messages go up and answers come
down on the reactor's. A file counts when its size and time have stayed the same for ``settle_time``, or when it was
renamed from a name that does not count: one that begins with a dot or ends in .tmp or .part. Subfolders and symbolic
links are not followed; an empty file waits for its contents. Files are taken in the order of their times, then names.

A file is moved after its messages are stored, and only then. With each message goes its place (the file's name, size,
time and inode, and which of its messages it is), stored in the same transaction until the file has left. So what is
stored is not read again, though labbridge die between the two or the file cannot be moved for days; the same bytes in
another file are another matter. Files above ``max_message``, and those that cannot be read three times in a row, go to
failed/.
"""

import contextlib
import heapq
import json
import os
import queue
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace
from twisted.logger import Logger

from labbridge.links.retry import State
from labbridge.links.stream import LinkHandler
from labbridge.wire.events import Answer, Event, Failed, Left, Note, Oversize, Place, Received
from labbridge.wire.excess import Excess

LOOK_S = 1.0
FILES = 10_000  # so many are kept in view at once
AT_ONCE = 16  # messages under way
TRIES = 3  # of a file that cannot be read
PIECE = 1 << 20
FAILED = "failed"
log = Logger()


class Seen(NamedTuple):
    """A file as it was seen: by these it is known to be the same, unchanged."""

    name: str
    size: int
    changed: int  # nanoseconds
    number: int  # of its inode

    @property
    def counts(self) -> bool:
        """Whether a writer may have finished with this name."""
        return not (self.name.startswith(".") or self.name.lower().endswith((".tmp", ".part")))


class FolderLink:
    """What a handler sees of the folder, as of a connection: called on the reactor's thread."""

    machine = None
    repeats = False  # nothing comes again by itself

    def __init__(self, folder: "Folder") -> None:
        self.peer = str(folder.path)
        self._folder = folder
        self.settled: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()  # by token; False: it is not stored
        self.gone = False
        self.free = threading.Event()  # the handler takes more
        self.free.set()

    def settle(self, token: int, answer: Answer) -> None:
        """The store has it."""
        self.settled.put((token, True))

    def send(self, token: int, payload: bytes) -> None:
        """Nobody reads in a folder."""
        self._folder.handler.event(self, Failed(token, "a folder takes no messages"))

    def hold(self) -> None:
        """Takes no more for now."""
        self.free.clear()

    def unhold(self) -> None:
        """Takes more again."""
        self.free.set()

    def close(self, why: str) -> None:
        """Ends: what is not stored yet stays where it is."""
        self._folder.close(why)

    drop = close


class Folder:
    """Watches one folder. ``unframe`` makes a file's messages of its bytes, and of none of them what was odd."""

    def __init__(
        self,
        reactor: Any,
        path: Path,
        unframe: Callable[[bytes], tuple[list[bytes], list[str]]],
        handler: LinkHandler,
        changed: Callable[[State], None],
        *,
        settle_time: float = 2.0,
        max_message: int = 16 << 20,
    ) -> None:
        self.path = path
        self.handler: Any = handler
        self.links: set[FolderLink] = set()  # one, while the folder is there
        self._reactor, self._unframe, self._changed = reactor, unframe, changed
        self._settle_time, self._max_message = settle_time, max_message
        self._failures = 0
        self._closed: str | None = None
        # The thread's own
        self._stopping = threading.Event()
        self._since: dict[int, tuple[Seen, float]] = {}  # by inode: as it is, and since when
        self._stored: dict[Seen, set[str]] = {}  # which parts are, of the files that have not left
        self._tries: dict[str, int] = {}
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether it takes no more files."""
        return self._stopping.is_set()

    def start(self, stored: Mapping[str, Collection[str]] = {}) -> None:
        """Begins to look; what is ``stored``, by the file and part of its ``Place``, is not read again."""
        for file, parts in stored.items():
            path, *seen = json.loads(file)
            if path == str(self.path):
                self._stored[Seen(*seen)] = set(parts)
        threading.Thread(target=self._watch, daemon=True, name=f"folder {self.path.name}").start()

    def stop(self) -> None:
        """Takes no more files; those that are under way are still moved."""
        self._stopping.set()

    def close(self, why: str) -> None:
        """Ends at once."""
        self.stop()
        self._closed = why
        for link in list(self.links):
            self._lost(link, why)

    # -- on the reactor's thread ---------------------------------------------------------------------------------

    def _found(self, link: FolderLink) -> None:
        if self._closed is None:
            self._failures = 0
            self.links.add(link)
            self.handler.opened(link)
            self._changed(State(True, 0))

    def _lost(self, link: FolderLink, why: str) -> None:
        if link in self.links:
            self.links.remove(link)
            self.handler.closed(link, why)
        link.gone = True
        link.free.set()
        link.settled.put((0, False))

    def _down(self, why: str) -> None:
        self._failures += 1
        self._changed(State(False, self._failures, why))

    def _event(self, link: FolderLink, event: Event) -> None:
        try:
            if link in self.links:
                self.handler.event(link, event)
                return
        except Exception:
            log.failure("a fault while a file was handled: it stays where it is")
        if isinstance(event, Received | Oversize):  # the thread waits for its answer
            link.settled.put((event.token, False))

    # -- on the folder's thread ----------------------------------------------------------------------------------

    def _call(self, what: Callable[..., None], *arguments: Any) -> None:
        self._reactor.callFromThread(what, *arguments)

    def _watch(self) -> None:
        link: FolderLink | None = None
        while not self._stopping.is_set():
            try:
                for name in ("done", "failed"):
                    with contextlib.suppress(FileExistsError):
                        (self.path / name).mkdir()
                ready = self._look()
                if link is None:
                    link = FolderLink(self)
                    self._call(self._found, link)
                    self._forget_moved(link)
                for one in ready:
                    if self._stopping.is_set():
                        break
                    self._take(link, one)
            except OSError as error:
                if link is not None:
                    self._call(self._lost, link, f"the folder is gone: {error.strerror}")
                    link = None
                self._call(self._down, f"{self.path}: {error.strerror}")
            except Exception:
                log.failure("a fault while a folder was read")
            self._stopping.wait(LOOK_S)

    def _look(self) -> list[Seen]:
        """The files that count, in their order."""
        now = time.monotonic()
        before, self._since = self._since, {}
        ready = []
        for one in heapq.nsmallest(FILES, self._files(now), key=lambda one: (one.changed, one.name)):
            known, since = before.get(one.number, (one, now))
            if known[1:] != one[1:]:
                since = now
            self._since[one.number] = one, since
            renamed = not known.counts and known[1:] == one[1:]  # an inode alone may be another file's by now
            if now - since >= self._settle_time or renamed:
                ready.append(one)
        return ready

    def _files(self, now: float) -> Iterator[Seen]:
        """Every file that may count; of the others some are remembered, to know them when they are renamed."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                one = Seen(entry.name, *_state(about))
                if not stat.S_ISREG(about.st_mode) or not one.size:
                    continue
                if one.counts:
                    yield one
                elif len(self._since) < FILES:
                    self._since[one.number] = one, now

    def _take(self, link: FolderLink, one: Seen) -> None:
        """One file: read, stored, moved; left where it is when it changed meanwhile, or when the link closed."""
        stored = self._stored.get(one, set())
        if where := _whereto(stored):
            self._move(link, one, where)
            return
        if len(self._stored) >= FILES:  # it waits until some of those can be moved
            return
        try:
            events = self._events(link, one)
        except OSError as error:
            tries = self._tries[one.name] = self._tries.pop(one.name, 0) + 1
            stays = self._move(link, one, FAILED) if tries >= TRIES else None
            if tries == TRIES:
                what = "cannot be moved to failed/ either" if stays else "goes to failed/"
                self._say(link, f"a file cannot be read and {what}: {error.strerror}")
            return
        self._tries.pop(one.name, None)
        if not events:  # it is another by now
            self._forget(link, one)
        left = [event for event in events if event.place is not None and event.place.part not in stored]
        for at in range(0, len(left), AT_ONCE):
            if not self._store(link, one, left[at : at + AT_ONCE]):
                return
        if (where := _whereto(self._stored.get(one, set()))) and (stays := self._move(link, one, where)) is not None:
            self._say(link, f"a file that is stored cannot be moved and stays where it is: {stays.strerror}")

    def _store(self, link: FolderLink, one: Seen, events: list[Received | Oversize]) -> bool:
        """Whether all of these are stored; every answer is waited for, as long as the link is there."""
        link.free.wait()
        waiting = {event.token: event.place.part for event in events if event.place is not None}
        for event in events:
            self._call(self._event, link, event)
        whole = True
        while waiting:
            token, stored = link.settled.get()
            if link.gone:
                return False
            if token in waiting:  # else it comes late, after a fault
                part = waiting.pop(token)
                whole &= stored
                if stored:
                    self._stored.setdefault(one, set()).add(part)
        return whole

    def _events(self, link: FolderLink, one: Seen) -> list[Received | Oversize]:
        """What is in a file; nothing when it is not the one that was seen."""
        file = self._file(one)
        with open(self.path / one.name, "rb", opener=_opener) as opened:
            if one.size > self._max_message:
                excess = Excess()
                while (piece := opened.read(PIECE)) and not self._stopping.is_set():
                    excess.add(piece)
                if excess.length == one.size:
                    self._say(link, "a file is too large and goes to failed/")
                    return [replace(excess.event(self._token()), place=Place(file, FAILED))]
                return []
            data = opened.read(one.size + 1)
            if len(data) != one.size or _state(os.fstat(opened.fileno())) != one[1:]:
                return []
        try:
            messages, odd = self._unframe(data)
        except Exception:
            log.failure("a fault while the messages of a file were told apart: it is taken as one")
            messages, odd = [data], []
        for note in odd:
            self._say(link, note)
        messages = [message for message in messages if message] or [data]
        places = [Place(file, f"{number}/{len(messages)}") for number in range(len(messages))]
        return [Received(self._token(), message, place) for message, place in zip(messages, places, strict=True)]

    def _file(self, one: Seen) -> str:
        """What names this very file, in ASCII."""
        return json.dumps([str(self.path), *one])

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens

    def _say(self, link: FolderLink, what: str) -> None:
        self._call(self._event, link, Note("warning", what))

    def _move(self, link: FolderLink, one: Seen, where: str) -> OSError | None:
        """Moves a file unless it has changed: then it was not finished, and is read again. Why it stays, if it must."""
        file = self.path / one.name
        try:
            if one[1:] == _state(file.stat(follow_symlinks=False)):
                file.rename(free_name(self.path / where / one.name))
        except FileNotFoundError:  # somebody else has moved it
            pass
        except OSError as error:
            return error
        self._forget(link, one)
        self._since.pop(one.number, None)
        self._tries.pop(one.name, None)
        return None

    def _forget(self, link: FolderLink, one: Seen) -> None:
        if self._stored.pop(one, None) is not None:
            for folder in (self.path / "done", self.path / FAILED, self.path):  # lest a power cut brings it back
                _sync(folder)
            self._call(self._event, link, Left(self._file(one)))

    def _forget_moved(self, link: FolderLink) -> None:
        """Those that an earlier run had moved when it died. One that is nowhere may be on a disk that is still to come."""
        for one, parts in list(self._stored.items()):
            with contextlib.suppress(OSError):
                if one[1:] == _state((self.path / (_whereto(parts) or FAILED) / one.name).stat(follow_symlinks=False)):
                    self._forget(link, one)


def _whereto(stored: set[str]) -> str:
    """Where a file goes of which these parts are stored; nowhere while some are not."""
    if FAILED in stored:
        return FAILED
    counts = Counter(part.partition("/")[2] for part in stored)
    return "done" if any(int(whole) == count for whole, count in counts.items()) else ""


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _sync(folder: Path) -> None:
    """Has the disk know which names are in a folder; some shares cannot."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _state(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_size, about.st_mtime_ns, about.st_ino


def free_name(wanted: Path) -> Path:
    """This path, or with a number before the suffix when there is one already."""
    free, number = wanted, time.time_ns() // 1_000_000
    while os.path.lexists(free):
        free = wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")
        number += 1
    return free
