"""Measures labbridge through to the acknowledged delivery, beside its floors: `make bench`.

    bench.py [--seconds S] [--connections N ...] [--only w1 w2 floors] [--folder DIR] [--json]

For each number of connections, W1 and W2 (workloads.py) go through a daemon of their own with a fresh database to a
hospital (sink.py); then each goes to its floors (floors.py). Messages per second: of labbridge, what the hospital has
acknowledged, from the first byte sent until the last message reached it, so emptying the queue counts; of a floor, what
was acknowledged. p50 and p99 are of the acknowledgement to the analyzer; CPU is the process's own, user and system, per
message; memory is its peak resident set (VmHWM). The generator, the hospital and labbridge share the machine: compare
ratios of one run, not numbers of two machines.
Every process is a child in a session of its own and is ended with this one; the exit status is 1 when a message was
refused, lost, held, doubled or not delivered.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workloads import RESULTS

HERE = Path(__file__).parent
ADDRESSES = {"w1": "127.0.0.1:15001", "w2": "127.0.0.1:15002", "his": "127.0.0.1:16661"}  # in bench.toml
FLOORS = {
    "bare": "bare Twisted, stores nothing",
    "sqlite": "SQLite group commit, raw message",
    "frames": "bare Twisted, W2's frames",
}
NAMES = {"w1": "W1 labbridge (HL7, MLLP)", "w2": "W2 labbridge (ASTM, LIS01)"} | FLOORS
START_S, STALL_S, STOP_S = 30.0, 15.0, 15.0
PORTS = range(32_000, 32_768)


@dataclass
class Measured:
    """One line of the table; ``problems`` should be empty."""

    what: str
    connections: int
    messages: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    problems: list[str] = field(default_factory=list)


class Child:
    """A process of ours: ended with the ``with`` block, asked first, killed after ``STOP_S``."""

    def __init__(self, *command: str | Path, log: Path) -> None:
        self.name, self.log = " ".join(map(str, command)), log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line(self, ask: bool = False) -> Any:
        """The next line of its output, JSON; ``ask`` sends a line first."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        if ask:
            stdin.write(b"\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended:\n{self.tail()}")
        return json.loads(line)

    def memory_mb(self) -> float:
        """The peak of its resident set."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended:\n{self.tail()}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)

    def cpu_s(self) -> float:
        """The processor time that it has used."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Ends it; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
        return self.process.returncode

    def tail(self) -> str:
        """The end of what it said on standard error."""
        return self.log.read_text(errors="replace")[-2000:]


def load(workload: str, port: int, connections: int, seconds: float, folder: Path, first: int = 0) -> Any:
    """Runs the load generator and returns what it measured."""
    options = ("--connections", str(connections), "--seconds", str(seconds), "--first", str(first))
    command = (sys.executable, HERE / "load.py", workload, str(port), *options)
    with Child(*command, log=folder / "load.log") as child:
        return child.line()


def labbridge(workload: str, connections: int, seconds: float, warmup: float, folder: Path) -> Measured:
    """One workload through a daemon of its own to the hospital."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Child(sys.executable, HERE / "sink.py", log=folder / "sink.log"))
        free = free_ports()
        ports = {"his": sink.line()["port"], "w1": next(free), "w2": next(free)}
        config = configuration(folder, ports)
        program = Path(sys.executable).with_name("labbridge")
        daemon = stack.enter_context(Child(program, "run", "-c", config, log=folder / "daemon.log"))
        wait_for(daemon, ports[workload])
        warm = load(workload, ports[workload], connections, warmup, folder)
        before, cpu = drained(sink, warm["messages"]), daemon.cpu_s()
        run = load(workload, ports[workload], connections, seconds, folder, warm["next"])
        sent = warm["messages"] + run["messages"]
        drained(sink, sent)
        time.sleep(0.3)  # a message delivered twice would come now
        after = sink.line(ask=True)
        delivered = after["messages"] - before["messages"]
        result = measured(workload, connections, run, delivered, after["last"], daemon, cpu)
        problems = result.problems = refusals(warm, run)
        status = daemon.stop()
        if status:
            problems.append(f"the daemon ended with status {status}")
        for name, expected in (("messages", sent), ("distinct", sent), ("results", sent * RESULTS)):
            if after[name] != expected:
                problems.append(f"acknowledged {sent}: the hospital should have {expected} {name}, has {after[name]}")
        if problems:
            problems.append(f"the daemon said: {daemon.tail() or 'nothing'}")
        return result


def floor(kind: str, connections: int, seconds: float, warmup: float, folder: Path) -> Measured:
    """W1, or W2 in frames, to one of the floors."""
    workload = "w2" if kind == "frames" else "w1"
    command = (sys.executable, HERE / "floors.py", kind, folder / "floor.db")
    with Child(*command, log=folder / "floor.log") as child:
        port = child.line()["port"]
        warm = load(workload, port, connections, warmup, folder)
        cpu = child.cpu_s()
        run = load(workload, port, connections, seconds, folder, warm["next"])
        result = measured(kind, connections, run, run["messages"], run["ended"], child, cpu)
        result.problems = refusals(warm, run)
        return result


def measured(what: str, connections: int, run: Any, messages: int, ended: float, child: Child, cpu_before: float) -> Measured:
    """A line of the table: what the generator and the hospital counted, what the measured process used for it."""
    memory = child.memory_mb()  # first: it sees whether the process is still there
    cpu = (child.cpu_s() - cpu_before) / max(messages, 1)
    rate = messages / max(ended - run["began"], 1e-9)
    return Measured(what, connections, messages, round(rate, 1), run["p50_ms"], run["p99_ms"], round(cpu * 1e6, 1), memory)


def refusals(*runs: Any) -> list[str]:
    """What the generator saw that should not be."""
    refused, lost = (sum(run[name] for run in runs) for name in ("refused", "lost"))
    return [f"{refused} messages refused, {lost} connections lost"] if refused or lost else []


def drained(sink: Child, expected: int) -> Any:
    """The hospital's counts once it has all that was acknowledged, or once nothing more has come for a while."""
    counts = sink.line(ask=True)
    moved = time.monotonic()
    while counts["distinct"] < expected and time.monotonic() - moved < STALL_S:
        time.sleep(0.05)
        last, counts = counts, sink.line(ask=True)
        if counts["messages"] > last["messages"]:
            moved = time.monotonic()
    return counts


def configuration(folder: Path, ports: dict[str, int]) -> Path:
    """bench.toml and its mappings in the folder of one measurement, with the ports in use."""
    text = (HERE / "bench.toml").read_text()
    for name, address in ADDRESSES.items():
        assert address in text
        text = text.replace(address, f"127.0.0.1:{ports[name]}")
    shutil.copytree(HERE / "mappings", folder / "mappings")
    path = folder / "bench.toml"
    path.write_text(text)
    return path


def free_ports() -> Iterator[int]:
    """Ports of the loopback that nobody has just now, and that neither the system nor the tests give to anybody."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            yield port


def wait_for(daemon: Child, port: int) -> None:
    """Returns when the daemon listens."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and daemon.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"labbridge run does not listen:\n{daemon.tail()}")


def measurements(args: argparse.Namespace) -> Iterator[Measured]:
    """Everything asked for, one after the other, each in a folder of its own."""
    for connections in args.connections:
        for what in [*(w for w in ("w1", "w2") if w in args.only), *(FLOORS if "floors" in args.only else ())]:
            with tempfile.TemporaryDirectory(prefix="labbridge-bench-", dir=args.folder) as name:
                run = floor if what in FLOORS else labbridge
                result = run(what, connections, args.seconds, args.warmup, Path(name))
            rate = f"{NAMES[what]}, {connections} connections: {result.per_second:,.0f} messages/s"
            print("\n*** ".join([rate, *result.problems]), file=sys.stderr, flush=True)
            yield result


def table(rows: list[Measured]) -> str:
    """The table, with the ratios of each workload to its bare floor and to SQLite's at the same connections."""
    rates = {(row.what, row.connections): row.per_second for row in rows}
    lines = [f"{'':34}connections  messages/s   p50 ms   p99 ms   CPU us      MB   of bare  of SQLite"]
    for row in sorted(rows, key=lambda row: list(NAMES).index(row.what)):
        line = f"{NAMES[row.what]:34}{row.connections:11}{row.per_second:12,.0f}{row.p50_ms:9.2f}{row.p99_ms:9.2f}"
        line += f"{row.cpu_us:9.0f}{row.memory_mb:8.0f}"
        for kind, width in (("bare", 10), ("sqlite", 11)):
            rate = rates.get(("frames" if kind == "bare" and row.what == "w2" else kind, row.connections), 0.0)
            line += f"{row.per_second / rate:{width}.3f}" if rate and row.what not in FLOORS else ""
        lines.append(line + ("  *** WRONG" if row.problems else ""))
    return "\n".join(lines)


def main() -> int:
    """Measures, prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description="labbridge to the acknowledged delivery, beside its floors")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds of load before each")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--only", choices=("w1", "w2", "floors"), nargs="+", default=["w1", "w2", "floors"])
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows, status = [], 0
    try:
        for row in measurements(args):
            rows.append(row)
            status |= bool(row.problems)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        machine = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores"
        print(f"\n{machine}, {args.seconds:g} s each\n\n{table(rows)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
