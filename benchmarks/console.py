"""What the console costs the daemon: W1 at an even rate, without anybody looking and with 50 screens on Pending, in turn.

    console.py [--clients 50] [--rate 300] [--seconds 20] [--held 60] [--pairs 3] [--stopped 60] [--folder DIR]

Of the messages each ``--held``th waits for a person, so that every screen has news to show. Each client is a websocket as a
browser opens it, on a page of its own: it takes what it is sent. Prints JSON lines. ``looking``, in pairs of 0 and
``--clients``: the daemon's processor time a message, the acknowledgement's p50 and p99 (from when the message was due), the
console's own share of a core. ``stopped``: the console gets SIGSTOP while the load goes on; the acknowledgements meanwhile,
the largest write-ahead log, when a page was served again. ``killed``: the same after SIGKILL.
"""

import argparse
import ast
import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import socketio
from bed import Bed, Child, Row, arrived, bed, drained, ended, free_ports, parser, refusals, run

ACCOUNT, PAGE = "bench", "/pending"
REST_S, BACK_S = 3.0, 90.0
SLOW = 10  # links
_QUERY = re.compile(r"query: (\{.*?\})", re.DOTALL)


class Screens:
    """So many clients of the console, on a thread of their own."""

    def __init__(self, base: str, count: int, password: str) -> None:
        self.base, self.count, self.password = base, count, password
        self.messages = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sockets: list[socketio.AsyncClient] = []

    def __enter__(self) -> "Screens":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(120)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _open(self) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": self.base}) as session:
            form = {"account": ACCOUNT, "password": self.password}
            async with session.post(f"{self.base}/login", data=form, allow_redirects=False) as answer:
                if answer.status >= 400:
                    raise SystemExit(f"the console refused to log in: {answer.status}")
            cookie = "; ".join(f"{one.key}={one.value}" for one in jar)
            for _ in range(self.count):
                async with session.get(self.base + PAGE) as answer:
                    found = _QUERY.search(await answer.text())
                    if found is None:
                        raise SystemExit(f"no page at {PAGE}: status {answer.status}")
                    await self._connect(ast.literal_eval(found[1]), cookie)

    async def _connect(self, query: dict[str, object], cookie: str) -> None:
        client = socketio.AsyncClient(reconnection=False)
        client.on("*", self._heard)
        query |= {name: secrets.token_hex(8) for name in ("document_id", "tab_id")} | {"implicit_handshake": "true"}
        url = f"{self.base}?{urllib.parse.urlencode(query)}"
        headers = {"Cookie": cookie, "Origin": self.base}
        await client.connect(url, headers=headers, transports=["websocket"], socketio_path="/_nicegui_ws/socket.io")
        self._sockets.append(client)

    def _heard(self, *_: object) -> None:
        self.messages += 1

    async def _close(self) -> None:
        for client in self._sockets:
            await client.disconnect()


class Watched:
    """A daemon with its console, and a hospital."""

    def __init__(self, place: Bed) -> None:
        self.place, self.number, self.held = place, 0, 0
        port = next(port for port in free_ports() if port not in place.ports.values())
        self.base, self.password = f"http://127.0.0.1:{port}", secrets.token_urlsafe(12)
        place.config.write_text(place.config.read_text() + f'\n[console]\nlisten = "127.0.0.1:{port}"\n')
        self.sink, self.daemon = place.hospital(), place.daemon()
        program = Path(sys.executable).with_name("labbridge")
        command = [program, "user", "add", ACCOUNT, "--role", "technician", "--password-stdin", "-c", place.config]
        subprocess.run(command, input=self.password + "\n", text=True, check=True, capture_output=True)
        self.served()

    def served(self) -> float:
        """How many seconds it took until a page was served."""
        began = time.monotonic()
        while time.monotonic() - began < BACK_S:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.base}/login", timeout=2):
                return round(time.monotonic() - began, 2)
            time.sleep(0.05)
        raise SystemExit(f"the console does not answer:\n{self.daemon.tail()}")

    def console(self) -> int:
        """The console's process."""
        [child] = Path(f"/proc/{self.daemon.process.pid}/task/{self.daemon.process.pid}/children").read_text().split()
        return int(child)

    def load(self, seconds: float, args: argparse.Namespace) -> Child:
        """The even load, begun."""
        options = ("--links", SLOW, "--seconds", seconds, "--first", self.number, "--held", args.held)
        self.number += int(args.rate * seconds)
        self.held += int(args.rate * seconds) // args.held
        return self.place.start("replay.py", "steady", self.place.ports["w1"], args.rate, *options)


def cpu_s(process: int) -> float:
    """The processor time of a process that is not a child of ours."""
    times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def looking(lab: Watched, clients: int, args: argparse.Namespace) -> Row:
    """The daemon while so many look."""
    with contextlib.ExitStack() as stack:
        screens = stack.enter_context(Screens(lab.base, clients, lab.password)) if clients else None
        time.sleep(REST_S)
        cpu, console, began = lab.daemon.cpu_s(), cpu_s(lab.console()), time.monotonic()
        sent = lab.load(args.seconds, args).line()
        cpu, console = lab.daemon.cpu_s() - cpu, cpu_s(lab.console()) - console
        told = {"console_share": round(console / (time.monotonic() - began), 3), "heard": screens.messages if screens else 0}
    per_message = {"cpu_us": round(cpu / max(sent["messages"], 1) * 1e6, 1)}
    return {"what": "looking", "clients": clients, **per_message, **sent["links"]["w1"], **told, "problems": refusals(sent)}


def broken(lab: Watched, kind: str, args: argparse.Namespace) -> Row:
    """The daemon while the console is stopped, or killed."""
    pid, log, largest = lab.console(), Path(f"{lab.place.store}-wal"), 0
    with Screens(lab.base, args.clients, lab.password):
        time.sleep(REST_S)
        load = lab.load(args.stopped, args)
        os.kill(pid, signal.SIGSTOP if kind == "stopped" else signal.SIGKILL)
        began = time.monotonic()
        back = lab.served() if kind == "killed" else None
        while time.monotonic() - began < args.stopped:
            largest = max(largest, log.stat().st_size)
            time.sleep(0.2)
        sent = load.line()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    back = lab.served() if back is None else back
    told = {"log_mb": round(largest / 1e6, 1), "back_s": back, "anew": lab.console() != pid}
    return {"what": kind, "seconds": args.stopped, **sent["links"]["w1"], **told, "problems": refusals(sent)}


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """All lines."""
    with bed(args.folder) as place:
        lab = Watched(place)
        lab.load(2.0, args).line()
        for _ in range(args.pairs):
            for clients in (0, args.clients):
                yield looking(lab, clients, args)
        for kind in ("stopped", "killed"):
            yield broken(lab, kind, args)
        drained(lab.sink, lab.number - lab.held)
        problems = arrived(lab.sink, lab.number - lab.held) + ended(lab.daemon)
        yield {"what": "console", "messages": lab.number, "held": lab.held, "problems": problems}


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--rate", type=float, default=300.0, help="messages a second")
    options.add_argument("--seconds", type=float, default=20.0, help="of each load")
    options.add_argument("--held", type=int, default=60)
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--stopped", type=float, default=60.0, help="seconds that the console is stopped")
    sys.exit(run(measure, options.parse_args()))
