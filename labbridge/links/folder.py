"""A watched folder: whole files become messages, and leave for done/ or failed/ when they are stored.

A thread of its own looks, reads and moves, so that a share that hangs stops no analyzer; messages go up and answers come
down on the reactor's. A file counts when its size and time have stayed the same for ``settle_time``, or when it was
renamed from a name that does not count: one that begins with a dot or ends in .tmp or .part. Subfolders and symbolic
links are not followed; an empty file waits for its contents. Files are taken in the order of their times, then names.

A file is moved after its messages are stored, and only then. Should labbridge die between the two, the file is read
again, in the very same bytes: what that makes of it is for the store's rule about duplicates. Files above
``max_message``, and those that cannot be read three times in a row, go to failed/.
"""

import heapq
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import Logger

from labbridge.links.retry import State
from labbridge.links.stream import LinkHandler
from labbridge.wire.events import Answer, Event, Failed, Note, Oversize, Received
from labbridge.wire.excess import Excess

LOOK_S = 1.0
FILES = 10_000  # so many are kept in view at once
AT_ONCE = 16  # messages under way
TRIES = 3  # of a file that cannot be read
PIECE = 1 << 20
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
        self._stored: dict[str, tuple[Seen, str]] = {}  # those that could not be moved, and whereto
        self._tries: dict[str, int] = {}
        self._tokens = 0

    def start(self) -> None:
        """Begins to look."""
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
                    (self.path / name).mkdir(exist_ok=True)
                ready = self._look()
                if link is None:
                    link = FolderLink(self)
                    self._call(self._found, link)
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
        file = self.path / one.name
        stored, where = self._stored.get(one.name, (None, ""))
        if stored == one:
            self._move(one, where)
            return
        try:
            events = self._events(link, file, one)
        except OSError as error:
            tries = self._tries[one.name] = self._tries.pop(one.name, 0) + 1
            stays = self._move(one, "failed") if tries >= TRIES else None
            if tries == TRIES:
                what = "cannot be moved to failed/ either" if stays else "goes to failed/"
                self._say(link, f"a file cannot be read and {what}: {error.strerror}")
            return
        self._tries.pop(one.name, None)
        if not events:
            return
        for at in range(0, len(events), AT_ONCE):
            link.free.wait()
            for event in events[at : at + AT_ONCE]:
                self._call(self._event, link, event)
            if not self._settled(link, {event.token for event in events[at : at + AT_ONCE]}):
                return
        where = "failed" if isinstance(events[0], Oversize) else "done"
        if (stays := self._move(one, where)) is not None:
            self._say(link, f"a file that is stored cannot be moved and stays where it is: {stays.strerror}")
            if len(self._stored) >= FILES:
                self._stored.clear()
            self._stored[one.name] = one, where

    def _settled(self, link: FolderLink, tokens: set[int]) -> bool:
        """Whether all of these are stored; every answer is waited for, as long as the link is there."""
        whole = True
        while tokens:
            token, stored = link.settled.get()
            if link.gone:
                return False
            if token in tokens:  # else it comes late, after a fault
                tokens.remove(token)
                whole &= stored
        return whole

    def _events(self, link: FolderLink, file: Path, one: Seen) -> Sequence[Received | Oversize]:
        """What is in a file; nothing when it is not the one that was seen."""
        with open(file, "rb", opener=_opener) as opened:
            if one.size > self._max_message:
                excess = Excess()
                while (piece := opened.read(PIECE)) and not self._stopping.is_set():
                    excess.add(piece)
                if excess.length == one.size:
                    self._say(link, "a file is too large and goes to failed/")
                    return [excess.event(self._token())]
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
        return [Received(self._token(), message) for message in messages if message] or [Received(self._token(), data)]

    def _token(self) -> int:
        self._tokens += 1
        return self._tokens

    def _say(self, link: FolderLink, what: str) -> None:
        self._call(self._event, link, Note("warning", what))

    def _move(self, one: Seen, where: str) -> OSError | None:
        """Moves a file unless it has changed: then it was not finished, and is read again. Why it stays, if it must."""
        file = self.path / one.name
        try:
            if one[1:] != _state(file.stat(follow_symlinks=False)):
                return None
            file.rename(free_name(self.path / where / one.name))
        except OSError as error:
            return error
        self._stored.pop(one.name, None)
        self._since.pop(one.number, None)
        self._tries.pop(one.name, None)
        return None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _state(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_size, about.st_mtime_ns, about.st_ino


def free_name(wanted: Path) -> Path:
    """This path, or with a number before the suffix when there is one already."""
    free, number = wanted, time.time_ns() // 1_000_000
    while os.path.lexists(free):
        free = wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")
        number += 1
    return free
