"""Measures labbridge through to the acknowledged delivery, beside its floors and its peers: `make bench`.

    bench.py [--seconds S] [--connections N ...] [--only w1 w2 floors peers] [--folder DIR] [--json]

For each number of connections, W1 and W2 (workloads.py) go through a daemon of their own with a fresh database to a
hospital (sink.py); then each goes to its floors (floors.py), and W1 to servers that store nothing (peers.py). Messages
per second: of labbridge, what the hospital has acknowledged, from the first byte sent until the last message reached
it, so emptying the queue counts; of a floor or peer, what was acknowledged. p50 and p99 are of the acknowledgement to the
analyzer; CPU is the process's own, user and system, per message; memory is its peak resident set (VmHWM). The
generator, the hospital and labbridge share the machine: compare ratios of one run, not numbers of two machines.
The exit status is 1 when a message was refused, lost, held, doubled or not delivered.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

from bed import HERE, Child, Row, arrived, bed, drained, ended, load, machine, parser, refusals, run
from workloads import RESULTS

FLOORS = {
    "bare": "bare Twisted, stores nothing",
    "sqlite": "SQLite group commit, raw message",
    "frames": "bare Twisted, W2's frames",
}
PEERS = {"python-hl7": "python-hl7, stores nothing", "hl7apy": "hl7apy, stores nothing"}
NAMES = {"w1": "W1 labbridge (HL7, MLLP)", "w2": "W2 labbridge (ASTM, LIS01)"} | FLOORS | PEERS
GROUPS = {"w1": ["w1"], "w2": ["w2"], "floors": list(FLOORS), "peers": list(PEERS)}


def labbridge(workload: str, connections: int, args: argparse.Namespace) -> Row:
    """One workload through a daemon of its own to the hospital."""
    with bed(args.folder) as place:
        sink, daemon = place.hospital(), place.daemon()
        warm = place.load(workload, connections, args.warmup)
        before, cpu = drained(sink, warm["messages"]), daemon.cpu_s()
        run = place.load(workload, connections, args.seconds, warm["next"])
        sent = warm["messages"] + run["messages"]
        after = drained(sink, sent)
        result = measured(workload, connections, run, after["messages"] - before["messages"], after["last"], daemon, cpu)
        result["problems"] = refusals(warm, run) + arrived(sink, sent, sent * RESULTS) + ended(daemon)
        return result


def other(kind: str, connections: int, args: argparse.Namespace) -> Row:
    """W1, or W2 in frames, to one of the floors or peers."""
    workload = "w2" if kind == "frames" else "w1"
    options = ("--reconnect",) if kind == "hl7apy" else ()
    with bed(args.folder) as place:
        command = (HERE / "peers.py", kind) if kind in PEERS else (HERE / "floors.py", kind, place.folder / "floor.db")
        child = place.stack.enter_context(Child(sys.executable, *command, log=place.folder / "floor.log"))
        port = child.line()["port"]
        warm = load(workload, port, connections, args.warmup, place.folder, 0, *options)
        cpu = child.cpu_s()
        run = load(workload, port, connections, args.seconds, place.folder, warm["next"], *options)
        result = measured(kind, connections, run, run["messages"], run["ended"], child, cpu)
        result["problems"] = refusals(warm, run)
        return result


def measured(what: str, connections: int, run: Any, messages: int, ended: float, child: Child, cpu_before: float) -> Row:
    """A line of the table: what the generator and the hospital counted, what the measured process used for it."""
    memory = child.memory_mb()  # first: it sees whether the process is still there
    return {
        "what": what,
        "connections": connections,
        "messages": messages,
        "per_second": round(messages / max(ended - run["began"], 1e-9), 1),
        "p50_ms": run["p50_ms"],
        "p99_ms": run["p99_ms"],
        "cpu_us": round((child.cpu_s() - cpu_before) / max(messages, 1) * 1e6, 1),
        "memory_mb": memory,
    }


def measurements(args: argparse.Namespace) -> Iterator[Row]:
    """Everything asked for, one after the other, each in a folder of its own."""
    for connections in args.connections:
        for what in (what for group, kinds in GROUPS.items() if group in args.only for what in kinds):
            row = (labbridge if what in ("w1", "w2") else other)(what, connections, args)
            rate = f"{NAMES[what]}, {connections} connections: {row['per_second']:,.0f} messages/s"
            print("\n*** ".join([rate, *row["problems"]]), file=sys.stderr, flush=True)
            args.rows.append(row)
            yield row


def table(rows: list[Row]) -> str:
    """The table, with the ratios of each workload to its floors and to python-hl7 at the same connections."""
    rates = {(row["what"], row["connections"]): row["per_second"] for row in rows}
    lines = [f"{'':34}connections  messages/s   p50 ms   p99 ms   CPU us      MB  of bare  of SQLite  of python-hl7"]
    for row in sorted(rows, key=lambda row: list(NAMES).index(row["what"])):
        line = f"{NAMES[row['what']]:34}{row['connections']:11}{row['per_second']:12,.0f}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}"
        line += f"{row['cpu_us']:9.0f}{row['memory_mb']:8.0f}"
        for kind, width in (("bare", 9), ("sqlite", 11), ("python-hl7", 15)):
            rate = rates.get(("frames" if kind == "bare" and row["what"] == "w2" else kind, row["connections"]), 0.0)
            line += f"{row['per_second'] / rate:{width}.3f}" if rate and row["what"] in ("w1", "w2") else ""
        lines.append(line + ("  *** WRONG" if row["problems"] else ""))
    return "\n".join(lines)


def main() -> int:
    """Measures, prints the table; returns the exit status."""
    options = parser("labbridge to the acknowledged delivery, beside its floors and peers")
    options.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options.add_argument("--warmup", type=float, default=1.0, help="seconds of load before each")
    options.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    options.add_argument("--only", choices=GROUPS, nargs="+", default=list(GROUPS))
    options.add_argument("--json", action="store_true", help="JSON lines instead of the table")
    args = options.parse_args(namespace=argparse.Namespace(rows=[]))
    if args.json:
        return run(measurements, args)
    began = time.monotonic()
    status = run(measurements, args, show=False)
    about = machine()
    print(f"\n{about['processor']}, {about['cores']} cores, Python {about['python']}, SQLite {about['sqlite']}")
    print(f"{args.seconds:g} s each, {time.monotonic() - began:.0f} s in all\n\n{table(args.rows)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
