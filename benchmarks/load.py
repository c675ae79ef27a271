"""A closed-loop load generator on loopback: each connection sends a message, waits for its answer, sends the next.

    load.py w1|w2 PORT [--connections N] [--seconds S] [--first NUMBER]

W1 goes over MLLP, W2 over LIS01. Prints one JSON line: ``messages`` (acknowledged), ``refused``, ``lost`` (connections
that ended before their answer), ``p50_ms``, ``p99_ms`` of the acknowledgement, ``began`` and ``ended`` on the monotonic
clock that all processes share, ``next`` (the number after the last message: a warm-up is a run before, and the next run
goes on from there). MLLP: from sending to the whole acknowledgement; LIS01: from ENQ to the ACK of the last frame.
Standard library only, one process, one epoll.
"""

import argparse
import json
import select
import socket
import time
from collections.abc import Callable, Generator, Iterator

from workloads import ACK, END, ENQ, EOT, w1, w2

clock = time.monotonic
GRACE = 35.0  # seconds after the end in which an answer may still come
Record = Callable[[float, bool], None]  # when the message began, whether it was accepted
Conversation = Generator[bytes, bytes, bytes]  # yields what to send, is sent what came; returns its last word


def mllp(numbers: Iterator[int], record: Record) -> Conversation:
    """W1 on one connection: a block out, an acknowledgement in."""
    for number in numbers:
        message = w1(number)
        began = clock()
        answer = yield message
        while not answer.endswith(END):
            answer += yield b""
        record(began, b"\rMSA|AA|" in answer or b"\rMSA|CA|" in answer)
    return b""


def lis01(numbers: Iterator[int], record: Record) -> Conversation:
    """W2 on one connection: ENQ, then frame by frame, then EOT. A message with an answer other than ACK is given up."""
    before = b""
    for number in numbers:
        frames = w2(number)
        began = clock()
        answer = yield before + ENQ
        for frame in frames:
            if answer != ACK:
                break
            answer = yield frame
        record(began, answer == ACK)
        before = EOT
    return before


CONVERSATIONS = {"w1": mllp, "w2": lis01}


class Load:
    """All connections of one run."""

    def __init__(self, workload: str, port: int, connections: int, seconds: float, first: int) -> None:
        self.next = first
        self.messages = self.refused = self.lost = 0
        self.times: list[float] = []
        self.epoll = select.epoll()
        self.open: dict[int, tuple[socket.socket, Conversation]] = {}
        for _ in range(connections):
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            except OSError:
                self.lost += 1
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.open[sock.fileno()] = sock, CONVERSATIONS[workload](self._numbers(), self._record)
            self.epoll.register(sock, select.EPOLLIN)
        self.began = self.ended = clock()
        self.until = self.began + seconds

    def _numbers(self) -> Iterator[int]:
        while clock() < self.until:
            self.next += 1
            yield self.next - 1

    def _record(self, began: float, accepted: bool) -> None:
        self.ended = clock()
        if not accepted:
            self.refused += 1
            return
        self.messages += 1
        self.times.append(self.ended - began)

    def run(self) -> None:
        """Talks until the time is up and the last answers are in."""
        for sock, conversation in list(self.open.values()):
            self._say(sock, next(conversation))
        while self.open and (left := self.until + GRACE - clock()) > 0:
            for number, _ in self.epoll.poll(left):
                self._hear(*self.open[number])
        self.lost += len(self.open)
        for sock, _ in self.open.values():
            sock.close()

    def _hear(self, sock: socket.socket, conversation: Conversation) -> None:
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        try:
            if data:
                self._say(sock, conversation.send(data))
                return
            self.lost += 1
        except StopIteration as end:
            self._say(sock, end.value)
        del self.open[sock.fileno()]
        sock.close()

    def _say(self, sock: socket.socket, data: bytes) -> None:
        try:
            sent = sock.send(data) if data else 0
        except OSError:  # the next read says what has become of the connection
            return
        if sent < len(data):
            sock.settimeout(GRACE)
            sock.sendall(data[sent:])
            sock.setblocking(False)

    def result(self) -> dict[str, float]:
        """What was counted and timed."""
        times = sorted(self.times) or [0.0]
        share = {"p50_ms": 0.5, "p99_ms": 0.99}
        counts = {"messages": self.messages, "refused": self.refused, "lost": self.lost}
        when = {"began": self.began, "ended": self.ended, "next": self.next}
        return counts | {name: round(times[int((len(times) - 1) * q)] * 1e3, 3) for name, q in share.items()} | when


def main() -> None:
    """Runs the load that the command line asks for."""
    parser = argparse.ArgumentParser(description="closed-loop load generator, loopback only")
    parser.add_argument("workload", choices=CONVERSATIONS)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=0)
    load = Load(**vars(parser.parse_args()))
    load.run()
    print(json.dumps(load.result()))


if __name__ == "__main__":
    main()
