"""A serial line: a device that is opened, and opened again when it was away.

The line has no peer that connects: it is there as long as the device is. A cable that is pulled at the other end is
noticed by nobody; an adapter that is pulled is an outage like that of a connection.
"""

import contextlib
import fcntl
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from serial import SerialException
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.serialport import SerialPort
from twisted.python.failure import Failure

from labbridge.links.retry import Retrying, State
from labbridge.links.stream import LinkHandler, Machine

DRAIN_S = 0.05  # how often it is asked whether what was written has left


class LineSettings(NamedTuple):
    """How the line is set; the defaults are those of LIS01-A2 (9600 bit/s, 8 data bits, no parity, 1 stop bit)."""

    baud: int = 9600
    bytesize: int = 8
    parity: str = "N"
    stopbits: int = 1
    flow: str = "none"  # or xonxoff, rtscts


class SerialLine(Retrying):
    """Keeps one device open, for itself alone."""

    def __init__(
        self,
        reactor: Any,
        device: Path,
        settings: LineSettings,
        machine: Callable[[], Machine],
        handler: LinkHandler,
        changed: Callable[[State], None],
        *,
        idle_time: float | None = None,
    ) -> None:
        super().__init__(reactor, machine, handler, changed, idle_time)
        self._device, self._settings = str(device), settings

    def _attempt(self) -> None:
        port: Any = None
        try:
            port = self._open()
            fcntl.flock(port.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            port.connectionLost(Failure(ConnectionAborted()))
            self._down(f"{self._device} is in use by another program")
        except (OSError, ValueError, termios.error) as error:
            if port is not None:
                port.connectionLost(Failure(ConnectionAborted()))
            absent = isinstance(error, SerialException) and not Path(self._device).exists()
            self._down(f"{self._device} is not there" if absent else f"{self._device} cannot be opened: {error}")
        else:
            self._connect(port)

    def _open(self) -> "_Port":
        """The transport, with nobody above it yet: it cannot be closed before it is made."""
        line = self._settings
        return _Port(
            Protocol(),
            self._device,
            self._reactor,
            baudrate=line.baud,
            bytesize=line.bytesize,
            parity=line.parity,
            stopbits=line.stopbits,
            xonxoff=line.flow == "xonxoff",
            rtscts=line.flow == "rtscts",
        )

    def _connect(self, port: Any) -> None:
        link = self._new()
        port.protocol = link.twisted
        lost = link.twisted.connectionLost

        def ended(reason: Any) -> None:
            lost(reason)
            self._down(reason.getErrorMessage())

        link.twisted.connectionLost = ended
        link.twisted.makeConnection(port)


class _Port(SerialPort):  # type: ignore[misc]
    """Twisted's transport, closed without ever waiting for the line.

    The system's close of a device waits for what it still holds, up to half a minute on a line that is stopped, and with
    it the reactor. So a close in good order first sees all of it gone, and any other close drops it.
    """

    def getPeer(self) -> str:  # noqa: N802 (Twisted's name)
        """The device."""
        return str(self._serial.port)

    def abortConnection(self) -> None:  # noqa: N802 (Twisted's name)
        """Closes in the next turn of the reactor, as TCP does."""
        self.reactor.callLater(0, self._close, ConnectionAborted())

    def _postLoseConnection(self) -> None:  # noqa: N802 (Twisted's name: all was written that was to be)
        """Closes when that has left; who asked for the close sees to it that it does not take for ever."""
        if self.connected:
            if self._held():
                self.reactor.callLater(DRAIN_S, self._postLoseConnection)
            else:
                self.reactor.callLater(0, self._close, ConnectionDone())

    def _held(self) -> int:
        """Bytes that the system has not sent yet."""
        try:
            return int(self._serial.out_waiting)
        except OSError:  # the device is gone
            return 0

    def _close(self, why: Exception) -> None:
        if self.connected:
            self.stopReading()
            self.stopWriting()
            self.connectionLost(Failure(why))

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 (Twisted's name)
        """The end of it, whoever says so: the device itself, or the reactor when it stops."""
        if self._held():
            with contextlib.suppress(OSError, termios.error):
                self.flushOutput()
        super().connectionLost(reason)
