"""Watched folders: what counts as a whole file, what is moved when, what a handler hears."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from links_support import Handler

from labbridge.links import folder as folders
from labbridge.links.folder import Folder, FolderLink, Seen, free_name
from labbridge.links.retry import State
from labbridge.wire.events import Answer, Event, Failed, Left, Note, Oversize, Place, Received
from tests.loop import Loop

YES = Answer(True)


class Inbox:
    """A folder that is watched quickly; ``store`` False leaves everything unsettled."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop, self.path, self.store = loop, path, True
        self.states: list[State] = []
        self.handler = Handler(self._settle)
        self.odd: list[str] = []
        self.folder = Folder(loop, path, self._unframe, self.handler, self.states.append, settle_time=0.05, max_message=1000)

    def _unframe(self, data: bytes) -> tuple[list[bytes], list[str]]:
        if data == b"fault":
            raise ZeroDivisionError
        return data.split(b"\x1c"), self.odd

    def _settle(self, link: Any, event: Event) -> None:
        if isinstance(event, Received | Oversize) and self.store:
            link.settle(event.token, YES)

    def put(self, name: str, data: bytes, age: int = 0) -> Path:
        file = self.path / name
        file.write_bytes(data)
        if age:
            os.utime(file, (2e9 - age, 2e9 - age))
        return file

    def start(self) -> None:
        self.folder.start()
        self.loop.until(lambda: self.handler.links)

    def names(self, where: str) -> list[str]:
        return sorted(os.listdir(self.path / where))

    def until(self, done: Callable[[], object]) -> None:
        self.loop.until(done)

    @property
    def got(self) -> list[bytes]:
        return [call[1].payload for call in self.handler.calls if isinstance(call[-1], Received)]


@pytest.fixture
def inbox(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    monkeypatch.setattr(folders, "LOOK_S", 0.01)
    before = set(threading.enumerate())
    path = tmp_path / "inbox"
    path.mkdir()
    made = Inbox(loop, path)
    yield made
    made.folder.close("the test is over")
    loop.until(lambda: not set(threading.enumerate()) - before)


def test_files_are_taken_in_the_order_of_their_times_then_names(inbox: Inbox) -> None:
    for name, age in (("c", 5), ("b", 9), ("a", 5), ("d", 1)):  # "a" and "c" have the same time
        inbox.put(name, name.encode(), age)
    inbox.start()
    inbox.until(lambda: len(inbox.names("done")) == 4)
    assert inbox.got == [b"b", b"a", b"c", b"d"]
    assert inbox.handler.calls[0] == ("opened",)
    assert inbox.handler.links[0].peer == str(inbox.path)
    assert inbox.states == [State(True, 0)]


def test_a_file_is_moved_only_when_all_of_it_is_stored(inbox: Inbox) -> None:
    """Forty messages go up, sixteen at a time; the file stays until the last is settled."""
    inbox.store = False
    inbox.put("many", b"\x1c".join(b"%d" % number for number in range(40)))
    inbox.start()
    inbox.until(lambda: len(inbox.got) == folders.AT_ONCE)
    link = inbox.handler.links[0]
    for first, count in ((1, 32), (17, 40)):
        for token in range(first, first + 16):
            link.settle(token, YES)
        inbox.until(lambda count=count: len(inbox.got) == count)
    assert inbox.names("done") == []
    for token in range(33, 41):
        link.settle(token, YES)
    inbox.until(lambda: inbox.names("done") == ["many"])
    assert inbox.got == [b"%d" % number for number in range(40)]


def test_a_held_folder_sends_no_more(inbox: Inbox) -> None:
    inbox.put("first", b"1", 5)
    inbox.start()
    inbox.until(lambda: inbox.names("done") == ["first"])
    link = inbox.handler.links[0]
    link.hold()
    inbox.put("second", b"2")
    for _ in range(30):
        inbox.loop.iterate(0.01)
    assert inbox.got == [b"1"]
    link.unhold()
    inbox.until(lambda: inbox.got == [b"1", b"2"])


def test_a_closed_folder_moves_nothing_that_is_not_stored(inbox: Inbox) -> None:
    inbox.store = False
    inbox.put("waits", b"1")
    inbox.start()
    inbox.until(lambda: inbox.got)
    inbox.folder.stop()
    inbox.handler.links[0].close("stopping")
    assert inbox.handler.calls[-1] == ("closed", "stopping")
    assert (inbox.path / "waits").exists()


def test_what_cannot_be_told_apart_is_taken_as_one(inbox: Inbox) -> None:
    """A fault of ours loses no file; what is odd is noted; nothing can be sent into a folder."""
    inbox.odd = ["odd"]
    inbox.put("a", b"fault", 5)
    inbox.put("b", b"\x1c\x1c", 4)
    inbox.start()
    inbox.until(lambda: len(inbox.names("done")) == 2)
    assert inbox.got == [b"fault", b"\x1c\x1c"]
    assert ("event", Note("warning", "odd")) in inbox.handler.calls
    inbox.handler.links[0].send(3, b"x")
    assert inbox.handler.calls[-1] == ("event", Failed(3, "a folder takes no messages"))


def test_a_file_above_the_limit_is_kept_in_part_and_fails(inbox: Inbox) -> None:
    inbox.put("big", b"x" * 1001)
    inbox.put("fits", b"y" * 1000)
    inbox.start()
    inbox.until(lambda: inbox.names("failed") == ["big"] and inbox.names("done") == ["fits"])
    [big] = [call[1] for call in inbox.handler.calls if isinstance(call[-1], Oversize)]
    assert (big.length, big.head) == (1001, b"x" * 1001)


def test_a_file_that_cannot_be_read_fails_after_three_tries(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""
    tries: list[str] = []

    def opener(path: str, flags: int) -> int:
        if str(path).endswith("bad"):
            tries.append(path)
            raise PermissionError(13, "Permission denied")
        return os.open(path, flags)

    monkeypatch.setattr(folders, "_opener", opener)
    inbox.put("bad", b"1", 5)
    inbox.put("good", b"2")
    inbox.start()
    inbox.until(lambda: inbox.names("failed") == ["bad"] and inbox.names("done") == ["good"])
    assert len(tries) == 3
    told = Note("warning", "a file cannot be read and goes to failed/: Permission denied")
    inbox.until(lambda: ("event", told) in inbox.handler.calls)


def test_a_stored_file_that_cannot_be_moved_is_not_read_again(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, and moved when that is possible."""
    really = Path.rename
    locked = [True]

    def rename(self: Path, target: Path) -> Path:
        if locked:
            raise PermissionError(13, "Permission denied")
        return really(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    inbox.put("stays", b"1")
    inbox.start()
    inbox.until(lambda: inbox.got)
    for _ in range(30):
        inbox.loop.iterate(0.01)
    assert inbox.got == [b"1"]
    assert len([call for call in inbox.handler.calls if isinstance(call[-1], Note)]) == 1
    locked.clear()
    inbox.until(lambda: inbox.names("done") == ["stays"])
    assert inbox.got == [b"1"]


def test_what_is_stored_of_a_file_is_not_read_again(inbox: Inbox) -> None:
    """Of three messages the first was stored before a crash: the others follow, the file leaves and is forgotten."""
    about = inbox.put("three", b"1\x1c2\x1c3").stat()
    whole = inbox.put("whole", b"4\x1c5").stat()
    big = inbox.put("big", bytes(1001)).stat()
    named = {
        name: json.dumps([str(inbox.path), name, state.st_size, state.st_mtime_ns, state.st_ino])
        for name, state in (("three", about), ("whole", whole), ("big", big))
    }
    inbox.folder.start({named["three"]: ["0/3"], named["whole"]: ["1/2", "0/2"], named["big"]: ["failed"]})
    inbox.until(lambda: sum(isinstance(call[-1], Left) for call in inbox.handler.calls) == 3)
    assert inbox.got == [b"2", b"3"]
    assert inbox.names("done") == ["three", "whole"]
    assert inbox.names("failed") == ["big"]
    assert {call[-1].file for call in inbox.handler.calls if isinstance(call[-1], Left)} == set(named.values())


@pytest.mark.parametrize("other", ["path", "name", "size", "time", "inode"])
def test_another_file_is_read_whatever_else_it_shares(inbox: Inbox, other: str) -> None:
    """One that differs in anything from what is stored is not that file."""
    state = inbox.put("x", b"1").stat()
    known = {"path": str(inbox.path), "name": "x", "size": 1, "time": state.st_mtime_ns, "inode": state.st_ino}
    known[other] = "other" if isinstance(known[other], str) else int(known[other]) + 1
    inbox.folder.start({json.dumps([*known.values()]): ["0/1"]})
    inbox.until(lambda: inbox.names("done") == ["x"] if (inbox.path / "done").exists() else False)
    assert inbox.got == [b"1"]


def test_what_an_earlier_run_has_moved_is_forgotten(inbox: Inbox) -> None:
    """It died between the move and the word of it; what is nowhere is kept in mind, for its disk may still come."""
    state = inbox.put("x", b"1").stat()
    (inbox.path / "done").mkdir()
    (inbox.path / "x").rename(inbox.path / "done" / "x")
    moved = json.dumps([str(inbox.path), "x", state.st_size, state.st_mtime_ns, state.st_ino])
    nowhere = json.dumps([str(inbox.path), "y", 1, 2, 3])
    inbox.folder.start({moved: ["0/1"], nowhere: ["0/1"]})
    inbox.until(lambda: any(isinstance(call[-1], Left) for call in inbox.handler.calls))
    for _ in range(10):
        inbox.loop.iterate(0.01)
    assert [call[-1] for call in inbox.handler.calls if isinstance(call[-1], Left)] == [Left(moved)]
    assert inbox.got == []


def test_a_file_is_forgotten_only_when_its_move_survives_a_power_cut(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it would be there again, and read again. A share that knows no such sync is taken as it is."""
    really, synced = os.fsync, []

    def fsync(opened: int) -> None:
        really(opened)
        left = any(isinstance(call[-1], Left) for call in inbox.handler.calls)
        synced.append((Path(os.readlink(f"/proc/self/fd/{opened}")).name, (inbox.path / "done" / "x").exists(), left))
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    inbox.put("x", b"1")
    inbox.start()
    inbox.until(lambda: any(isinstance(call[-1], Left) for call in inbox.handler.calls))
    assert synced == [("done", True, False), ("failed", True, False), ("inbox", True, False)]


def test_every_message_tells_its_place(inbox: Inbox) -> None:
    state = inbox.put("x", b"1\x1c2").stat()
    inbox.start()
    inbox.until(lambda: len(inbox.got) == 2)
    file = json.dumps([str(inbox.path), "x", state.st_size, state.st_mtime_ns, state.st_ino])
    places = [call[-1].place for call in inbox.handler.calls if isinstance(call[-1], Received)]
    assert places == [Place(file, "0/2"), Place(file, "1/2")]


def test_a_file_that_grew_while_it_was_read_is_read_again(inbox: Inbox) -> None:
    """What was not finished does not leave; the whole of it follows."""
    inbox.store = False
    file = inbox.put("grows", b"1")
    inbox.start()
    inbox.until(lambda: inbox.got)
    with file.open("ab") as more:
        more.write(b"23")
    inbox.store = True
    inbox.handler.links[0].settle(1, YES)
    inbox.until(lambda: inbox.names("done") == ["grows"])
    assert inbox.got == [b"1", b"123"]


def test_a_folder_that_is_gone_is_an_outage(inbox: Inbox) -> None:
    inbox.start()
    moved = inbox.path.with_name("elsewhere")
    inbox.path.rename(moved)
    inbox.until(lambda: len(inbox.states) >= 3)
    assert inbox.states[1] == State(False, 1, f"{inbox.path}: No such file or directory")
    assert inbox.handler.calls[-1] == ("closed", "the folder is gone: No such file or directory")
    moved.rename(inbox.path)
    inbox.until(lambda: inbox.states[-1] == State(True, 0))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("a.hl7", True), ("a.tmp.hl7", True), (".a.hl7", False), ("a.TMP", False), ("a.part", False), ("apart", True)],
)
def test_which_names_count(name: str, counts: bool) -> None:
    assert Seen(name, 1, 1, 1).counts == counts


def test_a_number_makes_a_name_free(tmp_path: Path) -> None:
    """Before the suffix, and never one that is there."""
    made = set()
    for _ in range(20):
        file = free_name(tmp_path / "result.hl7")
        assert not file.exists()
        file.touch()
        made.add(file.name)
    assert len(made) == 20
    assert all(name.startswith("result.") and name.endswith(".hl7") for name in made)


def test_a_handler_that_fails_leaves_the_file(inbox: Inbox) -> None:
    """Its fault is logged, the file stays and is tried again."""
    faults = [ZeroDivisionError()]
    settle = inbox.handler.then

    def then(link: Any, event: Event) -> None:
        if faults and isinstance(event, Received):
            raise faults.pop()
        settle(link, event)

    inbox.handler.then = then
    inbox.put("again", b"1")
    inbox.start()
    inbox.until(lambda: inbox.names("done") == ["again"])
    assert inbox.got == [b"1", b"1"]
    assert isinstance(inbox.handler.links[0], FolderLink)


def test_a_file_that_was_never_read_is_never_done(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable, and failed/ takes it not: told once, tried again, and read when that is possible."""
    bad = [True]

    def opener(path: str, flags: int) -> int:
        if bad:
            raise PermissionError(13, "Permission denied")
        return os.open(path, flags)

    really = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.parent.name == "failed":
            raise PermissionError(13, "Permission denied")
        return really(self, target)

    monkeypatch.setattr(folders, "_opener", opener)
    monkeypatch.setattr(Path, "rename", rename)
    inbox.put("bad", b"1")
    inbox.start()
    for _ in range(30):
        inbox.loop.iterate(0.01)
    assert inbox.names("done") == []
    notes = [call[1].what for call in inbox.handler.calls if isinstance(call[-1], Note)]
    assert notes == ["a file cannot be read and cannot be moved to failed/ either: Permission denied"]
    bad.clear()
    inbox.until(lambda: inbox.names("done") == ["bad"])
    assert inbox.got == [b"1"]


def test_an_inode_used_again_is_no_rename(inbox: Inbox) -> None:
    """Only the very file that was seen under a name that does not count is whole at once."""
    inbox.folder._settle_time = 1000.0
    inbox.put(".other", b"1")
    inbox.put(".same", b"22")
    assert inbox.folder._look() == []
    (inbox.path / ".other").rename(inbox.path / "other")
    inbox.put("other", b"half of", 5)
    (inbox.path / ".same").rename(inbox.path / "same")
    assert [one.name for one in inbox.folder._look()] == ["same"]


def test_a_message_that_is_not_stored_leaves_no_answer_to_the_next_file(inbox: Inbox) -> None:
    """Of three messages the first is a fault, the others are settled: the next file waits for answers of its own."""
    faults = [ZeroDivisionError()]
    settle = inbox.handler.then

    def then(link: Any, event: Event) -> None:
        if faults and isinstance(event, Received):
            raise faults.pop()
        if isinstance(event, Received) and event.payload != b"next":
            settle(link, event)

    inbox.handler.then = then
    inbox.put("many", b"1\x1c2\x1c3", 5)
    inbox.put("next", b"next", 1)
    inbox.start()
    inbox.until(lambda: b"next" in inbox.got)
    for _ in range(30):
        inbox.loop.iterate(0.01)
    assert "next" not in inbox.names("done")


def test_what_comes_to_a_link_that_is_gone_is_answered(inbox: Inbox) -> None:
    """The folder's thread waits for no answer that nobody gives."""
    link = FolderLink(inbox.folder)
    inbox.folder._event(link, Received(7, b"1"))
    inbox.folder._event(link, Note("warning", "no answer to this"))
    assert link.settled.get(timeout=1) == (7, False)
    assert link.settled.empty()
