"""What `labbridge run --simulate` shows: a live table on a terminal, elsewhere a plain line every few seconds."""

import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from twisted.internet.task import LoopingCall

from labbridge.cli.common import console
from labbridge.daemon import Daemon

PLAIN_SECONDS, LIVE_SECONDS = 5.0, 0.5
LATE = 10.0  # seconds in the queue: shown in red
CLOCK = 60  # seconds that a clock may be off before it is shown


def show(daemon: Daemon, on_screen: bool) -> None:
    """Shows how the daemon stands for as long as its reactor runs."""
    view = View(daemon)
    if on_screen:
        screen = Live(view.table(), console=console, auto_refresh=False)
        screen.start()
        LoopingCall(lambda: screen.update(view.table(), refresh=True)).start(LIVE_SECONDS)
        daemon.reactor.addSystemEventTrigger("before", "shutdown", screen.stop)
    else:
        LoopingCall(lambda: console.print(view.line(), markup=False)).start(PLAIN_SECONDS, now=False)


class View:
    """The counters, and the rates since they were last looked at."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._before: dict[str, tuple[float, int, float]] = {}

    def _rate(self, name: str, count: int) -> str:
        """Per second, smoothed over about five seconds."""
        now = time.monotonic()
        at, before, rate = self._before.setdefault(name, (now, count, 0.0))
        if now - at >= 1.0:
            rate = 0.7 * rate + 0.3 * (count - before) / (now - at) if rate else (count - before) / (now - at)
            self._before[name] = (now, count, rate)
        return f"{rate:.1f}"

    def table(self) -> Group:
        """Two tables: analyzers, and the hospitals with their queues."""
        status = self._daemon.status()
        analyzers = _table("analyzer", "profile", "address", "links", "received", "reports", "held", "clock", "per second", left=3)
        for one in status["analyzers"]:
            off = f"{age(abs(one['skew']))} {'behind' if one['skew'] < 0 else 'ahead'}" if abs(one["skew"]) >= CLOCK else ""
            clock = Text(off, style="bold red")
            numbers = (one["links"], one["messages"], one["reports"], _warn(one["held"], "bold yellow"), clock)
            _row(analyzers, one["name"], one["profile"], one["address"], *numbers, self._rate(one["name"], one["messages"]))
        hospitals = _table("hospital", "links", "delivered", "queue", "refused", "oldest", "per second", left=1)
        for one in status["destinations"]:
            name = one["name"] + (" (paused)" if one["paused"] else "")
            links = one["connections"] or Text("0", style="bold red")
            oldest = Text(age(one["oldest"]), style="bold red" if one["oldest"] > LATE else "")
            rate = self._rate(f"to {one['name']}", one["delivered"])
            _row(hospitals, name, links, one["delivered"], one["queue"], _warn(one["refused"], "bold red"), oldest, rate)
        store = Text(status["store"], style="" if status["store"] == "ready" else "bold red")
        title = Text.assemble(("labbridge ", "bold"), self._daemon.settings.site.name, "   store ", store)
        screens = self._daemon.settings.console.url
        look = f"{screens} shows it in a browser; " if screens else ""
        hint = Text(f"{look}labbridge pending shows what is held and why; Ctrl-C stops", style="dim")
        return Group(title, analyzers, Text(), hospitals, hint)

    def line(self) -> str:
        """All of it on one line."""
        status = self._daemon.status()
        parts = [f"store {status['store']}"]
        for one in status["analyzers"]:
            rate = self._rate(one["name"], one["messages"])
            parts.append(f"{one['name']}: received {one['messages']} held {one['held']} ({rate}/s)")
        for one in status["destinations"]:
            rate = self._rate(f"to {one['name']}", one["delivered"])
            queue = f"queue {one['queue']} oldest {age(one['oldest'])}"
            parts.append(f"{one['name']}: delivered {one['delivered']} {queue} ({rate}/s)")
        return " | ".join(parts)


def _table(*columns: str, left: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    return table


def _row(table: Table, *cells: Any) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def _warn(count: int, style: str) -> Text:
    return Text(str(count), style=style if count else "")


def age(seconds: float) -> str:
    """A length of time as people say it: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
