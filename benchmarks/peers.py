"""Servers that install from a package index, each as its documentation shows it: parse, acknowledge, store nothing.

    peers.py python-hl7     its asyncio MLLP server: each message parsed, answered by ``create_ack``
    peers.py hl7apy         its MLLP server, a thread for each connection, which it closes after one answer

Listens on a free port of the loopback and prints ``{"port": ...}``; at SIGTERM ``{"messages": ...}``.
"""

import asyncio
import json
import signal
import sys
from typing import ClassVar

import hl7.mllp
from hl7apy.core import Message
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message


def started(port: int) -> None:
    """Says where it listens."""
    print(json.dumps({"port": port}), flush=True)


async def python_hl7() -> int:
    """Serves until SIGTERM; returns how many messages were acknowledged."""
    messages = 0

    async def talk(reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
        nonlocal messages
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                writer.writemessage(message.create_ack())
                await writer.drain()
                messages += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    server = await hl7.mllp.start_hl7_server(talk, host="127.0.0.1", port=0, backlog=256)
    started(server.sockets[0].getsockname()[1])
    await enough.wait()
    server.close()
    return messages


class Acknowledging(AbstractHandler):
    """Parses a message and answers AA."""

    messages: ClassVar[int] = 0

    def reply(self) -> str:
        """The answer to a message, in its block."""
        message = parse_message(self.incoming_message)
        answer = Message("ACK", version=message.version)
        answer.msh.msh_9 = "ACK"
        answer.msa.msa_1 = "AA"
        answer.msa.msa_2 = message.msh.msh_10.value
        Acknowledging.messages += 1
        return answer.to_mllp()


class Server(MLLPServer):
    """With room for the connections of a load."""

    request_queue_size = 256
    daemon_threads = True


def hl7apy() -> int:
    """Serves until SIGTERM; returns how many messages were acknowledged."""
    with Server("127.0.0.1", 0, {"ORU^R01": (Acknowledging,)}, timeout=60) as server:
        started(server.server_address[1])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        try:
            server.serve_forever()
        except SystemExit:
            server.block_on_close = False
    return Acknowledging.messages


if __name__ == "__main__":
    counted = hl7apy() if sys.argv[1] == "hl7apy" else asyncio.run(python_hl7())
    print(json.dumps({"messages": counted}), flush=True)
