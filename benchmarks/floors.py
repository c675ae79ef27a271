"""The floors beneath labbridge, each the least that could be done on the same link library and database.

    floors.py bare             a Twisted MLLP acknowledger that stores nothing
    floors.py frames           a Twisted LIS01 receiver that acknowledges every frame and stores nothing
    floors.py sqlite FILE      the same, and each message is committed to SQLite before its acknowledgement leaves

The last commits in groups: a batch is whatever arrived while the last one was committing (WAL, synchronous=FULL, one
writer thread). Listens on a free port of the loopback and prints ``{"port": ...}``; at SIGTERM ``{"messages": ...}``.
"""

import json
import queue
import sqlite3
import sys
import threading
import time
from typing import Any, ClassVar

from twisted.internet import protocol, reactor

START, END = b"\x0b", b"\x1c\r"
ENQ, ACK = b"\x05", b"\x06"
ANSWER = START + b"MSH|^~\\&|FLOOR|LAB|||20250107093015||ACK^R01|%s|P|2.3.1\rMSA|AA|%s\r" + END


class Bare:
    """One connection; acknowledges each block as soon as it is whole."""

    messages: ClassVar[int] = 0

    def __init__(self) -> None:
        self.buffer = b""
        self.twisted: Any = protocol.Protocol()
        self.twisted.connectionMade = lambda: self.twisted.transport.setTcpNoDelay(True)
        self.twisted.dataReceived = self.data

    def data(self, data: bytes) -> None:
        """Takes bytes in any segmentation."""
        self.buffer += data
        while (end := self.buffer.find(END)) >= 0:
            block, self.buffer = self.buffer[:end], self.buffer[end + len(END) :]
            self.received(block[block.find(START) + 1 :])

    def received(self, message: bytes) -> None:
        """One whole message is here."""
        self.acknowledge(message)

    def acknowledge(self, message: bytes) -> None:
        """Answers AA, straight to the socket as labbridge does: so short an answer always finds room there."""
        Bare.messages += 1
        control_id = message.split(b"|", 10)[9]
        self.twisted.transport.writeSomeData(ANSWER % (control_id, control_id))


class Stored(Bare):
    """Acknowledges each block after its commit."""

    waiting: ClassVar["queue.SimpleQueue[tuple[Stored, bytes]]"] = queue.SimpleQueue()

    def received(self, message: bytes) -> None:
        """Gives the message to the writer."""
        self.waiting.put((self, message))


class Frames(Bare):
    """Acknowledges ENQ and each frame, unread, once its line feed is there."""

    def data(self, data: bytes) -> None:
        """Takes bytes; the sender waits for each answer."""
        Bare.messages += data.count(ENQ)
        if data.endswith((ENQ, b"\n")):
            self.twisted.transport.writeSomeData(ACK)


def write(file: str) -> None:
    """The writer thread: takes all that waits, commits it, has it acknowledged."""
    base = sqlite3.connect(file, isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("PRAGMA synchronous = FULL")
    base.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL)")
    waiting = Stored.waiting
    while True:
        batch = [waiting.get()]
        while not waiting.empty():
            batch.append(waiting.get())
        now = time.time()
        base.execute("BEGIN IMMEDIATE")
        base.executemany("INSERT INTO message (at, body) VALUES (?, ?)", [(now, message) for _, message in batch])
        base.execute("COMMIT")
        reactor.callFromThread(settle, batch)


def settle(batch: list[tuple[Stored, bytes]]) -> None:
    """Acknowledges what is durable."""
    for link, message in batch:
        link.acknowledge(message)


def main() -> None:
    """Runs the floor that the command line names until SIGTERM."""
    link = {"bare": Bare, "frames": Frames, "sqlite": Stored}[sys.argv[1]]
    factory = protocol.Factory()
    factory.noisy = False
    factory.buildProtocol = lambda _: link().twisted
    if link is Stored:
        threading.Thread(target=write, args=(sys.argv[2],), daemon=True).start()
    port = reactor.listenTCP(0, factory, backlog=256, interface="127.0.0.1")
    print(json.dumps({"port": port.getHost().port}), flush=True)
    reactor.run()
    print(json.dumps({"messages": Bare.messages}), flush=True)


if __name__ == "__main__":
    main()
