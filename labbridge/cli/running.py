"""Commands that run: the daemon, with simulators if wished, and single simulators."""

import contextlib
import json
import logging
import random
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import structlog
import typer

from labbridge import accounts, profiles, revision
from labbridge import daemon as daemons
from labbridge.cli import live
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, USAGE, ConfigFile, console, errors, fail, settings_of
from labbridge.config import Settings
from labbridge.daemon import Daemon
from labbridge.links.tcp import ListenError
from labbridge.store import StoreError, Transaction

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
    on_screen = simulate and console.is_terminal
    configure_logging(settings, on_screen)

    def started(daemon: Daemon) -> None:
        daemon.on_accepting = lambda: _demonstration(daemon, simulate)
        if simulate:
            _simulators(daemon, rate)
            live.show(daemon, on_screen)

    try:
        status = daemons.run(settings, config, started)
    except (revision.RevisionError, ListenError) as error:
        fail(str(error), CONFIGURATION)
    except StoreError as error:
        fail(str(error))
    raise typer.Exit(status)


def configure_logging(settings: Settings, on_screen: bool) -> None:
    """Logs to standard error as [log] says; with the live table, warnings only, above it."""
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    if on_screen:
        level = max(level, logging.WARNING)
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if settings.log.format == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Unfailing())),
        cache_logger_on_first_use=True,
    )


class Unfailing:
    """Standard error as far as it takes anything: a full disk or a closed terminal must not stop the daemon."""

    def write(self, text: str) -> None:
        """Writes what can be written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _demonstration(daemon: Daemon, wanted: bool) -> None:
    """Accounts to look round with, of a new password each time, where there are no real ones; none in earnest."""
    password = secrets.token_urlsafe(9)

    def job(tx: Transaction) -> bool:
        return accounts.demonstrate(tx, hashes) if wanted else accounts.end_demonstration(tx)

    def told(made: bool) -> None:
        if wanted and daemon.settings.console.url:
            who = (
                f"log in as {', '.join(accounts.DEMONSTRATION)}; password {password}" if made else "log in with an account of yours"
            )
            console.print(f"console {daemon.settings.console.url}  {who}", markup=False)

    hashes = dict.fromkeys(accounts.DEMONSTRATION, accounts.hashed(password) if wanted else "")
    daemon.store.submit(job, told, lambda error: errors.print(f"no demonstration: {type(error).__name__}", markup=False))


def _simulators(daemon: Daemon, rate: float) -> None:
    """A simulated hospital for each destination and a simulated analyzer for each that listens."""
    from labbridge.simulators import AnalyzerSimulator, Hospital
    from labbridge.simulators.vary import ranges_of

    settings = daemon.settings
    for destination in settings.destinations:
        Hospital(daemon.reactor, destination.connect.host, destination.connect.port).start()
    for analyzer in settings.analyzers:
        at = analyzer.listen
        if at is None:
            continue
        rules = daemon.revision.analyzers[analyzer.name]
        profile, samples = sample_folder(analyzer.profile, revision.folders(settings, "analyzers"))
        ranges = ranges_of(daemon.revision.catalogue, rules.codes, time.time())
        AnalyzerSimulator(
            daemon.reactor, profile, samples, at.host, at.port, rules.zone, ranges, rate=rate, critical=CRITICAL_SHARE
        ).start()


def sample_folder(name: str, folders: list[Path]) -> tuple[profiles.Profile, Path]:
    """A profile and the folder of its samples."""
    profile = profiles.load(name, folders)
    folder = next(f for f in folders if (f / name / "profile.toml").is_file())
    return profile, folder / name / "samples"


def _alone(start: Callable[[Any], Callable[[], str]]) -> None:
    """Runs one simulator on a reactor of its own until Ctrl-C or its end, with a line every few seconds."""
    from twisted.internet import reactor as the_reactor
    from twisted.internet.task import LoopingCall

    reactor: Any = the_reactor
    say = start(reactor)
    LoopingCall(lambda: errors.print(say(), markup=False)).start(live.PLAIN_SECONDS, now=False)
    with contextlib.suppress(KeyboardInterrupt):
        reactor.run()
    console.print(say(), markup=False)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        fail(f'expected "host:port", got "{text}"', USAGE)
    return host, int(port)


Faulted = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="NAME[:RATE]", help="A fault and its share of the messages, 0.1 by default; repeatable."),
]
Kept = Annotated[Path | None, typer.Option("--keep", help="Append what was acknowledged or received to this file, JSON lines.")]


def _list_faults(wanted: bool) -> None:
    from labbridge.simulators.faults import FAULTS, SIDES

    if wanted:
        for name, fault in FAULTS.items():
            console.print(f"{name:14} {fault.what} For {', '.join(SIDES[side] for side in fault.sides)}.", markup=False)
        raise typer.Exit


def simulate(
    list_faults: Annotated[
        bool, typer.Option("--list-faults", callback=_list_faults, is_eager=True, help="Say what each fault does, and for whom.")
    ] = False,
) -> None:
    """One simulator: an analyzer of any profile, or a hospital."""


def _faults(texts: list[str] | None, side: Any, seed: int) -> Any:
    """The faults as told on the command line; a name that makes no sense here is wrong usage."""
    from labbridge.simulators.faults import Faults, parse

    try:
        return Faults(parse(texts or [], side), random.Random(seed or None))  # noqa: S311 (a game, no secret)
    except ValueError as error:
        fail(f"--fault: {error}", USAGE)


def _keeper(keep: Path | None) -> Callable[[bytes, str], None]:
    def told(message: bytes, fate: str) -> None:
        if keep is not None:
            line = {"at": time.time(), "fate": fate, "message": message.decode("utf-8", "backslashreplace")}
            with keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return told


def simulate_analyzer(
    profile: Annotated[str, typer.Argument(help="The profile it speaks.")],
    connect: Annotated[str, typer.Option("--connect", help="Where labbridge listens, host:port.")] = "127.0.0.1:5001",
    rate: Annotated[float, typer.Option("--rate", help="Messages a second; 0: as fast as they are acknowledged.")] = 1.0,
    count: Annotated[int, typer.Option("--count", help="Stop after so many; 0: never.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same results.")] = 0,
    folder: Annotated[Path | None, typer.Option("--analyzers", help="A folder of your own profiles.")] = None,
    fault: Faulted = None,
    keep: Kept = None,
) -> None:
    """An analyzer that plays its profile's samples with fresh specimen ids, times and values."""
    from labbridge.simulators import AnalyzerSimulator

    folders = [f for f in (folder, revision.packaged("analyzers")) if f is not None]
    host, port = _address(connect)
    try:
        loaded, samples = sample_folder(profile, folders)
    except profiles.ProfileError as error:
        fail(str(error), CONFIGURATION)
    faults = _faults(fault, "hl7" if loaded.framing == "mllp" else "astm", seed)

    def start(reactor: Any) -> Callable[[], str]:
        more: Any = {"rate": rate, "count": count or None, "seed": seed or None, "finished": reactor.stop}
        simulator = AnalyzerSimulator(reactor, loaded, samples, host, port, UTC, **more, faults=faults, told=_keeper(keep))
        simulator.start()
        return lambda: f"sent {simulator.sent} acknowledged {simulator.acknowledged} refused {simulator.refused}"

    _alone(start)


def simulate_hospital(
    listen: Annotated[str, typer.Option("--listen", help="host:port")] = "127.0.0.1:6661",
    delay: Annotated[float, typer.Option("--delay", help="Seconds before each answer.")] = 0.0,
    down: Annotated[float, typer.Option("--down", help="Listen only after so many seconds.")] = 0.0,
    keep: Kept = None,
    fault: Faulted = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same faults.")] = 0,
) -> None:
    """A hospital that acknowledges and keeps what it gets; faults befall its answers."""
    from labbridge.simulators import Hospital

    host, port = _address(listen)
    faults = _faults(fault, "hospital", seed)

    def start(reactor: Any) -> Callable[[], str]:
        hospital = Hospital(reactor, host, port, answer_delay=delay, down_for=down, keep=keep, faults=faults)
        hospital.start()
        return lambda: f"received {hospital.received} distinct {hospital.distinct} repeated {hospital.repeated}"

    _alone(start)
