"""What every measurement stands on: child processes, free ports, a daemon with a fresh store, the line it prints.

A measurement is a program that starts everything as children in sessions of their own, ends them with itself, and
prints one JSON line for each thing measured; a line's ``problems`` should be empty, and make its exit status 1.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workloads import END

HERE = Path(__file__).parent
START_S, STALL_S, STOP_S = 30.0, 15.0, 60.0
PORTS = range(32_000, 32_768)
NAMES = ("w1", "w2", "quiet", "pcr", "line", "count-1", "count-2", "his")  # the ports of bench.toml and day.toml
Row = dict[str, Any]


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

    def memory_mb(self, peak: bool = True) -> float:
        """Its resident set: the peak, or what it is now."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended:\n{self.tail()}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) / 1024, 1)

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


class Bed:
    """A folder with a configuration and a store: daemons and hospitals may come and go in it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, config: str = "bench.toml") -> None:
        self.folder, self.stack = folder, stack
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = dict(zip(NAMES, free_ports(), strict=False))
        text = (HERE / config).read_text()
        for name, port in self.ports.items():
            text = text.replace(f"127.0.0.1:<{name}>", f"127.0.0.1:{port}")
        shutil.copytree(HERE / "mappings", folder / "mappings", dirs_exist_ok=True)
        self.config = folder / "bench.toml"
        self.config.write_text(text)
        self.store = folder / "bench.db"

    def daemon(self) -> Child:
        """A daemon, which listens."""
        program = Path(sys.executable).with_name("labbridge")
        child = self.stack.enter_context(Child(program, "run", "-c", self.config, log=self.folder / "daemon.log"))
        until = time.monotonic() + START_S
        while time.monotonic() < until and child.process.poll() is None:
            with contextlib.suppress(OSError), connected(self.listening):
                return child
            time.sleep(0.05)
        raise SystemExit(f"labbridge run does not listen:\n{child.tail()}")

    @property
    def listening(self) -> int:
        """A port on which the daemon listens once it has started."""
        text = self.config.read_text()
        return next(port for name, port in self.ports.items() if name != "his" and f":{port}" in text)

    def hospital(self) -> Child:
        """A hospital, which listens."""
        port = str(self.ports["his"])
        sink = self.stack.enter_context(Child(sys.executable, HERE / "sink.py", "--port", port, log=self.folder / "sink.log"))
        sink.line()
        return sink

    def load(self, workload: str, connections: int, seconds: float, first: int = 0, *options: str, to: str = "") -> Any:
        """Runs the load generator against one analyzer's port and returns what it measured."""
        return load(workload, self.ports[to or workload], connections, seconds, self.folder, first, *options)

    def start(self, script: str, *options: str | int | float) -> Child:
        """A generator of ours in the background, of which the one line is still to be read."""
        command = [sys.executable, str(HERE / script), *map(str, options)]
        return self.stack.enter_context(Child(*command, log=self.folder / "load.log"))

    def ask(self, statement: str, *parameters: Any) -> list[Any]:
        """The rows that a statement finds in the store."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as base:
            return base.execute(statement, parameters).fetchall()


@contextlib.contextmanager
def bed(where: Path | None, config: str = "bench.toml") -> Iterator[Bed]:
    """A bed in a temporary folder; everything started in it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="labbridge-bench-", dir=where) as name, contextlib.ExitStack() as stack:
        yield Bed(Path(name), stack, config)


def load(workload: str, port: int, connections: int, seconds: float, folder: Path, first: int = 0, *more: str) -> Any:
    """Runs the load generator and returns what it measured."""
    options = ("--connections", str(connections), "--seconds", str(seconds), "--first", str(first), *more)
    with Child(sys.executable, HERE / "load.py", workload, str(port), *options, log=folder / "load.log") as child:
        return child.line()


def refusals(*runs: Any) -> list[str]:
    """What a generator saw that should not be."""
    refused, lost = (sum(run[name] for run in runs) for name in ("refused", "lost"))
    return [f"{refused} messages refused, {lost} connections lost"] if refused or lost else []


def drained(sink: Child, expected: int, stall_s: float = STALL_S) -> Any:
    """The hospital's counts once it has all that was acknowledged, or once nothing more has come for a while."""
    counts = sink.line(ask=True)
    moved = time.monotonic()
    while counts["distinct"] < expected and time.monotonic() - moved < stall_s:
        time.sleep(0.05)
        last, counts = counts, sink.line(ask=True)
        if counts["messages"] > last["messages"]:
            moved = time.monotonic()
    return counts


def arrived(sink: Child, expected: int, results: int | None = None) -> list[str]:
    """What is wrong with what the hospital has, when everything should have arrived; waits for what comes doubled."""
    time.sleep(0.3)
    counts = sink.line(ask=True)
    due = {"messages": expected, "distinct": expected} | ({} if results is None else {"results": results})
    return [f"the hospital should have {n:,} {name}, has {counts[name]:,}" for name, n in due.items() if counts[name] != n]


def ended(daemon: Child) -> list[str]:
    """Stops a daemon; what is wrong with how it ended."""
    status = daemon.stop()
    return [f"the daemon ended with status {status}: {daemon.tail() or 'nothing said'}"] if status else []


def connected(port: int) -> socket.socket:
    """A connection to a port of the loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def said(sock: socket.socket, message: bytes) -> bool:
    """Sends one block; whether it was accepted."""
    sock.sendall(message)
    answer = b""
    while not answer.endswith(END) and (data := sock.recv(4096)):
        answer += data
    return b"\rMSA|AA|" in answer


def free_ports() -> Iterator[int]:
    """Ports of the loopback that nobody has just now, and that neither the system nor the tests give to anybody."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            yield port


def machine() -> Row:
    """What it runs on, in general words."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "what": "machine",
        "processor": next(iter(models), platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the sorted values does not exceed; 0 for none."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that every measurement has."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--folder", type=Path, help="where the databases are made (default: the temporary folder)")
    return made


def run(measure: Callable[[argparse.Namespace], Iterator[Row]], args: argparse.Namespace, show: bool = True) -> int:
    """Prints each line as it comes where ``show``; returns the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    status = 0
    try:
        for row in measure(args):
            if show:
                print(json.dumps(row), flush=True)
            status |= bool(row.get("problems"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status
