"""Latency against load: W1 at even rates over 64 links, whether the last was answered or not.

    curve.py [--rates R ...] [--seconds S] [--links N] [--folder DIR]

Each rate goes through a daemon of its own to the hospital, then to the floor that commits the raw message alone. Prints
a JSON line for each: ``offered`` and ``per_second`` (acknowledged), ``p50_ms``, ``p99_ms``, ``max_ms`` from when a message was
due, CPU per message, how late the generator itself was. What cannot keep up is not given a higher rate.
"""

import argparse
import sys
from collections.abc import Iterator

from bed import HERE, Bed, Child, Row, arrived, bed, drained, ended, parser, refusals, run
from workloads import RESULTS

KEPT_UP = 0.95  # of what was offered


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """A line for each rate and receiver."""
    for what in ("labbridge", "sqlite"):
        for rate in sorted(args.rates):
            with bed(args.folder) as place:
                row = (labbridge if what == "labbridge" else floor)(place, rate, args)
            yield row
            if row["per_second"] < KEPT_UP * rate:
                break


def labbridge(place: Bed, rate: float, args: argparse.Namespace) -> Row:
    """One rate through to the hospital."""
    sink, daemon = place.hospital(), place.daemon()
    warm = place.load("w1", 8, 0.5)
    drained(sink, warm["messages"])
    row, sent = offered("labbridge", place, place.ports["w1"], daemon, rate, warm["next"], args)
    total = warm["messages"] + sent
    drained(sink, total)
    row["problems"] += refusals(warm) + arrived(sink, total, total * RESULTS) + ended(daemon)
    return row


def floor(place: Bed, rate: float, args: argparse.Namespace) -> Row:
    """One rate to the floor."""
    command = (sys.executable, HERE / "floors.py", "sqlite", place.folder / "floor.db")
    child = place.stack.enter_context(Child(*command, log=place.folder / "floor.log"))
    return offered("sqlite", place, child.line()["port"], child, rate, 0, args)[0]


def offered(what: str, place: Bed, port: int, child: Child, rate: float, first: int, args: argparse.Namespace) -> tuple[Row, int]:
    """The line of one rate, and how many messages were acknowledged."""
    cpu = child.cpu_s()
    options = ("--links", args.links, "--seconds", args.seconds, "--first", first)
    run = place.start("replay.py", "steady", port, rate, *options).line()
    row = {
        "what": "curve",
        "of": what,
        "offered": rate,
        "per_second": round(run["messages"] / max(run["ended"] - run["began"], 1e-9), 1),
        **run["links"]["w1"],
        "cpu_us": round((child.cpu_s() - cpu) / max(run["messages"], 1) * 1e6, 1),
        "behind_ms": run["behind_ms"],
        "problems": refusals(run),
    }
    return row, run["messages"]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rates", type=float, nargs="+", default=[50, 100, 200, 400, 600, 800, 1000, 1300, 1600, 2000, 2500])
    options.add_argument("--seconds", type=float, default=8.0, help="at each rate")
    options.add_argument("--links", type=int, default=64)
    sys.exit(run(measure, options.parse_args()))
