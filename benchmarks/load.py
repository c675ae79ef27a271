"""A closed-loop load generator on loopback: each connection sends a message, waits for its answer, sends the next.

    load.py w1|w2|flood PORT [--connections N] [--seconds S] [--messages N] [--first NUMBER] [--reconnect]

W1 goes over MLLP, W2 over LIS01; flood is W1 of an analyzer that has ``FLOOD`` messages unanswered. It ends after S
seconds or N messages; --reconnect makes a connection for each message. Prints one JSON line: ``messages``
(acknowledged), ``refused``, ``lost`` (connections that ended before their answer), ``p50_ms``, ``p99_ms`` of the
acknowledgement, ``began`` and ``ended`` on the monotonic clock that all processes share, ``next`` (the number after the
last message: a warm-up is a run before, and the next run goes on from there). MLLP: from sending to the whole
acknowledgement; LIS01: from ENQ to the ACK of the last frame. Standard library only, one process, one epoll.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from itertools import islice

from workloads import ACK, END, ENQ, EOT, w1, w2

clock = time.monotonic
GRACE = 35.0  # seconds after the end in which an answer may still come
Record = Callable[[float, bool], None]  # when the message began, whether it was accepted
Conversation = Generator[bytes, bytes, bytes]  # yields what to send, is sent what came; returns its last word
Exchange = Generator[bytes, bytes, bool]  # one message of a conversation; returns whether it was accepted
FLOOD = 256  # messages


def block(message: bytes) -> Exchange:
    """One block over MLLP: it goes out, its acknowledgement comes in."""
    answer = yield message
    while not answer.endswith(END):
        answer += yield b""
    return b"\rMSA|AA|" in answer or b"\rMSA|CA|" in answer


def frames(message: list[bytes], before: bytes = b"") -> Exchange:
    """One message over LIS01 up to its last ACK: ENQ, then frame by frame; given up at an answer other than ACK."""
    answer = yield before + ENQ
    for frame in message:
        if answer != ACK:
            break
        answer = yield frame
    return answer == ACK


def mllp(numbers: Iterator[int], record: Record) -> Conversation:
    """W1 on one connection."""
    for number in numbers:
        message = w1(number)
        began = clock()
        record(began, (yield from block(message)))
    return b""


def lis01(numbers: Iterator[int], record: Record) -> Conversation:
    """W2 on one connection; EOT goes with the next ENQ."""
    before = b""
    for number in numbers:
        message = w2(number)
        began = clock()
        record(began, (yield from frames(message, before)))
        before = EOT
    return before


def flood(numbers: Iterator[int], record: Record) -> Conversation:
    """W1 on one connection, as fast as it can: the next messages leave before the answers to the last."""
    while some := list(islice(numbers, FLOOD)):
        began = clock()
        answers = yield b"".join(map(w1, some))
        while answers.count(END) < len(some):
            answers += yield b""
        accepted = answers.count(b"\rMSA|AA|")
        for place in range(len(some)):
            record(began, place < accepted)
    return b""


CONVERSATIONS = {"w1": mllp, "w2": lis01, "flood": flood}


class Load:
    """All connections of one run."""

    def __init__(
        self, workload: str, port: int, connections: int, seconds: float, first: int, messages: int, reconnect: bool
    ) -> None:
        self.workload, self.port, self.reconnect = workload, port, reconnect
        self.next, self.end = first, first + messages if messages else sys.maxsize
        self.messages = self.refused = self.lost = 0
        self.times: list[float] = []
        self.epoll = select.epoll()
        self.open: dict[int, tuple[socket.socket, Conversation]] = {}
        for _ in range(connections):
            self._connect()
        self.began = self.ended = clock()
        self.until = self.began + seconds

    def _connect(self) -> tuple[socket.socket, Conversation] | None:
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        except OSError:
            self.lost += 1
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        numbers = islice(self._numbers(), 1) if self.reconnect else self._numbers()
        self.open[sock.fileno()] = made = sock, CONVERSATIONS[self.workload](numbers, self._record)
        self.epoll.register(sock, select.EPOLLIN)
        return made

    def _more(self) -> bool:
        return clock() < self.until and self.next < self.end

    def _numbers(self) -> Iterator[int]:
        while self._more():
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
            self._begin(sock, conversation)
        while self.open and (left := self.until + GRACE - clock()) > 0:
            for number, _ in self.epoll.poll(left):
                self._hear(*self.open[number])
        self.lost += len(self.open)
        for sock, _ in self.open.values():
            sock.close()

    def _begin(self, sock: socket.socket, conversation: Conversation) -> None:
        try:
            self._say(sock, next(conversation))
        except StopIteration:  # there are more connections than messages
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        del self.open[sock.fileno()]
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
        self._end(sock)
        if self.reconnect and self._more() and (made := self._connect()):
            self._begin(*made)

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
    parser.add_argument("--messages", type=int, default=0, help="at most; 0: as many as there is time for")
    parser.add_argument("--reconnect", action="store_true")
    load = Load(**vars(parser.parse_args()))
    load.run()
    print(json.dumps(load.result()))


if __name__ == "__main__":
    main()
