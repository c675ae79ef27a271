"""The console's process: started, watched, started again, and ended with the daemon.

It writes a byte a second to its standard output. One that died is back in a moment; one that was stopped, or hangs, is killed,
since it might keep a read transaction open for ever and with it the write-ahead log. Its standard input is a pipe that nobody
writes to: its end tells the console that the daemon is gone, however that came about.
"""

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import structlog
from twisted.internet import protocol
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import LoopingCall

from labbridge.config.settings import Console

log = structlog.get_logger()

State = Literal["off", "starting", "running", "down"]

TICK_S = 1.0
SILENT_TICKS, START_TICKS = 10, 60  # without a byte: of one that ran, of one that starts
AGAIN_S, AGAIN_LONGEST_S = 0.25, 30.0  # the pause before it is started again, doubled while it does not stay
STAYS_TICKS = 10  # one that ran so long was well
STOP_S = 3.0  # from SIGTERM to SIGKILL
NICE = 5  # the analyzers come first


class Watcher:
    """Keeps one process running for as long as it is wanted."""

    def __init__(self, command: Sequence[str], reactor: Any) -> None:
        self._command = list(command)
        self._reactor = reactor
        self._wanted: object = None  # what it was started for
        self._process: Any = None
        self._beats = self._silent = 0  # ticks with a byte, ticks since the last one
        self._pause = AGAIN_S
        self._later: Any = None  # the next start, or the kill
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    @property
    def idle(self) -> bool:
        """Whether there is no process and none is to come."""
        return self._process is None and self._later is None

    @property
    def state(self) -> State:
        """How the console stands."""
        if self._process is None:
            return "down" if self._wanted else "off"
        return "running" if self._beats else "starting"

    def want(self, settings: Console | None) -> None:
        """Runs the console as these settings and their files want it, or not at all; one that runs so already stays."""
        wanted = (settings, *_contents(settings)) if settings is not None and settings.listen is not None else None
        if wanted == self._wanted:
            return
        self._wanted, self._pause = wanted, AGAIN_S
        if self._process is not None:
            self._end()
        elif self._later is not None:
            self._later.cancel()
            self._later = None
            self._ticking.stop()
        if wanted is not None and self._process is None:
            self._start()

    def _start(self) -> None:
        self._later = None
        self._beats = self._silent = 0
        self._process = self._reactor.spawnProcess(
            _Child(self), self._command[0], self._command, env=os.environ, childFDs={0: "w", 1: "r", 2: 2}
        )
        try:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        except OSError as error:  # it is gone already
            log.debug("the console has its own priority", why=error.strerror)
        if not self._ticking.running:
            self._ticking.start(TICK_S, now=False)

    def beat(self) -> None:
        """The process said something."""
        self._silent = 0
        self._beats = self._beats or 1

    def _tick(self) -> None:
        """A second is over; counted in turns of the reactor, so that a daemon that slept blames nobody."""
        reapAllProcesses()
        if self._process is None:
            return
        self._silent += 1
        self._beats += bool(self._beats)
        if self._silent >= (SILENT_TICKS if self._beats else START_TICKS):
            log.warning("the console does not answer: killed", seconds=self._silent)
            self._kill()

    def _end(self) -> None:
        self._signal("TERM")
        if self._later is None:
            self._later = self._reactor.callLater(STOP_S, self._kill)

    def _kill(self) -> None:
        self._signal("KILL")
        reapAllProcesses()

    def _signal(self, name: str) -> None:
        try:
            self._process.signalProcess(name)
        except ProcessExitedAlready:  # its end is about to be told
            log.debug("the console has ended already")

    def ended(self, process: Any, why: str) -> None:
        """The process is gone."""
        process.loseConnection()
        if self._later is not None:
            if self._later.active():
                self._later.cancel()
            self._later = None
            why = ""  # it was asked to
        stayed, self._process = self._beats > STAYS_TICKS, None
        if self._wanted is None:
            self._ticking.stop()
        elif not why:
            self._start()
        else:
            pause = self._pause = AGAIN_S if stayed else self._pause
            self._pause = min(2 * pause, AGAIN_LONGEST_S)
            log.warning("the console ended, starting it again", why=why, seconds=pause)
            self._later = self._reactor.callLater(pause, self._start)


class _Child(protocol.ProcessProtocol):
    """The process's pipes."""

    transport: Any

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def outReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's name)
        """It lives."""
        self._watcher.beat()

    def processExited(self, reason: Any) -> None:  # noqa: N802 (Twisted's name)
        """It is gone; what it started may still hold its pipes."""
        how = reason.value
        self._watcher.ended(self.transport, f"signal {how.signal}" if how.signal else f"exit status {how.exitCode}")


def _contents(settings: Console) -> list[bytes]:
    """Digests of the certificate and its key, which a renewal changes in place."""
    files = [file for file in (settings.tls.certificate, settings.tls.key) if file is not None]
    return [sha256(file.read_bytes()).digest() for file in files]
