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
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol
from twisted.internet.serialport import SerialPort
from twisted.python.failure import Failure

from labbridge.links.retry import Retrying, State
from labbridge.links.stream import LinkHandler, Machine


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

    def _open(self) -> Any:
        """Twisted's transport, with nobody above it yet: it cannot be closed before it is made."""
        line = self._settings
        return SerialPort(
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
        port.getPeer = lambda: self._device
        port.abortConnection = lambda: _abort(port)
        port.protocol = link.twisted
        lost = link.twisted.connectionLost

        def ended(reason: Any) -> None:
            lost(reason)
            self._down(reason.getErrorMessage())

        link.twisted.connectionLost = ended
        link.twisted.makeConnection(port)


def _abort(port: Any) -> None:
    """Closes in the next turn of the reactor, as TCP does.

    What the system still holds is dropped, for closing would wait for a line that is stopped.
    """

    def close() -> None:
        if port.connected:
            with contextlib.suppress(OSError, termios.error):
                port.flushOutput()
            port.stopReading()
            port.stopWriting()
            port.connectionLost(Failure(ConnectionAborted()))

    port.reactor.callLater(0, close)
