"""Asking the daemon: one request over its control socket, and the answer; for the command line and the console."""

import socket
from pathlib import Path
from typing import Any

import msgspec

from labbridge.commands import Request


def ask(path: Path, request: Request, timeout: float = 60.0) -> dict[str, Any]:
    """Sends one request to a running daemon and waits for its answer.

    Raises ConnectionError when no daemon listens there, and OSError when one does and does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionError(f"no daemon listens at {path}") from error
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as answers:
                answer = answers.readline()
        except ConnectionError:
            answer = b""
        if not answer.endswith(b"\n"):  # never to be taken for a daemon that is not there: it may have done what was asked
            raise OSError("it ended before it answered; see with `labbridge trace` or `queue list` whether it was done")
    return msgspec.json.decode(answer, type=dict[str, Any])
