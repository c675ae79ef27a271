"""A hospital of the smallest kind: answers AA to every MLLP block with the MSA-2 that belongs to it, and counts.

    sink.py [--port PORT]

Listens on a port of the loopback, a free one by default, and prints ``{"port": ...}``. Each line on standard input is
answered by a line: ``messages``, ``distinct`` (control ids), ``results`` (OBX segments), ``first`` and ``last`` (when the
first and the last message came, on the monotonic clock). Ends with its standard input. Standard library only.
"""

import argparse
import json
import os
import select
import socket
import sys
import time

START, END = b"\x0b", b"\x1c\r"
ANSWER = START + b"MSH|^~\\&|SINK|HIS|LAB|LAB|20250107093015||ACK^R01^ACK|%d|P|2.5.1\rMSA|AA|%s\r" + END


class Sink:
    """The listening socket, the connections with what came of a block so far, the counts."""

    def __init__(self, port: int = 0) -> None:
        self.messages = self.results = 0
        self.first = self.last = 0.0
        self.ids: set[bytes] = set()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.open: dict[int, tuple[socket.socket, bytearray]] = {}

    def run(self) -> None:
        """Serves until standard input ends."""
        epoll = select.epoll()
        epoll.register(self.listener, select.EPOLLIN)
        epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            for number, _ in epoll.poll():
                if number in self.open:
                    self._hear(*self.open[number])
                elif number == self.listener.fileno():
                    sock, _ = self.listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.open[sock.fileno()] = sock, bytearray()
                    epoll.register(sock, select.EPOLLIN)
                elif not os.read(sys.stdin.fileno(), 4096):
                    return
                else:
                    self._report()

    def _report(self) -> None:
        counts = {"messages": self.messages, "distinct": len(self.ids), "results": self.results}
        print(json.dumps(counts | {"first": self.first, "last": self.last}), flush=True)

    def _hear(self, sock: socket.socket, buffer: bytearray) -> None:
        try:
            data = sock.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            del self.open[sock.fileno()]
            sock.close()
            return
        buffer += data
        answers = b""
        while (end := buffer.find(END)) >= 0:
            answers += self._answer(bytes(buffer[buffer.find(START) + 1 : end]))
            del buffer[: end + len(END)]
        if answers:
            sock.sendall(answers)

    def _answer(self, message: bytes) -> bytes:
        control_id = message.split(b"|", 10)[9]
        self.messages += 1
        self.results += message.count(b"\rOBX|")
        self.ids.add(control_id)
        self.last = time.monotonic()
        self.first = self.first or self.last
        return ANSWER % (self.messages, control_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a hospital that accepts everything, loopback only")
    parser.add_argument("--port", type=int, default=0)
    sink = Sink(parser.parse_args().port)
    print(json.dumps({"port": sink.port}), flush=True)
    sink.run()
