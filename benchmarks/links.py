"""What links cost that say nothing, and what one that says too much costs the others.

    links.py [--links 500] [--seconds 30] [--rate 20] [--folder DIR]

Prints JSON lines. ``idle``: resident memory after a second of load (``alone_mb``), with so many links more, each of
which has sent one W1 message and is silent then (``linked_mb``), the difference, and the processor's share while all are
silent. ``flood``, three times: W1 at a low, even rate on ten links of one analyzer while another is silent
(``none``), sends as fast as it can on one link without waiting for answers (``one link``), or does so on 16
(``16 links``); ``p50_ms``, ``p99_ms``, ``max_ms`` are of the slow links, from when each message was due.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bed import Row, arrived, bed, connected, drained, ended, parser, refusals, run, said
from workloads import RESULTS, w1

FLOODS = {"none": 0, "one link": 1, "16 links": 16}
SLOW = 10  # links: one alone would wait for itself
APART = 1_000_000  # between the numbers of two analyzers
REST_S = 3.0


def idle(args: argparse.Namespace) -> Row:
    """What idle links cost."""
    with bed(args.folder) as place, ExitStack() as links:
        sink, daemon = place.hospital(), place.daemon()
        fresh = daemon.memory_mb(peak=False)
        warm = place.load("w1", 8, 1.0)
        drained(sink, warm["messages"])
        alone = daemon.memory_mb(peak=False)
        problems, sockets = refusals(warm), [links.enter_context(connected(place.ports["w1"])) for _ in range(args.links)]
        if not all(said(sock, w1(number)) for number, sock in enumerate(sockets, warm["next"])):
            problems.append("a link was refused")
        sent = warm["messages"] + args.links
        drained(sink, sent)
        time.sleep(REST_S)
        linked, cpu = daemon.memory_mb(peak=False), daemon.cpu_s()
        time.sleep(REST_S)
        share = (daemon.cpu_s() - cpu) / REST_S
        problems += arrived(sink, sent, sent * RESULTS) + ended(daemon)
    sizes = {"fresh_mb": fresh, "alone_mb": alone, "linked_mb": linked, "more_mb": round(linked - alone, 1)}
    return {"what": "idle", "links": args.links, **sizes, "cpu_share": round(share, 4), "problems": problems}


def flood(kind: str, args: argparse.Namespace) -> Row:
    """What a flood costs another link."""
    with bed(args.folder) as place:
        sink, daemon = place.hospital(), place.daemon()
        ports = place.ports["w1"], place.ports["quiet"]
        warm = place.load("w1", 1, 0.5)
        others = []
        if FLOODS[kind]:
            options = ("--connections", FLOODS[kind], "--seconds", args.seconds + 1, "--first", APART)
            others.append(place.start("load.py", "flood", ports[0], *options))
            time.sleep(0.5)
        options = ("--links", SLOW, "--seconds", args.seconds, "--first", 2 * APART)
        slow = place.start("replay.py", "steady", ports[1], args.rate, *options).line()
        floods = [child.line() for child in others]
        sent = sum(one["messages"] for one in (warm, slow, *floods))
        drained(sink, sent)
        problems = refusals(warm, slow, *floods) + arrived(sink, sent, sent * RESULTS)
        memory = daemon.memory_mb()
        problems += ended(daemon)
    rate = sum(one["messages"] / (one["ended"] - one["began"]) for one in floods)
    counts = {"rate": args.rate, "messages": slow["messages"], "flood_per_second": round(rate, 1), "memory_mb": memory}
    return {"what": "flood", "by": kind, **counts, **slow["links"]["w1"], "behind_ms": slow["behind_ms"], "problems": problems}


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """All lines."""
    yield idle(args)
    for kind in FLOODS:
        yield flood(kind, args)


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--links", type=int, default=500)
    options.add_argument("--seconds", type=float, default=30.0, help="of each flood")
    options.add_argument("--rate", type=float, default=20.0, help="messages a second of all slow links")
    sys.exit(run(measure, options.parse_args()))
