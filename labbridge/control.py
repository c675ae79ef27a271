"""The control socket: a Unix socket, mode 0600, one JSON object a line each way.

A request is a ``commands.Request``; the answer ``{"ok": true, "said": [...]}`` or ``{"ok": false, "error": "..."}``, in
English; beside them ``words`` and ``why_words`` hold the same as templates and values, to be told in another language. The
actor is the user id of the peer, as the kernel tells it. Besides the commands that change the store there are
``status``, ``pause``, ``resume`` and ``reload``, which the daemon answers itself.
"""

import os
import pwd
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import protocol
from twisted.internet.error import CannotListenError

from labbridge.commands import Request
from labbridge.links.tcp import ListenError
from labbridge.said import Said, worded

MAX_LINE = 1 << 20
Reply = Callable[[dict[str, Any]], None]
Execute = Callable[[Request, str, Reply], None]


class ControlProtocol(protocol.Protocol):
    """One client at the control socket."""

    transport: Any

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._buffer = b""

    def connectionMade(self) -> None:  # noqa: N802 (Twisted's name)
        """Learns from the kernel who is asking."""
        handle = self.transport.getHandle()
        _, uid, _ = struct.unpack("3i", handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        try:
            self._actor = pwd.getpwuid(uid).pw_name
        except KeyError:
            self._actor = f"uid {uid}"

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's name)
        """Takes whole lines; each is one request."""
        self._buffer += data
        if len(self._buffer) > MAX_LINE:
            self.transport.abortConnection()
            return
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            try:
                request = msgspec.json.decode(line, type=Request)
            except msgspec.MsgspecError as error:
                self._reply({"ok": False, "error": Said("not a command: {fault}", fault=str(error))})
            else:
                self._execute(request, self._actor, self._reply)

    def _reply(self, answer: dict[str, Any]) -> None:
        self.transport.write(msgspec.json.encode(worded(answer)) + b"\n")


def listen(reactor: Any, path: Path, execute: Execute) -> Any:
    """Opens the control socket; only its owner may connect. Raises ListenError."""
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex(str(path)) == 0:  # a server's store tells only later that it is taken
            raise ListenError(f"another labbridge listens at {path} - stop it, or give this one a [control] path of its own")
    path.unlink(missing_ok=True)
    factory = protocol.Factory.forProtocol(partial(ControlProtocol, execute))
    factory.noisy = False
    before = os.umask(0o177)
    try:
        return reactor.listenUNIX(str(path), factory, mode=0o600)
    except CannotListenError as error:
        why = error.socketError.strerror or str(error.socketError)
        raise ListenError(f"cannot listen at {path}: {why.lower()} - choose another path") from error
    finally:
        os.umask(before)
