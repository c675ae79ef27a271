"""The ledger's verification on demand: `labbridge verify` as a process of its own, one at a time, with its progress."""

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

NICE = 10


class Result(msgspec.Struct):
    """What `labbridge verify --json` says."""

    facts: int
    transactions: int
    erased: int
    head: str
    problems: list[str]


class _Progress(msgspec.Struct):
    done: int
    total: int


class Proof:
    """The last verification of this console's process, and the one at work."""

    def __init__(self) -> None:
        self.share: float | None = None  # how much is done of the one at work, 0 to 1; None: there is none
        self.result: Result | None = None
        self.at = 0  # when the last one ended, microseconds since 1970
        self.error = ""  # why the last one told nothing

    async def run(self, config: Path) -> None:
        """Verifies, unless it is being done already; an orphan ends by itself, since nobody reads what it tells."""
        if self.share is not None:
            return
        self.share, self.error = 0.0, ""
        command = (sys.executable, "-m", "labbridge", "verify", "--json", "--progress", "-c", str(config))
        process = None
        try:
            pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(*command, stdin=none, stdout=pipe, stderr=pipe)
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            await self._follow(process)
        except OSError as error:
            self.error = str(error)
        finally:
            self.share, self.at = None, time.time_ns() // 1000
            if process is not None and process.returncode is None:
                process.kill()

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        said = ""
        while line := await process.stderr.readline():
            try:
                progress = msgspec.json.decode(line, type=_Progress)
                self.share = progress.done / max(1, progress.total)
            except msgspec.MsgspecError:
                said = line.decode("utf-8", "replace").strip()
        told = await process.stdout.read()
        await process.wait()
        try:
            self.result = msgspec.json.decode(told, type=Result)
        except msgspec.MsgspecError:
            self.error = said or f"exit status {process.returncode}"


proof = Proof()
