"""Serial lines on a pseudo-terminal: real bytes, settings of the line, a device that is away or taken."""

import contextlib
import fcntl
import os
import pty
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from links_support import Handler, Script
from test_links_wire import store

from labbridge.links import retry
from labbridge.links.retry import State
from labbridge.links.serial import LineSettings, SerialLine
from labbridge.links.stream import CLOSE_TIME_S
from labbridge.wire import Lis01Link, Lis01Settings
from tests.loop import Loop
from tests.support import PATIENCE, frame


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """Our end of a pair, and the device's."""
    made = [*pty.openpty()]
    tty.setraw(made[1])
    yield made
    for end in made:
        os.close(end)


def line(loop: Loop, ends: list[int], handler: Handler, *settings: Any, machine: Any = Script) -> tuple[SerialLine, list[State]]:
    states: list[State] = []
    made = SerialLine(loop, Path(os.ttyname(ends[1])), LineSettings(*settings), machine, handler, states.append)
    made.start()
    return made, states


def read(loop: Loop, end: int, size: int) -> bytes:
    got = bytearray()
    os.set_blocking(end, False)

    def more() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(os.read(end, 1 << 16))
        return len(got) >= size

    loop.until(more)
    return bytes(got)


def test_a_message_passes_over_the_line(loop: Loop, ends: list[int]) -> None:
    """LIS01 from ENQ to EOT, in single bytes, every frame acknowledged."""
    handler = Handler(store)
    made, states = line(loop, ends, handler, machine=lambda: Lis01Link(Lis01Settings()))
    loop.until(lambda: handler.links)
    assert states == [State(True, 0)]
    assert handler.links[0].peer == os.ttyname(ends[1])
    for piece in (b"\x05", frame(1, b"H|\\^&\r"), frame(2, b"L|1|N\r")):
        for at in range(len(piece)):
            os.write(ends[0], piece[at : at + 1])
        assert read(loop, ends[0], 1) == b"\x06"
    assert handler.received == b"H|\\^&\rL|1|N\r"
    made.stop()
    handler.links[0].close("stopping")
    loop.until(lambda: handler.calls[-1] == ("closed", "stopping"))


@pytest.mark.parametrize(("settings", "speed", "bits", "flags"), [
    ((), termios.B9600, termios.CS8, 0),
    ((19200, 7, "E", 2, "none"), termios.B19200, termios.CS7, termios.PARENB | termios.CSTOPB),
    ((4800, 8, "O", 1, "rtscts"), termios.B4800, termios.CS8, termios.PARENB | termios.PARODD | termios.CRTSCTS),
])  # fmt: skip
def test_the_line_is_set(
    loop: Loop, ends: list[int], monkeypatch: pytest.MonkeyPatch, settings: tuple[Any, ...], speed: int, bits: int, flags: int
) -> None:
    """Speed, bits, parity, stop bits and flow control are asked of the system; 9600-8-N-1 when nothing is said."""
    # conformance: A27
    asked: list[Any] = []
    really = termios.tcsetattr
    monkeypatch.setattr(termios, "tcsetattr", lambda *what: (asked.append(what), really(*what))[1])
    handler = Handler()
    made, _ = line(loop, ends, handler, *settings)
    loop.until(lambda: handler.links)
    attributes = asked[-1][2]
    assert attributes[4:6] == [speed, speed]
    mask = termios.CSIZE | termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CRTSCTS
    assert attributes[2] & mask == bits | flags
    made.stop()


def test_a_device_that_is_absent_is_tried_again(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "uniform", lambda low, high: 0.01)
    states: list[State] = []
    handler = Handler()
    device = tmp_path / "ttyUSB0"
    made = SerialLine(loop, device, LineSettings(), Script, handler, states.append)
    made.start()
    loop.until(lambda: len(states) >= 2)
    assert states[0] == State(False, 1, f"{device} is not there")
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    device.symlink_to(os.ttyname(theirs))
    loop.until(lambda: handler.links)
    device.unlink()
    os.close(theirs)
    os.close(ours)
    loop.until(lambda: handler.calls[-1][0] == "closed")
    loop.until(lambda: states[-1].why.endswith("is not there"))
    made.stop()


def test_what_is_no_line_or_taken_is_told(loop: Loop, ends: list[int], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no line")
    states: list[State] = []
    made = SerialLine(loop, file, LineSettings(), Script, Handler(), states.append)
    made.start()
    assert states[0].why.startswith(f"{file} cannot be opened: ")
    made.stop()
    fcntl.flock(ends[1], fcntl.LOCK_EX)
    made, states = line(loop, ends, Handler())
    assert states == [State(False, 1, f"{os.ttyname(ends[1])} is in use by another program")]
    made.stop()


def test_a_stopped_line_that_takes_nothing_is_closed_all_the_same(loop: Loop, ends: list[int]) -> None:
    """What the other side does not read does not keep us: two seconds, then the device is given back."""
    handler = Handler()
    made, _ = line(loop, ends, handler)
    loop.until(lambda: handler.links)
    handler.links[0].send(1, bytes(1_000_000))
    made.stop()
    handler.links[0].close("stopping")
    loop.until(lambda: handler.calls[-1] == ("closed", "stopping"), CLOSE_TIME_S + 5)


def quickly(loop: Loop, done: Callable[[], object]) -> None:
    """Turns the loop until then, and sees that no turn of it waits for the line."""
    end = time.monotonic() + 10
    while not done():
        began = time.monotonic()
        assert began < end
        loop.iterate(0.01)
        assert time.monotonic() - began < 0.5 * PATIENCE


@pytest.mark.parametrize("size", [1, 3000, 1_000_000])
def test_closing_a_line_that_nobody_reads_keeps_the_reactor_free(loop: Loop, ends: list[int], size: int) -> None:
    """Whatever the system and the transport still hold: each turn of the reactor is short, and the device is given back."""
    handler = Handler()
    made, _ = line(loop, ends, handler)
    loop.until(lambda: handler.links)
    handler.links[0].send(1, bytes(size))
    made.stop()
    handler.links[0].close("stopping")
    quickly(loop, lambda: handler.calls[-1] == ("closed", "stopping"))
    again, states = line(loop, ends, Handler())
    loop.until(lambda: states)
    assert states == [State(True, 0)]
    again.stop()


class Held:
    """What the system holds of a line, as the kernel would tell it of a real one; a pseudo-terminal holds nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size, self.said = 5, list[str]()
        really = serial.Serial.reset_output_buffer
        monkeypatch.setattr(serial.Serial, "out_waiting", property(lambda port: self.size))

        def drop(port: serial.Serial) -> None:
            self.said.append("dropped")
            self.size = 0
            really(port)

        monkeypatch.setattr(serial.Serial, "flushOutput", drop)


@pytest.fixture
def closing(loop: Loop, ends: list[int], monkeypatch: pytest.MonkeyPatch) -> tuple[Handler, Held]:
    """A line that was told to close with an answer in it: its handler, and what the system holds of it."""
    handler = Handler()
    made, _ = line(loop, ends, handler)
    loop.until(lambda: handler.links)
    held = Held(monkeypatch)
    handler.links[0].send(1, b"answer")
    made.stop()
    handler.links[0].close("stopping")
    return handler, held


def test_an_answer_that_still_leaves_is_waited_for_and_the_reactor_never_is(
    loop: Loop, ends: list[int], closing: tuple[Handler, Held]
) -> None:
    """A close in good order comes when the system holds nothing more, and drops nothing."""
    handler, held = closing
    for _ in range(20):
        loop.iterate(0.02)
    assert handler.calls[-1][0] != "closed"
    held.size = 0
    quickly(loop, lambda: handler.calls[-1] == ("closed", "stopping"))
    assert held.said == []
    assert read(loop, ends[0], 6) == b"answer"


def test_what_does_not_leave_in_time_is_dropped_before_the_device_is_closed(
    loop: Loop, ends: list[int], closing: tuple[Handler, Held]
) -> None:
    """For the system's close would wait for it: after two seconds, and when the reactor itself ends everything."""
    handler, held = closing
    quickly(loop, lambda: handler.calls[-1] == ("closed", "stopping"))
    assert held.said == ["dropped"]
    other = Handler()
    line(loop, ends, other)
    loop.until(lambda: other.links)
    held.size, held.said = 5, []
    loop.disconnectAll()
    assert other.calls[-1][0] == "closed"
    assert held.said == ["dropped"]


def test_a_line_that_cannot_be_locked_is_given_back(loop: Loop, ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the lock fails with: the device is closed, and told."""
    locked: list[int] = []

    def flock(number: int, how: int) -> None:
        locked.append(number)
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    made, states = line(loop, ends, Handler())
    made.stop()
    assert "No locks available" in states[0].why
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(locked[0])
