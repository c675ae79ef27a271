"""The ledger's verification on demand: `labbridge verify` as a process of its own, one at a time, with its progress."""

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

from labbridge.views.ledger import Proof, Result

NICE = 10
proof = Proof()  # of this console's process


class _Progress(msgspec.Struct):
    done: int
    total: int


async def verify(config: Path) -> None:
    """Verifies, unless it is being done already; an orphan ends by itself, since nobody reads what it tells."""
    if proof.share is not None:
        return
    proof.share, proof.error, proof.result = 0.0, "", None
    command = (sys.executable, "-m", "labbridge", "verify", "--json", "--progress", "-c", str(config))
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=none, stdout=pipe, stderr=pipe)
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        assert process.stdout is not None
        assert process.stderr is not None
        said = await _follow(process.stderr)
        told, status = await process.stdout.read(), await process.wait()
        proof.result = msgspec.json.decode(told, type=Result)
    except OSError as error:
        proof.error = str(error)
    except msgspec.MsgspecError:
        proof.error = said or f"exit status {status}"
    finally:
        proof.share, proof.at = None, time.time_ns() // 1000


async def _follow(told: asyncio.StreamReader) -> str:
    """Takes the progress as it is told; what was said last beside it."""
    said = ""
    while line := await told.readline():
        try:
            progress = msgspec.json.decode(line, type=_Progress)
            proof.share = progress.done / max(1, progress.total)
        except msgspec.MsgspecError:
            said = line.decode("utf-8", "replace").strip()
    return said
