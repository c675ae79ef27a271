"""The daemon: builds everything from the configuration; starts, reloads, stops.

Start: the store is opened (or, on PostgreSQL, waited for), what an earlier run left behind is taken up (queue, broken
transmissions), then intake accepts. Until then analyzers hear NAK or AE. Reload (SIGHUP) touches only what changed; a
wrong configuration changes nothing. Stop (SIGTERM) settles the acknowledgements in flight and ends within ten seconds.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from labbridge import accounts, commands, config, control, memory, revision, security, web
from labbridge.batch import break_off
from labbridge.commands import CommandError, Done, Request
from labbridge.commands.identity import still_moving, withdraw_late
from labbridge.config import Settings
from labbridge.destinations import Destinations, queue_of
from labbridge.intake import Intake
from labbridge.keeping import Keeper
from labbridge.lanes import Queued
from labbridge.links.tcp import ListenError
from labbridge.links.tls import SecurityError
from labbridge.metrics import Metrics
from labbridge.pipeline import Moment, Revision
from labbridge.said import Said, not_carried_out
from labbridge.saving import MapSaver
from labbridge.sessions import Desk
from labbridge.stations import Station, renewed
from labbridge.store import Store, StoreState, Transaction
from labbridge.watching import Watcher

COMMANDS = commands.COMMANDS | accounts.COMMANDS

log, twisted_log = structlog.get_logger(), Logger()

STOP_SECONDS = 6.0  # and two for the store: ten in all is promised
HEAD_S = 3600.0  # the ledger's head is logged so often, and at the stop
CATCH_UP_S = 5.0  # what nobody sends again, and could not be stored, is tried again so often
PORT_SECONDS = 0.01  # Twisted closes a listening socket in a later turn of the reactor


class Daemon:
    """Everything that runs, on one reactor."""

    def __init__(self, settings: Settings, path: Path, reactor: Any, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.path = path
        self.reactor = reactor
        self.clock = clock
        self.revision: Revision
        self.revision, notices = revision.build(settings, self.path)
        for notice in (*notices, *security.notices(settings)):
            log.warning(notice)
        self.metrics = Metrics()
        wake = reactor.callFromThread
        self.store = Store(settings.store.url, clock=clock, wake=wake, on_state=self._store_changed, in_turns=True)
        self.destinations = Destinations(self.store, self.metrics, reactor, clock)
        self.destinations.late = self._late
        self.intake = Intake(self.store, self.revision, self.destinations.enqueue, self.metrics, clock)
        self.stations: dict[str, Station] = {}
        self.keeper = Keeper(self.store, settings.store.keep, reactor, clock)
        self.desk = Desk(self.store, settings.console.idle, reactor.seconds, wake)
        self.maps = MapSaver(path, self.store, self.reload, lambda: self.revision.digest)
        self.console = Watcher([sys.executable, "-m", "labbridge.console", "-c", str(path)], reactor)
        self._control: Any = None
        self._web: Any = None
        self._taken_up = False
        self._taking_up = False
        self._stopping = False
        self.exit_status = 0
        self.on_accepting: Callable[[], None] = lambda: None

    # -- start ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens the store and the ports. Raises StoreError, or ListenError, with a text for a person."""
        if wrong := list(security.mistakes(self.settings, self.path)):
            raise ListenError("\n".join(wrong))
        for destination in self.settings.destinations:
            self.destinations.add(*self.destinations.built(destination))
        self.store.open()
        at: tuple[str | int, ...] = ()
        try:
            for index, analyzer in enumerate(self.settings.analyzers):
                at = "analyzer", index, "listen"
                station = self.stations[analyzer.name] = Station(analyzer, self)
                station.start()
            at = "control", "path"
            self._control = control.listen(self.reactor, self.settings.control.path, self.execute)
            if self.settings.http.listen is not None:
                at = "http", "listen"
                self._web = web.listen(self.reactor, self.settings.http.listen, self)
        except ListenError as error:
            raise ListenError(config.place(self.path, *at) + str(error)) from error
        self.console.want(self.settings.console)
        log.info(
            "listening",
            analyzers=len(self.stations),
            destinations=len(self.settings.destinations),
            revision=self.revision.digest.hex()[:12],
            store=str(self.settings.store),
            console=self.settings.console.url,
        )

    def _store_changed(self, state: StoreState) -> None:
        if state.name == "ready":
            log.info("store ready")
            if self._taken_up:
                self.destinations.read_again()
            elif not self._taking_up:
                self._taking_up = True
                self.store.submit(self._take_up, self._took_up, self._take_up_failed)
        elif state.name in ("locked", "unusable"):
            log.error("this store cannot be used", why=state.why)
            self.exit_status = 1
            self.stop()
        elif state.name == "unavailable":
            log.error("store unavailable: analyzers are asked to send again until it comes", why=state.why)

    def _take_up(self, tx: Transaction) -> tuple[int, list[Queued], list[tuple[str, int, bytes]]]:
        """What an earlier run left behind: spooled frames become incomplete messages, the queue goes on.

        What it had cancelled for a corrected id may have arrived: nobody knows any more what had been sent.
        """
        break_off(tx)
        for parts in still_moving(tx).values():
            for part in parts:
                self._late(tx, part)
        number = tx.revision(self.revision.digest, self.revision.body)
        incomplete = [(a.name, number, body) for a in self.settings.analyzers for number, body in tx.open_incomplete(a.name)]
        return number, queue_of(tx), incomplete

    def _took_up(self, left: tuple[int, list[Queued], list[tuple[str, int, bytes]]]) -> None:
        self._taken_up = True
        self.intake.revision_id, queued, incomplete = left
        for analyzer, number, body in incomplete:
            self.intake.remember_incomplete(analyzer, number, body)
        self.destinations.left_behind(queued)
        self.intake.accepting = True
        self._catch_up()
        self._log_head()
        self.keeper.start()
        log.info("accepting", queued=len(queued))
        self.destinations.start()
        self.on_accepting()

    def _catch_up(self) -> None:
        self.intake.catch_up()
        self.destinations.settle_moves()
        self.reactor.callLater(CATCH_UP_S, self._catch_up)

    def _log_head(self) -> None:
        """Says where the ledger ends: what is noted outside of the store proves that it was not written anew."""
        log.info("ledger head", head=str(self.store.head))
        self.reactor.callLater(HEAD_S, self._log_head)

    def _take_up_failed(self, error: Exception) -> None:
        log.error("the store could not be read, trying again", error=type(error).__name__)
        self.reactor.callLater(1.0, self.store.submit, self._take_up, self._took_up, self._take_up_failed)

    # -- commands ------------------------------------------------------------------------------------------------

    def execute(self, request: Request, actor: str, reply: control.Reply) -> None:
        """Carries out a command of the control socket, for those who may."""
        self.desk.admit(request, actor, reply, self._carry_out)

    def _carry_out(self, request: Request, actor: str, reply: control.Reply) -> None:
        if request.command == "status":
            reply({"ok": True, "status": self.status()})
        elif request.command in ("pause", "resume"):
            self._pause(request, actor, reply)
        elif request.command == "reload":
            self._reload_for(request, actor, reply)
        elif request.command == "map":
            self.maps.save(request, actor, reply)
        elif request.command in COMMANDS:
            self._run(request, actor, reply)
        else:
            reply({"ok": False, "error": Said("no such command: {command}", command=request.command)})

    def _run(self, request: Request, actor: str, reply: control.Reply) -> None:
        command, compiled = COMMANDS[request.command], self.revision
        moment = Moment.of(self.clock(), compiled.zone, os.urandom)

        def job(tx: Transaction) -> Done:
            what = command(tx, compiled, moment, request, actor)
            self.destinations.gone.update(what.removed)
            return what

        def done(what: Done) -> None:
            self.destinations.follow(what)
            reply({"ok": True, "said": what.said, "answer": what.answer})

        def failed(error: Exception) -> None:
            reply({"ok": False, "error": error.said if isinstance(error, CommandError) else not_carried_out(error)})

        self.store.submit(job, done, failed)

    def _late(self, tx: Transaction, delivery: int) -> list[Queued]:
        """What follows when a withdrawn delivery arrived all the same."""
        moment = Moment.of(self.clock(), self.revision.zone, os.urandom)
        try:
            return withdraw_late(tx, self.revision, moment, delivery).queued
        except Exception as error:  # all else in the transaction must not wait for it; what the store refused fails it anyhow
            log.error("what may have arrived under a wrong id could not be withdrawn: tell the ward", delivery=delivery)
            why = str(error) if isinstance(error, CommandError) else type(error).__name__
            row = tx.find_delivery(delivery)
            told = {"subject": f"report {row.report_id if row else 0}", "old": f"delivery {delivery}"}
            new = "arrived, or may have: could not be withdrawn"
            tx.audit(actor="labbridge", action="confirm-id", reason=why, new=new, **told)
            return []

    def _pause(self, request: Request, actor: str, reply: control.Reply) -> None:
        outbox = self.destinations.outboxes.get(request.destination)
        if outbox is None:
            reply({"ok": False, "error": Said("no such destination: {name}", name=request.destination)})
            return
        paused = request.command == "pause"
        old = "paused" if outbox.paused else "running"
        new = "paused" if paused else "running"

        def job(tx: Transaction) -> None:
            subject = f"destination {outbox.name}"
            tx.audit(actor=actor, action=request.command, subject=subject, reason=request.reason, old=old, new=new)

        def done(_: None) -> None:
            outbox.pause(paused)
            reply({"ok": True, "said": [Said("{name}: {state}", name=outbox.name, state=Said(new))]})

        self.store.submit(job, done, lambda error: reply({"ok": False, "error": type(error).__name__}))

    def _reload_for(self, request: Request, actor: str, reply: control.Reply) -> None:
        old = self.revision.digest.hex()[:12]

        def over(problems: list[str]) -> None:
            answer = {"ok": not problems, "said": [] if problems else [Said("reloaded")], "error": "; ".join(problems)}
            told = {"actor": actor, "action": "reload", "subject": "configuration", "reason": request.reason}
            new = problems[0] if problems else self.revision.digest.hex()[:12]
            self.store.submit(lambda tx: tx.audit(**told, old=old, new=new), lambda _: reply(answer), lambda _: reply(answer))

        self.reload().addCallback(over)

    # -- reload --------------------------------------------------------------------------------------------------

    def reload(self) -> Any:
        """Reads the configuration anew and changes what changed; on any mistake, of ours too, nothing changes.

        A Deferred of the mistakes: a port is listened on again only after its old listener has let it go.
        """
        return defer.maybeDeferred(self._reload).addErrback(_fault)

    def _reload(self) -> Any:
        try:
            settings = config.load(self.path)
            compiled, notices = revision.build(settings, self.path)
            wrong = "\n".join(security.mistakes(settings, self.path))
            dropped, added = config.changes(self.settings.destinations, settings.destinations)
            # This too may fail: the files may have changed since they were proven.
            built = [self.destinations.built(one) for one in added if not wrong]
        except (config.ConfigError, revision.RevisionError, SecurityError) as error:
            wrong = str(error)
        if wrong:
            log.error("the configuration is wrong, the old one stays in force", problems=wrong)
            return defer.succeed(wrong.splitlines())
        if settings.store != self.settings.store or settings.control != self.settings.control:
            message = "[store] and [control] cannot change while running: restart labbridge"
            log.error(message)
            return defer.succeed([message])
        for notice in (*notices, *security.notices(settings)):
            log.warning(notice)
        old, self.settings = self.settings, settings
        self.desk.sessions.idle = settings.console.idle
        gone, new = config.changes(old.analyzers, settings.analyzers)
        for station in [self.stations[analyzer.name] for analyzer in gone if analyzer.name in self.stations]:
            if station.analyzer.name not in {a.name for a in new} or not station.adapt(settings):
                self.stations.pop(station.analyzer.name).stop("the configuration changed")
        self.revision = compiled
        self.intake.revise(compiled)
        self.destinations.change(dropped, built)
        self.console.want(settings.console)
        problems = renewed(*self.stations.items(), *self.destinations.connections.items())
        return task.deferLater(self.reactor, PORT_SECONDS, self._start_stations, problems)

    def _start_stations(self, problems: list[str]) -> list[str]:
        """Starts the analyzers that have no station; adds what went wrong."""
        for index, analyzer in enumerate(self.settings.analyzers):
            if analyzer.name in self.stations or self._stopping:
                continue
            try:
                station = Station(analyzer, self)
                station.start()
                self.stations[analyzer.name] = station
            except (ListenError, SecurityError) as error:
                problems.append(config.place(self.path, "analyzer", index, getattr(error, "key", "listen")) + str(error))
            except Exception:  # the others start all the same
                problems += _fault(Failure())
        for problem in problems:
            log.error(problem)
        log.info("reloaded", revision=self.revision.digest.hex()[:12])
        return problems

    # -- stop ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Takes no more, settles what is in flight, closes the store, ends the reactor."""
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping")
        for station in self.stations.values():
            station.quiet()
        self.keeper.stopping = True
        self.console.want(None)
        self.destinations.quiet()
        self._wind_down(self.reactor.seconds() + STOP_SECONDS)

    def _wind_down(self, until: float) -> None:
        if not (self.intake.idle and self.destinations.idle and self.console.idle) and self.reactor.seconds() < until:
            self.reactor.callLater(0.05, self._wind_down, until)
            return
        for station in self.stations.values():
            station.stop("labbridge stops")
        self.destinations.stop("labbridge stops")
        if self._control is not None:
            self._control.stopListening()
        self.desk.close()
        self.reactor.callLater(0.1, self._end)

    def _end(self) -> None:
        self.store.close(2.0)
        log.info("ledger head", head=str(self.store.head))
        log.info("stopped")
        self.reactor.stop()

    # -- what people see -----------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How everything stands, for the terminal, the control socket and health checks."""
        return {
            "store": self.store.state.name,
            "revision": self.revision.digest.hex(),
            "console": self.console.state,
            "analyzers": [station.status() for station in self.stations.values()],
            "destinations": self.destinations.status(),
        }


def _fault(failure: Failure) -> list[str]:
    twisted_log.failure("a fault while the configuration was read again", failure)
    return [f"not carried out: {failure.type.__name__ if failure.type else failure}"]


def run(settings: Settings, path: Path, started: Callable[[Daemon], None] | None = None) -> int:
    """Runs the daemon until it is told to stop; returns the exit status. ``started`` is called once it listens."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    reactor.seconds = time.monotonic  # a step of the clock must not move the protocols' timers
    memory.settle()
    sys.setswitchinterval(0.002)  # the reactor answers while the writer computes
    daemon = Daemon(settings, path, reactor, time.time)

    def on_signal(number: int, _frame: Any) -> None:
        what = daemon.reload if number == signal.SIGHUP else daemon.stop
        reactor.callFromThread(what)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # before anybody can be answered
        signal.signal(number, on_signal)
    daemon.start()
    if started is not None:
        started(daemon)
    reactor.run(installSignalHandlers=False)
    return daemon.exit_status
