"""Hospitals that other people wrote: python-hl7's asyncio server and hl7apy's threaded one, in their own words."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server
from hl7apy.core import Message
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message


class Remembering:
    """What a foreign hospital took, in order of arrival, before it answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.messages: list[tuple[str, str]] = []  # control id, text
        self.connections = 0
        self.faults: list[Exception] = []

    def took(self, control_id: str, text: str) -> None:
        self.messages.append((control_id, text))

    def of(self, specimen: str) -> list[tuple[str, str]]:
        """What it took for a specimen."""
        return [(control_id, text) for control_id, text in self.messages if f"|{specimen}|" in text]


class AsyncioHospital(Remembering):
    """python-hl7: reads with `readmessage`, answers with `create_ack`; what it cannot read ends its handler."""

    def __init__(self, port: int, *, code: Callable[[hl7.Message], str | None] = lambda message: "AA", **server: Any) -> None:
        super().__init__(port)
        self.code = code  # None: it hangs up without an answer
        self.server = server  # encoding and limit, as python-hl7 has them
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()
        self._end: asyncio.Event

    def __enter__(self) -> "AsyncioHospital":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._handlers: set[asyncio.Task[Any]] = set()
        async with await start_hl7_server(self._accept, "127.0.0.1", self.port, **self.server):
            self._ready.set()
            await self._end.wait()
            for task in self._handlers:
                task.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            while True:
                message = await reader.readmessage()
                self.took(str(message["MSH.F10"]), str(message))
                code = self.code(message)
                if code is None:
                    return
                writer.writemessage(message.create_ack(code))
                await writer.drain()
        except asyncio.IncompleteReadError:
            return
        except (ValueError, OSError) as fault:  # UnicodeDecodeError is one, and so is a message above its limit
            self.faults.append(fault)
        finally:
            self._handlers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Hl7apyHospital(Remembering):
    """hl7apy: one message a connection, which it closes behind its answer; a type without a handler gets none."""

    def __init__(self, port: int, *types: str) -> None:
        super().__init__(port)
        hospital = self

        class Handler(AbstractHandler):  # type: ignore[misc]
            def reply(self) -> str:
                hospital.connections += 1
                message = parse_message(self.incoming_message)
                hospital.took(message.msh.msh_10.value, self.incoming_message)
                answer = Message("ACK", version="2.5.1")
                answer.msh.msh_9 = "ACK^R01^ACK"
                answer.msa = f"MSA|AA|{message.msh.msh_10.value}"
                return str(answer.to_mllp())

        class Server(MLLPServer):  # type: ignore[misc]
            daemon_threads = True
            block_on_close = True

            def handle_error(self, request: Any, address: Any) -> None:
                """A peer that hung up is no fault to print."""

        self._server = Server("127.0.0.1", port, dict.fromkeys(types, (Handler,)), timeout=5)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Hl7apyHospital":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
