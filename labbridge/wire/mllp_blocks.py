"""Finds MLLP blocks in a stream. Knows nothing of answers, timers or messages.

The buffer begins where the block in hand begins, and the reader remembers how far it has searched: each byte is looked
at once for the end of the block and once for the beginning of another.
"""

from labbridge.wire.excess import Excess, Strays

SB, EB, CR = 0x0B, 0x1C, 0x0D
NEW_BLOCK = b"\x0bMSH"  # inside a block: a new one, for no text holds this

# What the reader finds: inputs of the table in ``mllp``
START = "SB"
END = "EB CR, or EB SB"
RESTART = "SB and MSH"


def block(data: bytes) -> bytes:
    """Data as an MLLP block."""
    return b"\x0b%b\x1c\r" % data


class BlockReader:
    """The bytes of one connection that are not yet taken."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._eb_from = self._sb_from = 0  # before these no EB ends the block, no SB breaks it off
        self._end = 0
        self.strays = Strays(b"\r\n\x1c")

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._data += data

    def find_start(self) -> str | None:
        """START, with what comes before the block dropped; or None, with everything dropped."""
        data = self._data
        start = data.find(SB)
        self.strays.add(data if start < 0 else data[:start])
        self._drop(len(data) if start < 0 else start + 1)
        if start < 0:
            return None
        self.strays.running = False
        return START

    def find_end(self) -> str | None:
        """END or RESTART, to be followed by ``take``; or None when the block goes on."""
        data, last = self._data, len(self._data) - 1
        end = data.find(EB, self._eb_from)
        while 0 <= end < last and data[end + 1] not in (CR, SB):
            end = data.find(EB, end + 1)
        self._eb_from = len(data) if end < 0 else end
        start = data.find(NEW_BLOCK, self._sb_from, self._eb_from)
        if start >= 0:
            self._end = start
            return RESTART
        if 0 <= end < last:
            self._end = end
            return END
        self._sb_from = max(0, self._eb_from - 3)
        return None

    def take(self) -> bytes:
        """The data of the block whose end was found; the rest begins behind it."""
        data, end = self._data, self._end
        with memoryview(data) as view:  # one copy, not two
            taken = bytes(view[:end])
        self._drop(end + (2 if data[end] == EB and data[end + 1] == CR else 1))
        return taken

    def take_all(self) -> bytes:
        """All there is."""
        taken = bytes(self._data)
        self._drop(len(taken))
        return taken

    def pass_by(self, excess: Excess) -> None:
        """Move what was searched in vain to ``excess``."""
        size = self._sb_from
        with memoryview(self._data) as view:
            excess.add(view[:size])
        self._drop(size)

    def has_likely_end(self, omits_eb: bool) -> bool:
        """Whether the block may be whole: it ends with EB, or with CR or LF if the peer is known to omit EB."""
        tail = self._data[-3:]
        return tail.rstrip(b"\r\n").endswith(b"\x1c") or (omits_eb and tail.endswith((b"\r", b"\n")))

    def _drop(self, size: int) -> None:
        del self._data[:size]
        self._eb_from = max(0, self._eb_from - size)
        self._sb_from = max(0, self._sb_from - size)
