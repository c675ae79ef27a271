"""Runs a command and writes down what it does to some files and what it says on its sockets, in the order in which it did it.

``python tracer.py TRACE PREFIX COMMAND …``: the command runs under ptrace; of its files those are traced whose path begins
with PREFIX, and all sockets. A seccomp filter lets every other system call pass untouched, so that the command runs at
nearly its own speed. Each call has two positions in one order of all threads: where it was entered, and where it had
returned. Whatever happens after a call's return in another thread has a higher position, so cause comes before effect.

SIGUSR1 kills the command as ``kill -9`` does, SIGTERM is passed on. TRACE is a stream of pickled ``Call``s, closed by one of
kind "end" (without it, the trace is not whole). Needs Linux 5.3 on x86-64 or arm64; no compiler, no package, no rights
beyond those to debug one's own child.
"""

import ctypes
import os
import pickle
import platform
import signal
import struct
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

# Files that are written in any way but these, and shared memory that maps one, are told as "unknown": a model that passed
# over them would be wrong.
NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "mmap": 9, "pwrite64": 18, "writev": 20, "sendfile": 40, "sendto": 44, "recvfrom": 45,
        "sendmsg": 46, "recvmsg": 47, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82,
        "creat": 85, "link": 86, "unlink": 87, "openat": 257, "unlinkat": 263, "renameat": 264, "linkat": 265,
        "sync_file_range": 277, "fallocate": 285, "pwritev": 296, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328,
        "io_uring_setup": 425, "openat2": 437,
    },
    "aarch64": {
        "unlinkat": 35, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46, "fallocate": 47, "openat": 56,
        "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "sendfile": 71, "fsync": 82, "fdatasync": 83,
        "sync_file_range": 84, "sendto": 206, "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "mmap": 222,
        "renameat2": 276, "copy_file_range": 285, "pwritev2": 287, "io_uring_setup": 425, "openat2": 437,
    },
}[platform.machine()]  # fmt: skip
NAMES = {number: name for name, number in NUMBERS.items()}
PATHS = {  # which arguments are paths; where they are relative to a folder, its descriptor is the one before
    "open": (0,), "creat": (0,), "truncate": (0,), "unlink": (0,), "rename": (0, 1), "link": (0, 1),
    "openat": (1,), "openat2": (1,), "unlinkat": (1,), "renameat": (1, 3), "renameat2": (1, 3), "linkat": (1, 3),
}  # fmt: skip
RELATIVE = {"openat", "openat2", "unlinkat", "renameat", "renameat2", "linkat"}
HERE = -100  # AT_FDCWD
DESCRIPTOR = {"mmap": 4, "copy_file_range": 2}  # which argument is the file that is written; else the first
SENDS, RECEIVES = {"write", "sendto", "sendmsg"}, {"recvfrom", "recvmsg"}

SEIZE, SYSCALL, CONT, INFO = 0x4206, 24, 7, 0x420E
# TRACESYSGOOD, FORK, VFORK, CLONE, EXEC, SECCOMP, EXITKILL
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
EVENT_EXEC, EVENT_SECCOMP = 4, 7
ALL_THREADS = 0x40000000  # __WALL

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


class Call(NamedTuple):
    """A traced call that did not fail, or an fsync that did. ``subject`` is a file's inode (or a socket's); ``name`` its path."""

    entered: int
    returned: int
    kind: str  # create open write truncate sync syncdir failed unlink rename sent received end, or unknown
    subject: int
    name: str = ""
    offset: int = 0
    data: bytes = b""


class Pending(NamedTuple):
    """A call that was entered."""

    entered: int
    name: str
    args: tuple[int, ...]
    subject: int = 0
    path: str = ""
    data: bytes = b""


class Tracer:
    """The one parent of all traced threads; ``stops`` are the calls that stop, all others pass."""

    stops: Iterable[str] = tuple(NUMBERS)

    def __init__(self, out: BinaryIO, prefix: str) -> None:
        self.out, self.prefix, self.folder = out, prefix, os.path.dirname(prefix)
        self.position = self.child = 0
        self.pending: dict[int, Pending] = {}
        self.memories: dict[int, int] = {}
        self.waiting = self.killing = self.killed = False

    def run(self, command: list[str]) -> int:
        """Runs the command to its end; gives its exit status."""
        child = self.child = _start(command, sorted(NUMBERS[name] for name in self.stops if name in NUMBERS))
        signal.signal(signal.SIGUSR1, lambda *_: self._to_kill(child))
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        while True:
            self.waiting = True
            thread, status = os.waitpid(-1, ALL_THREADS)
            self.waiting = False
            if not os.WIFSTOPPED(status):
                self.pending.pop(thread, None)
                if thread == child:
                    break
                continue
            if self.killed:  # what stopped is dying
                continue
            request, number = self._stopped(thread, os.WSTOPSIG(status), status >> 16)
            if self.killing:
                self._kill(child)
            self._resume(thread, request, number)
        self._tell(Call(self._next(), self._next(), "end", 0))
        return os.waitstatus_to_exitcode(status)

    def _to_kill(self, child: int) -> None:
        """The command is to be killed: now when nothing happens, else when the present stop has been dealt with."""
        self.killing = True
        if self.waiting:
            self._kill(child)

    def _kill(self, child: int) -> None:
        """Kills when no traced call is under way, so that none is done and not told; one that only begins is not done."""
        if not self.pending and not self.killed:
            self.killed = True
            os.kill(child, signal.SIGKILL)

    def _resume(self, thread: int, request: int, number: int) -> None:
        if libc.ptrace(request, thread, None, number) != 0 and ctypes.get_errno() != 3:  # ESRCH: killed meanwhile
            raise OSError(ctypes.get_errno(), "ptrace")

    def _stopped(self, thread: int, number: int, event: int) -> tuple[int, int]:
        """What a thread stopped for; gives how it goes on, and with which signal."""
        if event == EVENT_SECCOMP:
            return (SYSCALL if self._entered(thread) else CONT), 0
        if number == signal.SIGTRAP | 0x80:
            if thread in self.pending:
                self._returned(thread)
            return CONT, 0
        if event == EVENT_EXEC:
            self.memories.clear()
        return (SYSCALL if thread in self.pending else CONT), 0 if event else number

    def _next(self) -> int:
        self.position += 1
        return self.position

    def _tell(self, call: Call) -> None:
        pickle.dump(tuple(call), self.out)

    # -- one call --------------------------------------------------------------------------------------------------

    def _entered(self, thread: int) -> bool:
        """Takes down a call that has begun; whether its return matters."""
        number, *args = struct.unpack_from("<7Q", _info(thread), 24)
        if number not in NAMES:
            return False
        name = NAMES[number]
        if name in PATHS:
            paths = [self._path(thread, args[index], args[index - 1] if name in RELATIVE else HERE) for index in PATHS[name]]
            if not any(path.startswith(self.prefix) for path in paths):
                return False
            call = Pending(self._next(), name, tuple(args), self._inode(paths[0]), "\0".join(paths))
        else:
            fd = ctypes.c_int(args[DESCRIPTOR.get(name, 0)]).value
            place = _readlink(f"/proc/{thread}/fd/{fd}") if fd >= 0 else ""
            ours = place.startswith(self.prefix) or (place == self.folder and name in ("fsync", "fdatasync"))
            if name == "mmap":
                ours = ours and _maps_for_writing(args, place)
            talks = place.startswith("socket:") and name in SENDS | RECEIVES | {"writev"}
            if not (ours or talks or name == "io_uring_setup"):
                return False
            subject = int(place[8:-1]) if talks else self._inode(f"/proc/{thread}/fd/{fd}")
            data = self._buffer(thread, name, args) if name in SENDS | {"pwrite64"} else b""
            call = Pending(self._next(), name, tuple(args), subject, place, data)
        self.pending[thread] = call
        return True

    def _returned(self, thread: int) -> None:
        result = struct.unpack_from("<q", _info(thread), 24)[0]
        call = self.pending.pop(thread)
        returned = self._next()
        if result < 0:
            return
        for kind, subject, name, offset, data in self._said(thread, call, result):
            self._tell(Call(call.entered, returned, kind, subject, name, offset, data))

    def _said(self, thread: int, call: Pending, result: int) -> Any:
        name, args, path = call.name, call.args, call.path
        if name in ("openat", "open"):
            flags = args[2 if name == "openat" else 1]
            inode = self._inode(f"/proc/{thread}/fd/{result}")
            yield ("open" if call.subject else "create"), inode, path, 0, b""
            if flags & os.O_TRUNC:
                yield "truncate", inode, path, 0, b""
        elif path.startswith("socket:") and name in SENDS:
            yield "sent", call.subject, "", 0, call.data[:result]
        elif path.startswith("socket:") and name in RECEIVES:
            yield "received", call.subject, "", 0, self._buffer(thread, name, args)[:result]
        elif name == "pwrite64":
            yield "write", call.subject, path, args[3], call.data[:result]
        elif name == "ftruncate":
            yield "truncate", call.subject, path, args[1], b""
        elif name in ("fsync", "fdatasync"):
            yield ("syncdir" if path == self.folder else "sync"), call.subject, path, 0, b""
        elif name in ("unlink", "unlinkat"):
            yield "unlink", call.subject, path, 0, b""
        elif name in ("rename", "renameat", "renameat2"):
            yield "rename", call.subject, path, 0, b""
        else:
            yield "unknown", call.subject, f"{name} {path}", 0, b""

    # -- the command's memory and files ----------------------------------------------------------------------------

    def _buffer(self, thread: int, name: str, args: Any) -> bytes:
        """The bytes that a call is about; those of sendmsg and recvmsg lie in several places."""
        if not name.endswith("msg"):
            return self._memory(thread, args[1], args[2])
        places, count = struct.unpack_from("<2Q", self._memory(thread, args[1], 32), 16)
        pairs = struct.iter_unpack("<2Q", self._memory(thread, places, 16 * count))
        return b"".join(self._memory(thread, address, size) for address, size in pairs)

    def _memory(self, thread: int, address: int, size: int) -> bytes:
        if thread not in self.memories:
            self.memories[thread] = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
        return os.pread(self.memories[thread], size, address)

    def _path(self, thread: int, address: int, folder: int) -> str:
        path = os.fsdecode(self._memory(thread, address, 4096).partition(b"\0")[0])
        fd = ctypes.c_int(folder).value
        return os.path.normpath(os.path.join(_readlink(f"/proc/{thread}/" + ("cwd" if fd == HERE else f"fd/{fd}")), path))

    def _inode(self, path: str) -> int:
        try:
            return os.stat(path).st_ino
        except OSError:
            return 0


def _maps_for_writing(args: list[int], place: str) -> bool:
    """PROT_WRITE and MAP_SHARED of anything but the index of the write-ahead log, which is rebuilt."""
    return bool(args[2] & 2 and args[3] & 1) and not place.endswith("-shm")


def _info(thread: int) -> bytes:
    """``struct ptrace_syscall_info``, the same on every machine."""
    buffer = ctypes.create_string_buffer(96)
    if libc.ptrace(INFO, thread, 96, ctypes.addressof(buffer)) < 0:
        return bytes(24) + struct.pack("<q", -1) + bytes(64)  # killed meanwhile: no call, or one that failed
    return buffer.raw


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _start(command: list[str], stops: list[int]) -> int:
    """Forks; the child waits until it is traced, takes the filter upon itself and becomes the command."""
    waits, goes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(goes)
        os.read(waits, 1)
        _filter(stops)
        os.execv(command[0], command)
    os.close(waits)
    if libc.ptrace(SEIZE, child, None, OPTIONS) != 0:
        os.kill(child, signal.SIGKILL)
        raise OSError(ctypes.get_errno(), "this machine does not let a process trace its own child (ptrace)")
    os.write(goes, b"\n")
    os.close(goes)
    return child


def _filter(numbers: list[int]) -> None:
    """Only these calls stop (SECCOMP_RET_TRACE), all others pass."""
    program = [struct.pack("<HBBI", 0x20, 0, 0, 0)]  # load the call's number
    for index, number in enumerate(numbers):
        program.append(struct.pack("<HBBI", 0x15, len(numbers) - index, 0, number))  # equal: jump to the trace
    program.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
    program.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FF00000))
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    zero = ctypes.c_ulong(0)
    if libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) or libc.prctl(22, ctypes.c_ulong(2), head, zero, zero):
        os._exit(120)  # no new privileges, then the filter


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as trace:
        ended = Tracer(trace, sys.argv[2]).run(sys.argv[3:])
    sys.exit(ended if ended >= 0 else 128 - ended)
