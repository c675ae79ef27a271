"""How fast a long queue empties once the hospital is back, and what it costs in memory.

    drain.py [--deliveries 100000] [--folder DIR]

W1 comes in over 64 connections while nobody listens at the hospital's address, until so many deliveries wait; then a
daemon is started anew on that store, and then the hospital. Prints one JSON line: ``per_second`` (from the first
delivery to the last), ``cpu_us`` for each, ``reconnect_s`` (from the hospital's start to the first delivery),
``start_s`` (until the daemon with the full queue listens), memory while everything waits and at its peak, and
``intake_per_second`` while the hospital was down.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from bed import Row, arrived, bed, drained, ended, parser, refusals, run
from workloads import RESULTS

LONGEST_S = 3600.0
BACK_S = 60.0  # in which the daemon must have found the hospital again


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """The one line."""
    with bed(args.folder) as place:
        first = place.daemon()
        sent = place.load("w1", 64, LONGEST_S, 0, "--messages", str(args.deliveries))
        problems = refusals(sent) + ended(first)
        began = time.monotonic()
        daemon = place.daemon()
        started = time.monotonic()
        time.sleep(1)
        waiting, cpu = daemon.memory_mb(peak=False), daemon.cpu_s()
        sink, up = place.hospital(), time.monotonic()
        counts = drained(sink, sent["messages"], BACK_S)
        cpu, memory = daemon.cpu_s() - cpu, daemon.memory_mb()
        problems += arrived(sink, sent["messages"], sent["messages"] * RESULTS) + ended(daemon)
        yield {
            "what": "drain",
            "deliveries": counts["messages"],
            "per_second": round(counts["messages"] / max(counts["last"] - counts["first"], 1e-9), 1),
            "cpu_us": round(cpu / max(counts["messages"], 1) * 1e6, 1),
            "reconnect_s": round(counts["first"] - up, 2),
            "start_s": round(started - began, 2),
            "waiting_mb": waiting,
            "memory_mb": memory,
            "intake_per_second": round(sent["messages"] / max(sent["ended"] - sent["began"], 1e-9), 1),
            "intake_p99_ms": sent["p99_ms"],
            "problems": problems,
        }


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--deliveries", type=int, default=100_000)
    sys.exit(run(measure, options.parse_args()))
