"""``python -m tests.torture.failing EVERY TRACE PREFIX COMMAND …``: the tracer, under which every so many-th fsync fails.

Those of the database and its write-ahead log are counted, once there is a log.

The kernel is not asked, and the program is told EIO; the trace tells of it as "failed".
"""

import errno
import sys

from tests.torture.meddler import RESULT, registers, set_registers, skip
from tests.torture.tracer import Call, Tracer


class Failing(Tracer):
    """Counts the fsyncs of the store."""

    def __init__(self, every: int, *rest: object) -> None:
        super().__init__(*rest)  # type: ignore[arg-type]
        self.every, self.seen = every, 0
        self.fails: set[int] = set()

    def _entered(self, thread: int) -> bool:
        entered = super()._entered(thread)
        call = self.pending.get(thread) if entered else None
        if (
            call
            and call.name in ("fsync", "fdatasync")
            and (call.path.endswith("-wal") or (call.path == self.prefix and self.seen))
        ):
            self.seen += 1
            if self.seen % self.every == 0:
                skip(thread)
                self.fails.add(thread)
        return entered

    def _returned(self, thread: int) -> None:
        if thread not in self.fails:
            super()._returned(thread)
            return
        self.fails.remove(thread)
        words = registers(thread)
        words[RESULT] = -errno.EIO & (1 << 64) - 1
        set_registers(thread, words)
        call = self.pending.pop(thread)
        self._tell(Call(call.entered, self._next(), "failed", call.subject, call.path))


if __name__ == "__main__":
    with open(sys.argv[2], "wb") as trace:
        ended = Failing(int(sys.argv[1]), trace, sys.argv[3]).run(sys.argv[4:])
    sys.exit(ended if ended >= 0 else 128 - ended)
