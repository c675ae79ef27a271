"""What was reported as committed is there after kill -9."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from labbridge.store import Reader, Store, StoreLocked, verify

from .support import count, open_ready, received

_CHILD = """
import sys
from labbridge.store import Store

store = Store(sys.argv[1])
store.open()
store.wait_ready(60)

def write(number):
    def job(tx):
        message = tx.message(direction="in", analyzer="xn-1", kind="stored", body=b"%d" % number)
        tx.spool("s", "xn-1", b"%d," % number)
        return message
    return job

number = 0
while True:
    print(store.call(write(number)), number, flush=True)
    number += 1
"""


@contextmanager
def _writing(url: str) -> Iterator["subprocess.Popen[str]"]:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, url], stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("lines", [1, 40])
def test_what_was_reported_survives_kill_9(store_url: str, lines: int) -> None:
    """Every commit that was reported is there after a restart, once, and the ledger holds."""
    with _writing(store_url) as child:
        assert child.stdout is not None
        reported = [child.stdout.readline().split() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        reported += [line.split() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    reader = Reader(store_url)
    assert count(reader) >= len(reported)  # also with nobody there to recover the file
    store = Store(store_url)
    open_ready(store)
    (spooled,) = store.call(lambda tx: tx.spooled())
    assert store.call(received) > 0
    assert store.close()
    bodies = {row.id: row.body for row in reader.stream("SELECT id, body FROM message")}
    for id, number in reported:
        assert bodies[int(id)] == number.encode()
    assert spooled.body.startswith(b"".join(b"%d," % number for number in range(len(reported))))
    assert verify(reader).problems == []
    reader.close()


def test_a_store_in_use_by_another_process_is_refused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labbridge.store.writer._LOCK_GRACE", 0.1)
    with _writing(store_url) as child:
        assert child.stdout is not None
        child.stdout.readline()
        second = Store(store_url)
        with pytest.raises(StoreLocked, match=rf"\b{child.pid}\b"):
            open_ready(second)
        second.close()
