"""How the process keeps its memory: small and steady, whatever passed through it."""

import contextlib
import ctypes
import gc

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt(3)
LARGE_BYTES = 1 << 20


def settle() -> None:
    """Sees that collections stay short, and that what large messages took goes back to the system.

    The C library of most Linuxes (glibc) keeps freed blocks of up to 32 MiB in its heap once it has met such: under many
    large messages at once twice of what they need. Other C libraries know no such word, and need none.
    """
    gc.collect()
    gc.freeze()  # what is there now stays: later collections need not walk it
    gc.set_threshold(50_000, 20, 50)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BYTES)
