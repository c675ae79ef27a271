"""The console's process under watch: real processes that die, hang, refuse to end, on a reactor turned by hand."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labbridge import watching
from labbridge.config.settings import Address, Console, ConsoleTls
from labbridge.watching import Watcher
from tests import loop as loops
from tests.loop import Loop

loop = loops.loop  # a fixture
ON = Console(listen=Address("127.0.0.1", 1))
# Says that it lives ten times a second, until its input ends; writes down who it was and what became of it.
LIVES = """
import os, select, signal, sys
folder = sys.argv[1]
def ends(*_):
    open(f"{folder}/{os.getpid()}.asked", "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, ends)
open(f"{folder}/{os.getpid()}", "w").close()
while not select.select([0], [], [], 0.1)[0]:
    os.write(1, b".")
"""
DIES = "import sys; open(sys.argv[1] + '/died', 'a').write('x'); sys.exit(3)"
SILENT = "import os, sys, time; open(f'{sys.argv[1]}/{os.getpid()}', 'w').close(); time.sleep(600)"
STUBBORN = LIVES.replace("signal.signal(signal.SIGTERM, ends)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


class Stand:
    """A watcher at work, and the processes it started."""

    def __init__(self, loop: Loop, folder: Path, script: str) -> None:
        self.loop, self.folder = loop, folder
        self.watcher = Watcher([sys.executable, "-I", "-c", script, str(folder)], loop)

    def started(self) -> list[int]:
        """Every process that ever ran, in order."""
        files = [file for file in self.folder.iterdir() if file.name.isdigit()]
        return [int(file.name) for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]

    def alive(self) -> list[int]:
        return [number for number in self.started() if Path(f"/proc/{number}").exists()]

    def running(self, count: int = 1) -> int:
        """Waits until the so many-th process runs."""
        self.loop.until(lambda: len(self.started()) >= count and self.watcher.state == "running")
        [number] = self.alive()
        return number


@pytest.fixture
def stand(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Stand]]:
    """Makes a watcher whose seconds are quick; whatever it started is gone in the end."""
    monkeypatch.setattr(watching, "TICK_S", 0.05)
    monkeypatch.setattr(watching, "STOP_S", 0.5)
    monkeypatch.setattr(watching, "SILENT_TICKS", 20)
    made: list[Stand] = []

    def make(script: str) -> Stand:
        made.append(Stand(loop, tmp_path, script))
        return made[0]

    yield make
    made[0].watcher.want(None)
    loop.until(lambda: made[0].watcher.idle)
    assert made[0].alive() == []
    assert not made[0].watcher._ticking.running


def test_one_that_was_killed_is_back(stand: Any) -> None:
    it = stand(LIVES)
    assert it.watcher.state == "off"
    it.watcher.want(ON)
    assert it.watcher.state == "starting"
    first = it.running()
    it.loop.until(lambda: it.watcher._beats > watching.STAYS_TICKS)
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    assert it.running(2) != first
    assert time.monotonic() - began < 5


def test_one_that_was_stopped_is_killed(stand: Any) -> None:
    """A stopped console could keep a read transaction, and so the write-ahead log, for ever."""
    it = stand(LIVES)
    it.watcher.want(ON)
    first = it.running()
    os.kill(first, signal.SIGSTOP)
    it.running(2)
    assert not Path(f"/proc/{first}").exists()


def test_one_that_never_says_anything_is_killed(stand: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "START_TICKS", 10)
    it = stand(SILENT)
    it.watcher.want(ON)
    it.loop.until(lambda: len(it.started()) >= 2)
    assert it.watcher.state == "starting"


def test_one_that_cannot_live_is_tried_ever_more_rarely(stand: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "AGAIN_LONGEST_S", 0.8)
    it = stand(DIES)
    it.watcher.want(ON)
    pauses = []
    for _ in range(4):
        it.loop.until(lambda: it.watcher.state == "down")
        pauses.append(it.watcher._later.getTime() - it.loop.seconds())
        it.loop.until(lambda: it.watcher.state == "starting")
    assert [round(pause, 1) for pause in pauses] == [0.2, 0.5, 0.8, 0.8]
    it.watcher.want(None)


def test_it_is_asked_to_end_and_ends(stand: Any) -> None:
    it = stand(LIVES)
    it.watcher.want(ON)
    number = it.running()
    it.watcher.want(None)
    assert not it.watcher.idle
    it.loop.until(lambda: it.watcher.idle)
    assert (it.folder / f"{number}.asked").exists()
    assert it.watcher.state == "off"
    assert it.started() == [number]


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_does_not_end_is_killed(stand: Any, stopped: bool) -> None:
    it = stand(STUBBORN)
    it.watcher.want(ON)
    number = it.running()
    if stopped:
        os.kill(number, signal.SIGSTOP)
    it.watcher.want(None)
    it.loop.until(lambda: it.watcher.idle)
    assert it.alive() == []


def test_other_settings_start_it_again_and_the_same_do_not(stand: Any, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    for file in (certificate, key):
        file.write_text("old")
    it = stand(LIVES)
    it.watcher.want(ON)
    first = it.running()
    it.watcher.want(Console(listen=Address("127.0.0.1", 1)))
    assert it.running() == first
    secure = Console(listen=ON.listen, tls=ConsoleTls(certificate, key))
    it.watcher.want(secure)
    second = it.running(2)
    certificate.write_text("renewed")
    it.watcher.want(secure)
    assert it.running(3) not in (first, second)
    it.watcher.want(Console())
    it.loop.until(lambda: it.watcher.idle)
    it.watcher.want(ON)
    it.running(4)


def test_it_is_not_started_again_when_nobody_wants_it_any_more(stand: Any) -> None:
    it = stand(DIES)
    it.watcher.want(ON)
    it.loop.until(lambda: it.watcher.state == "down")
    it.watcher.want(None)
    assert it.watcher.idle
    died = (it.folder / "died").read_text()
    end = time.monotonic() + 0.6
    it.loop.until(lambda: time.monotonic() > end)
    assert (it.folder / "died").read_text() == died
