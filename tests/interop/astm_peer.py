"""An ASTM peer that is not ours: python-astm (its fork astm-2025), run as a process of its own.

    python -m tests.interop.astm_peer send PORT FILE [SIZE]     an analyzer sends a file's records, a frame each, or frames of SIZE
    python -m tests.interop.astm_peer serve PORT               a host prints each record it takes

It prints JSON, one line for each record: of an analyzer, whether the host accepted it. The sessions, the frames and their
checksums are python-astm's. Two things in it are still Python 2's: it writes to sockets through `buffer`, and takes text for
bytes; here it is given both. Its ways are its own: after NAK it goes on with the next record, and after EOT it bids at once.
"""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from astm import asynclib
from astm.client import Client, Emitter
from astm.constants import EOT
from astm.server import BaseRecordsDispatcher, Server

asynclib.buffer = lambda data, at, size: memoryview(data)[at : at + size]


class BytesEmitter(Emitter):
    """Fields go to the encoder as bytes, as text was in Python 2; the last record is told by its letter all the same."""

    def _send_record(self, record: list[str]) -> bytes:
        data: bytes = super()._send_record([field.encode() for field in record])
        if record[0] == "L":
            self.last_seq = 0
            self.buffer.append(EOT)
        return data


def send(port: str, file: str, size: str = "") -> None:
    def emit() -> Iterator[list[str]]:
        for record in Path(file).read_text("utf-8").splitlines():
            accepted = yield record.split("|")
            print(json.dumps([record[0], accepted]), flush=True)

    Client.emitter_wrapper = BytesEmitter
    Client(emit, "127.0.0.1", int(port), timeout=60, flow_map=None, chunk_size=int(size) if size else None).run(0.05)


def serve(port: str) -> None:
    class Dispatcher(BaseRecordsDispatcher):
        def _default_handler(self, record: list[object]) -> None:
            print(json.dumps(record), flush=True)

    server = Server("127.0.0.1", int(port), dispatcher=Dispatcher, encoding="utf-8")
    print(json.dumps("ready"), flush=True)
    server.serve_forever(0.05)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, force=True)
    {"send": send, "serve": serve}[sys.argv[1]](*sys.argv[2:])
