"""Commands that run: the daemon, with simulators if wished, and single simulators."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from labbridge import daemon as daemons
from labbridge import profiles, revision
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, FAILED, ConfigFile, console, errors, fail, settings_of
from labbridge.config import Settings
from labbridge.daemon import Daemon
from labbridge.links.tcp import ListenError
from labbridge.store import StoreError

PLAIN_SECONDS, LIVE_SECONDS = 5.0, 0.5
CRITICAL_SHARE = 0.002  # of the simulated values: a report has up to thirty


def run(
    config: ConfigFile = DEFAULT_CONFIG,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Add a simulated analyzer for each configured one, and a hospital.")
    ] = False,
    rate: Annotated[float, typer.Option("--rate", help="With --simulate: messages a second and analyzer.")] = 1.0,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    With a terminal and --simulate a live table shows what happens; without one a line every few seconds.
    """
    settings = settings_of(config)
    live = simulate and console.is_terminal
    configure_logging(settings, live)

    def started(daemon: Daemon) -> None:
        if simulate:
            _simulators(daemon, rate)
            _show(daemon, live)

    try:
        status = daemons.run(settings, config, started)
    except revision.RevisionError as error:
        fail(str(error), CONFIGURATION)
    except (ListenError, StoreError) as error:
        fail(str(error), CONFIGURATION if isinstance(error, ListenError) else FAILED)
    raise typer.Exit(status)


def configure_logging(settings: Settings, live: bool) -> None:
    """Logs to standard error as [log] says; with the live table, warnings only, above it."""
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    if live:
        level = max(level, logging.WARNING)
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if settings.log.format == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _simulators(daemon: Daemon, rate: float) -> None:
    """A simulated hospital for each destination and a simulated analyzer for each that listens."""
    from labbridge.simulators import AnalyzerSimulator, Hospital
    from labbridge.simulators.vary import ranges_of

    settings = daemon.settings
    for destination in settings.destinations:
        Hospital(daemon.reactor, destination.connect.host, destination.connect.port).start()
    for analyzer in settings.analyzers:
        if analyzer.listen is None:
            continue
        rules = daemon.revision.analyzers[analyzer.name]
        profile, samples = sample_folder(analyzer.profile, revision.folders(settings, "analyzers"))
        AnalyzerSimulator(
            daemon.reactor,
            profile,
            samples,
            host=analyzer.listen.host,
            port=analyzer.listen.port,
            zone=rules.zone,
            ranges=ranges_of(daemon.revision.catalogue, rules.codes, time.time()),
            rate=rate,
            critical=CRITICAL_SHARE,
        ).start()


def sample_folder(name: str, folders: list[Path]) -> tuple[profiles.Profile, Path]:
    """A profile and the folder of its samples."""
    profile = profiles.load(name, folders)
    folder = next(f for f in folders if (f / name / "profile.toml").is_file())
    return profile, folder / name / "samples"


def _show(daemon: Daemon, live: bool) -> None:
    """The live table, or the plain line, while the reactor runs."""
    from twisted.internet.task import LoopingCall

    view = View(daemon)
    if live:
        screen = Live(view.table(), console=console, auto_refresh=False, transient=False)
        screen.start()
        loop = LoopingCall(lambda: screen.update(view.table(), refresh=True))
        loop.start(LIVE_SECONDS)
        daemon.reactor.addSystemEventTrigger("before", "shutdown", screen.stop)
    else:
        LoopingCall(lambda: console.print(view.line(), markup=False)).start(PLAIN_SECONDS, now=False)


class View:
    """What the terminal shows: counters, and the rates since it was last looked at."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def _rate(self, name: str, count: int) -> float:
        """Per second, smoothed over about five seconds."""
        now = time.monotonic()
        at, before = self._before.get(name, (now, count))
        if now - at >= 1.0:
            fresh = (count - before) / (now - at)
            self._rates[name] = fresh if name not in self._rates else 0.7 * self._rates[name] + 0.3 * fresh
            self._before[name] = (now, count)
        else:
            self._before.setdefault(name, (at, before))
        return self._rates.get(name, 0.0)

    def table(self) -> Group:
        """Two tables: analyzers, and the hospitals with their queues."""
        status = self._daemon.status()
        analyzers = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("analyzer", "profile", "address", "links", "received", "reports", "held", "per second"):
            analyzers.add_column(name, justify="left" if name in ("analyzer", "profile", "address") else "right")
        for one in status["analyzers"]:
            held = Text(str(one["held"]), style="bold yellow" if one["held"] else "")
            rate = f"{self._rate(one['name'], one['messages']):.1f}"
            row = (one["name"], one["profile"], one["address"], str(one["links"]), str(one["messages"]))
            analyzers.add_row(*row, str(one["reports"]), held, rate)
        hospitals = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("hospital", "links", "delivered", "queue", "refused", "oldest", "per second"):
            hospitals.add_column(name, justify="left" if name == "hospital" else "right")
        for one in status["destinations"]:
            late = one["oldest"] > 10
            name = one["name"] + (" (paused)" if one["paused"] else "")
            rate = f"{self._rate('to ' + one['name'], one['delivered']):.1f}"
            hospitals.add_row(
                name,
                Text(str(one["connections"]), style="" if one["connections"] else "bold red"),
                str(one["delivered"]),
                str(one["queue"]),
                Text(str(one["refused"]), style="bold red" if one["refused"] else ""),
                Text(age(one["oldest"]), style="bold red" if late else ""),
                rate,
            )
        store = status["store"]
        title = Text.assemble(
            ("labbridge ", "bold"), self._daemon.settings.site.name, "   store ", (store, "" if store == "ready" else "bold red")
        )
        hint = Text("labbridge pending -c … shows what is held and why; Ctrl-C stops", style="dim")
        return Group(title, analyzers, Text(), hospitals, hint)

    def line(self) -> str:
        """All of it on one line."""
        status = self._daemon.status()
        parts = [f"store {status['store']}"]
        for one in status["analyzers"]:
            rate = self._rate(one["name"], one["messages"])
            parts.append(f"{one['name']}: received {one['messages']} held {one['held']} ({rate:.1f}/s)")
        for one in status["destinations"]:
            rate = self._rate("to " + one["name"], one["delivered"])
            parts.append(
                f"{one['name']}: delivered {one['delivered']} queue {one['queue']} oldest {age(one['oldest'])} ({rate:.1f}/s)"
            )
        return " | ".join(parts)


def age(seconds: float) -> str:
    """A length of time as people say it: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _alone(start: Callable[[Any], Callable[[], str]]) -> None:
    """Runs one simulator on a reactor of its own until Ctrl-C or its end, with a line every few seconds."""
    from twisted.internet import reactor as the_reactor
    from twisted.internet.task import LoopingCall

    reactor: Any = the_reactor
    say = start(reactor)
    loop = LoopingCall(lambda: errors.print(say(), markup=False))
    loop.start(PLAIN_SECONDS, now=False)
    with contextlib.suppress(KeyboardInterrupt):
        reactor.run()
    console.print(say(), markup=False)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        fail(f'expected "host:port", got "{text}"', 2)
    return host, int(port)


def simulate_analyzer(
    profile: Annotated[str, typer.Argument(help="The profile it speaks.")],
    connect: Annotated[str, typer.Option("--connect", help="Where labbridge listens, host:port.")] = "127.0.0.1:5001",
    rate: Annotated[float, typer.Option("--rate", help="Messages a second; 0: as fast as they are acknowledged.")] = 1.0,
    count: Annotated[int, typer.Option("--count", help="Stop after so many; 0: never.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same results.")] = 0,
    folder: Annotated[Path | None, typer.Option("--analyzers", help="A folder of your own profiles.")] = None,
) -> None:
    """An analyzer that plays its profile's samples with fresh specimen ids, times and values."""
    from zoneinfo import ZoneInfo

    from labbridge.simulators import AnalyzerSimulator

    folders = [f for f in (folder, revision.packaged("analyzers")) if f is not None]
    host, port = _address(connect)
    try:
        loaded, samples = sample_folder(profile, folders)
    except profiles.ProfileError as error:
        fail(str(error), CONFIGURATION)

    def start(reactor: Any) -> Callable[[], str]:
        simulator = AnalyzerSimulator(
            reactor,
            loaded,
            samples,
            host=host,
            port=port,
            zone=ZoneInfo("UTC"),
            rate=rate,
            count=count or None,
            seed=seed or None,
            finished=reactor.stop,
        )
        simulator.start()
        return lambda: f"sent {simulator.sent} acknowledged {simulator.acknowledged} refused {simulator.refused}"

    _alone(start)


def simulate_hospital(
    listen: Annotated[str, typer.Option("--listen", help="host:port")] = "127.0.0.1:6661",
    delay: Annotated[float, typer.Option("--delay", help="Seconds before each answer.")] = 0.0,
    refuse: Annotated[float, typer.Option("--refuse", help="The share answered AE, 0 to 1.")] = 0.0,
    reject: Annotated[float, typer.Option("--reject", help="The share answered AR, 0 to 1.")] = 0.0,
    hang: Annotated[float, typer.Option("--hang", help="The share never answered, 0 to 1.")] = 0.0,
    drop: Annotated[float, typer.Option("--drop", help="The share answered by a lost connection, 0 to 1.")] = 0.0,
    down: Annotated[float, typer.Option("--down", help="Listen only after so many seconds.")] = 0.0,
    keep: Annotated[Path | None, typer.Option("--keep", help="Append what is received to this file, JSON lines.")] = None,
) -> None:
    """A hospital that acknowledges and keeps what it gets; it can refuse, delay, hang and drop."""
    from labbridge.simulators import Hospital

    host, port = _address(listen)

    def start(reactor: Any) -> Callable[[], str]:
        hospital = Hospital(
            reactor, host, port, answer_delay=delay, refuse=refuse, reject=reject, hang=hang, drop=drop, down_for=down, keep=keep
        )
        hospital.start()
        return lambda: f"received {hospital.received} distinct {hospital.distinct} repeated {hospital.repeated}"

    _alone(start)
