"""Runs the daemon under ptrace, and kills it, or makes its disk fail, at a call that is named beforehand.

``python meddler.py PLAN TOLD PREFIX PORTS COMMAND …``: PLAN is a file with one ``Step`` as a JSON object; it is read at the
beginning when it is there, and again at SIGUSR2. What has been done is told as a line of TOLD, a JSON object. PREFIX is the
path of the store; PORTS are ``{"hl7": 10001, "astm": …, "hospital": …}``: the analyzers' are the daemon's own ports, the
hospital's is the other side's. SIGUSR1 kills the command as ``kill -9`` does, SIGTERM is passed on.

A call fails as it does on a sick disk: at its entry its number is made -1, so that the kernel does nothing, and at its return
the result is made the error. A short write does half of what was asked. A stall holds the one thread that calls, for seconds.
"""

import ctypes
import errno
import json
import os
import platform
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture.tracer import CONT, EVENT_SECCOMP, NAMES, SYSCALL, Tracer, _info, _readlink, libc

GETREGSET, SETREGSET = 0x4204, 0x4205
NT_PRSTATUS, NT_ARM_SYSTEM_CALL = 1, 0x404
HOLD = -1  # a request to the kernel that is not made: the thread stays where it is
KINDS = {
    **dict.fromkeys(("pwrite64",), "write"),
    **dict.fromkeys(("fsync", "fdatasync"), "fsync"),
    **dict.fromkeys(("sendto", "sendmsg", "write", "writev"), "send"),
    **dict.fromkeys(("recvfrom", "recvmsg"), "receive"),
    **dict.fromkeys(("ftruncate", "unlink", "unlinkat"), "cut"),
}
# struct user_regs_struct: which of its 8-byte words is the call's number, its third argument, its result
NUMBER, SIZE, RESULT = {"x86_64": (15, 12, 10), "aarch64": (8, 2, 0)}[platform.machine()]


class Step(NamedTuple):
    """What happens to the ``nth`` call of a kind from now on: "kill-before", "kill-after", "short", "stall", or an error.

    ``on`` is a file and a call, such as "wal fsync"; "any" stands for every file of the store, or every call. A stall lasts
    ``seconds``; an error befalls all calls of the kind for so long, and at least one.
    """

    on: str
    nth: int
    do: str
    seconds: float = 0.0


class Meddler(Tracer):
    """Follows one plan after the other."""

    stops = tuple(KINDS)

    def __init__(self, plan: Path, told: Path, prefix: str, ports: dict[str, int]) -> None:
        super().__init__(open(os.devnull, "wb"), prefix)  # noqa: SIM115
        self.plan, self.told, self.ports = plan, told, ports
        self.step: Step | None = None
        self.seen, self.until, self.befallen = 0, 0.0, 0
        self.sockets: dict[str, str] = {}
        self.leaving: dict[
            int, dict[int, int] | None
        ] = {}  # threads inside a call: which registers it ends with; None: the end of all
        self.held: int = 0

    def run(self, command: list[str]) -> int:
        signal.signal(signal.SIGUSR2, lambda *_: self._read())
        signal.signal(signal.SIGALRM, lambda *_: self._let_go())
        if self.plan.exists():
            self._read()
        return super().run(command)

    def _to_kill(self, child: int) -> None:
        self.killed = True
        os.kill(child, signal.SIGKILL)

    def _read(self) -> None:
        self.step = Step(**json.loads(self.plan.read_text()))
        self.seen = self.befallen = 0
        self.until = 0.0

    def _done(self) -> None:
        assert self.step
        with self.told.open("a") as file:
            file.write(json.dumps({**self.step._asdict(), "befallen": self.befallen}) + "\n")
        self.step = None

    def _let_go(self) -> None:
        """A stall is over."""
        thread, self.held = self.held, 0
        self._done()
        self._resume(thread, CONT, 0)

    def _resume(self, thread: int, request: int, number: int) -> None:
        if request != HOLD:
            super()._resume(thread, request, number)

    def _stopped(self, thread: int, number: int, event: int) -> tuple[int, int]:
        if event == EVENT_SECCOMP:
            return (self._meddle(thread) if self.step else CONT), 0
        if number == signal.SIGTRAP | 0x80:
            if thread in self.leaving:
                self._leave(thread, self.leaving.pop(thread))
            return (HOLD if self.killed else CONT), 0
        return (SYSCALL if thread in self.leaving else CONT), 0 if event else number

    def _meddle(self, thread: int) -> int:
        """What becomes of a call that is entered."""
        number, descriptor = struct.unpack_from("<2Q", _info(thread), 24)
        if (
            (step := self.step) is None
            or number not in NAMES
            or not self._meant(thread, KINDS.get(NAMES[number], ""), descriptor, step.on)
        ):
            return CONT
        self.seen += 1
        if self.seen < step.nth:
            return CONT
        if step.do == "kill-before":
            self._end()
            return HOLD
        if step.do == "kill-after":
            self.leaving[thread] = None
            return SYSCALL
        if step.do == "stall":
            if self.held:
                return CONT
            self.held, self.befallen = thread, 1
            signal.setitimer(signal.ITIMER_REAL, step.seconds)
            return HOLD
        return self._fail(thread, step)

    def _fail(self, thread: int, step: Step) -> int:
        now = time.monotonic()
        self.until = self.until or now + step.seconds
        if self.befallen and now >= self.until:  # it is over
            self._done()
            return CONT
        self.befallen += 1
        words = registers(thread)
        if step.do == "short":
            self.leaving[thread] = {SIZE: words[SIZE]}  # the program may still use the register
            words[SIZE] //= 2
            set_registers(thread, words)
        else:
            self.leaving[thread] = {RESULT: -int(getattr(errno, step.do)) & (1 << 64) - 1}
            skip(thread)
        if not step.seconds:
            self._done()
        return SYSCALL

    def _leave(self, thread: int, changes: dict[int, int] | None) -> None:
        """A call returns."""
        if changes is None:
            self._end()
            return
        words = registers(thread)
        for word, value in changes.items():
            words[word] = value
        set_registers(thread, words)

    def _end(self) -> None:
        self.befallen = 1
        self._done()
        self.killed = True
        os.kill(self.child, signal.SIGKILL)

    def _meant(self, thread: int, call: str, descriptor: int, on: str) -> bool:
        """Whether a call is of the kind that a step names."""
        where, _, what = on.partition(" ")
        if what not in (call, "any"):
            return False
        place = _readlink(f"/proc/{thread}/fd/{ctypes.c_int(descriptor).value}")
        if place.startswith("socket:"):
            return where in self.ports and self._peer(place[8:-1]) == where
        if not place.startswith(self.prefix) or place.endswith((".lock", "-shm")):
            return False
        kind = {"-wal": "wal", "-journal": "journal"}.get(place[len(self.prefix) :], "db")
        return where in (kind, "any")

    def _peer(self, inode: str) -> str:
        """Who is at the other end of a socket: a name of ``ports``, or nothing."""
        if inode not in self.sockets:
            self.sockets[inode] = ""
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                _, local, remote, *_, found = line.split()[:10]
                if found == inode:
                    mine, other = int(local[-4:], 16), int(remote[-4:], 16)
                    self.sockets[inode] = next(
                        (name for name, port in self.ports.items() if port == (other if name == "hospital" else mine)), ""
                    )
        return self.sockets[inode]


# -- registers -----------------------------------------------------------------------------------------------------------


def registers(thread: int) -> list[int]:
    """The general registers of a thread that is stopped."""
    buffer = ctypes.create_string_buffer(512)
    size = _regset(GETREGSET, thread, NT_PRSTATUS, buffer, 512)
    return list(struct.unpack(f"<{size // 8}Q", buffer.raw[:size]))


def set_registers(thread: int, words: list[int]) -> None:
    """Changes them."""
    data = ctypes.create_string_buffer(struct.pack(f"<{len(words)}Q", *words))
    _regset(SETREGSET, thread, NT_PRSTATUS, data, 8 * len(words))


def skip(thread: int) -> None:
    """The kernel does nothing for the call that this thread has entered."""
    if platform.machine() == "aarch64":
        _regset(SETREGSET, thread, NT_ARM_SYSTEM_CALL, ctypes.create_string_buffer(struct.pack("<i", -1)), 4)
    else:
        words = registers(thread)
        words[NUMBER] = (1 << 64) - 1
        set_registers(thread, words)


def _regset(request: int, thread: int, kind: int, buffer: Any, size: int) -> int:
    """One exchange of registers; gives the size that the kernel knows."""
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), size)
    if libc.ptrace(request, thread, kind, ctypes.addressof(vector)) != 0 and ctypes.get_errno() != 3:  # ESRCH: killed meanwhile
        raise OSError(ctypes.get_errno(), "ptrace: registers")
    return int(vector[1])


if __name__ == "__main__":
    ended = Meddler(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])).run(sys.argv[5:])
    sys.exit(ended if ended >= 0 else 128 - ended)
