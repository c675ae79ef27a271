"""What the tests of links share: a machine that says what it is told to, and a handler that remembers."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from labbridge.links.stream import WireProtocol
from labbridge.wire.events import Abandoned, Answer, Event, Received, Sent, Write
from tests.loop import Loop


class Script:
    """A machine: each segment is a message, each settled token is written as an answer; ``says`` overrides."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.says: list[Event] | None = None
        self.tokens = 0

    def receive(self, data: bytes, now: float) -> list[Event]:
        self.calls.append(("receive", data, now))
        self.tokens += 1
        return self.says if self.says is not None else [Received(self.tokens, data)]

    def tick(self, now: float) -> list[Event]:
        self.calls.append(("tick", now))
        self.deadline = None
        return [Write(b"tick")]

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        self.calls.append(("send", token, payload, now))
        return [Write(payload), Sent(token)]

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        self.calls.append(("settle", token, answer, now))
        return [Write(b"ack%d" % token)]

    def closed(self, now: float) -> list[Event]:
        self.calls.append(("closed", now))
        return [Write(b"never"), Abandoned("closed")]

    def pause(self) -> list[Event]:
        self.calls.append(("pause",))
        return []

    def resume(self) -> list[Event]:
        self.calls.append(("resume",))
        return []


class Handler:
    """Remembers what it was called with, and does ``then`` on every event."""

    def __init__(self, then: Callable[[WireProtocol, Event], None] = lambda link, event: None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.links: list[WireProtocol] = []
        self.then = then

    def opened(self, link: WireProtocol) -> None:
        self.calls.append(("opened",))
        self.links.append(link)

    def event(self, link: WireProtocol, event: Event) -> None:
        self.calls.append(("event", event))
        self.then(link, event)

    def closed(self, link: WireProtocol, why: str) -> None:
        self.calls.append(("closed", why))

    def refused(self, host: str, why: str) -> None:
        self.calls.append(("refused", host, why))

    @property
    def received(self) -> bytes:
        return b"".join(call[1].payload for call in self.calls if isinstance(call[-1], Received))


def read_all(sock: socket.socket, loop: Loop, size: int) -> bytes:
    """Reads ``size`` bytes while the loop turns."""
    got = bytearray()
    sock.setblocking(False)

    def more() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(sock.recv(1 << 16))
        return len(got) >= size

    loop.until(more)
    return bytes(got)
