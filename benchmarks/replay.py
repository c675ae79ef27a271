"""An open-loop load generator on loopback: every message has a time at which it is due, whether the last was answered or not.

    replay.py steady PORT RATE [--links N] [--seconds S] [--first NUMBER] [--held N]
    replay.py day PCR LINE COUNT1 COUNT2 [--speed X] [--hours FROM TO] [--part SHARE]

steady: W1, RATE messages a second in all, over N links of one analyzer in turn. day: a laboratory's day (laboratory.py)
to the ports of its analyzers, X times as fast as it happened; only these hours, only this share of the specimens.
Prints one JSON line: ``messages`` (acknowledged), ``held`` (how many of them a person must look at), ``results`` (of the
others), ``refused``, ``lost`` (not answered), ``began`` and ``ended`` on the monotonic clock, ``behind_ms`` (how late the
generator itself was, at worst), and ``links``: ``p50_ms``, ``p99_ms``, ``max_ms`` of the acknowledgement by the name of the
link, each from when the message was due: waiting behind a late one counts. Standard library only, one process, one epoll.
"""

import argparse
import json
import select
import socket
import sys
from collections import deque
from collections.abc import Iterator

import laboratory
from bed import connected, percentile
from laboratory import Due
from load import Exchange, block, clock, frames
from workloads import EOT, RESULTS, w1

GRACE_S = 35.0  # after the last was due


class Link:
    """One connection and the messages that wait for it."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.socket = connected(port)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting: deque[tuple[float, Due]] = deque()
        self.now: tuple[float, Due, Exchange] | None = None
        self.times: list[float] = []

    def begin(self) -> None:
        """Sends the next message that waits, when nothing else is on its way."""
        if self.now is None and self.waiting:
            due, message = self.waiting.popleft()
            exchange = frames(message.content) if isinstance(message.content, list) else block(message.content)
            self.now = due, message, exchange
            self.socket.sendall(next(exchange))


class Replay:
    """All links of one run."""

    def __init__(self, links: list[Link], messages: Iterator[Due]) -> None:
        self.links, self.messages = {link.socket.fileno(): link for link in links}, messages
        self.order = links
        self.count = self.held = self.results = self.refused = self.lost = 0
        self.behind = 0.0
        self.epoll = select.epoll()
        for number in self.links:
            self.epoll.register(number, select.EPOLLIN)
        self.began = self.ended = clock()

    def run(self) -> None:
        """Sends everything when it is due; ends when the last is answered."""
        message = next(self.messages, None)
        last = self.began
        while message or any(link.now for link in self.links.values()):
            now = clock()
            while message and (due := self.began + message.at_s) <= now:
                last, self.behind = due, max(self.behind, now - due)
                self.order[message.link].waiting.append((due, message))
                self.order[message.link].begin()
                message = next(self.messages, None)
            until = self.began + message.at_s if message else last + GRACE_S
            if not message and now > until:
                break
            for number, _ in self.epoll.poll(max(until - clock(), 0.0)):
                if number in self.links:
                    self._hear(self.links[number])
        self.lost += sum(bool(link.now) + len(link.waiting) for link in self.order)
        for link in self.order:
            link.socket.close()

    def _hear(self, link: Link) -> None:
        try:
            data = link.socket.recv(65536)
        except OSError:
            data = b""
        if not data or link.now is None:
            self.epoll.unregister(link.socket)
            del self.links[link.socket.fileno()]
            return
        due, message, exchange = link.now
        try:
            if said := exchange.send(data):
                link.socket.sendall(said)
        except StopIteration as end:
            self.ended = clock()
            link.times.append(self.ended - due)
            self.count += end.value
            self.held += bool(end.value and not message.results)
            self.results += message.results if end.value else 0
            self.refused += not end.value
            link.now = None
            if isinstance(message.content, list):
                link.socket.sendall(EOT)
            link.begin()

    def result(self) -> dict[str, object]:
        """What was counted and timed."""
        times: dict[str, list[float]] = {}
        for link in self.order:
            times.setdefault(link.name, []).extend(link.times)
        counts = {"messages": self.count, "held": self.held, "results": self.results}
        wrong = {"refused": self.refused, "lost": self.lost}
        when = {"began": self.began, "ended": self.ended, "behind_ms": round(self.behind * 1e3, 1)}
        return counts | wrong | when | {"links": {name: spread(sorted(some)) for name, some in times.items()}}


def spread(times: list[float]) -> dict[str, float]:
    """What is told of sorted times, in milliseconds."""
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(percentile(times, share) * 1e3, 3) for name, share in shares.items()}


def steady(args: argparse.Namespace) -> Replay:
    """W1 at an even rate."""
    links = [Link("w1", args.port) for _ in range(args.links)]

    def one(n: int) -> Due:
        held = args.held and n % args.held == args.held - 1
        message = w1(args.first + n)
        return Due(n / args.rate, n % args.links, message.replace(b"|SMP", b"|NOREAD") if held else message, 0 if held else RESULTS)

    return Replay(links, map(one, range(int(args.rate * args.seconds))))


def day(args: argparse.Namespace) -> Replay:
    """A laboratory's day."""
    links = [Link(name, args.ports[analyzer]) for name, analyzer in laboratory.LINKS]
    return Replay(links, laboratory.day(args.speed, *args.hours, args.part))


def main() -> None:
    """Runs the load that the command line asks for."""
    parser = argparse.ArgumentParser(description="open-loop load generator, loopback only")
    kinds = parser.add_subparsers(required=True)
    even = kinds.add_parser("steady")
    even.set_defaults(made=steady)
    even.add_argument("port", type=int)
    even.add_argument("rate", type=float)
    even.add_argument("--links", type=int, default=1)
    even.add_argument("--seconds", type=float, default=5.0)
    even.add_argument("--first", type=int, default=0)
    even.add_argument("--held", type=int, default=0, help="each so-many-th message is one that a person must look at")
    whole = kinds.add_parser("day")
    whole.set_defaults(made=day)
    whole.add_argument("ports", type=int, nargs=4)
    laboratory.options(whole)
    args = parser.parse_args()
    replay = args.made(args)
    replay.run()
    print(json.dumps(replay.result()))


if __name__ == "__main__":
    sys.exit(main())
