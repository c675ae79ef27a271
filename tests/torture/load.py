"""The load that a traced daemon runs under: analyzers of both protocols, a hospital, and a person who releases what is held."""

import json
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.support import AstmClient, Hospital, Laboratory, MllpClient, astm, oru, wait_until
from tests.torture import launcher, tracer
from tests.torture.disk import Disk, Image, TraceError, load
from tests.torture.promises import HELD, Promises
from tests.torture.tracer import Call

VERSIONS = 3
OUTCOME = {"repeat": "latest-measured", "timeout": "2s"}


class Amount(NamedTuple):
    """How much is sent: analyzers of each protocol, specimens of each analyzer, three versions each, in every life.

    Each life of the daemon ends by kill -9 or by SIGTERM, in the midst of its deliveries.
    """

    analyzers: int = 2
    specimens: int = 8
    lives: tuple[signal.Signals, ...] = (signal.SIGKILL,)
    first: int = 1  # no two lives of a store have the same number

    @property
    def messages(self) -> int:
        """How many messages these are in one life."""
        return 2 * self.analyzers * self.specimens * VERSIONS


WHOLE = Amount(3, 5, (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL))
AGAIN = Amount(1, 4, first=9)
FAILING = Amount(2, 3, (signal.SIGKILL, signal.SIGKILL), first=7)


class Recording(NamedTuple):
    """A trace of all lives of a daemon; the files and the promises that were there before, if there were."""

    calls: list[Call]
    base: Image
    promised: Promises

    def disk(self) -> Disk:
        """The disk at the beginning."""
        return Disk(self.calls, self.base)


def record(
    folder: Path, amount: Amount, fault: str = "", base: Image | None = None, promised: Promises | None = None, failing: int = 0
) -> Recording:
    """Runs a daemon, with a planted fault if one is named, under this load; ``base`` is the image of a store to begin with.

    With ``failing``, every so many-th fsync of its files fails.

    What was recorded stays in ``folder``. Raises TraceError when it is not what the files hold at the end.
    """
    base = {str(folder / Path(name).name): content for name, content in (base or {}).items()}
    for name, content in base.items():
        Path(name).write_bytes(content)
    (folder / "before").write_bytes(pickle.dumps((base, promised or Promises())))
    laboratory = Laboratory(folder, **OUTCOME)
    with Hospital(laboratory.his, _slowly) as hospital:
        for life, end in enumerate(amount.lives, amount.first):
            kind = ["-m", "tests.torture.failing", str(failing)] if failing else [tracer.__file__]
            before = [sys.executable, *kind, str(folder / f"trace.{life}"), str(folder / "lab.db")]
            try:
                laboratory.start(*before, *((sys.executable, launcher.__file__, fault) if fault else ()))
                _work(laboratory, hospital, amount, life)
                laboratory.signal(signal.SIGUSR1 if end == signal.SIGKILL else end)
                wait_until(lambda: laboratory.process.poll() is not None, 30, "the traced daemon ends")
            finally:
                laboratory.kill()  # the tracer, and with it whatever still runs
    recording = recorded(folder)
    if failing:  # the files hold what the disk does not
        return recording
    for name, content in recording.disk().everything().items():
        if Path(name).read_bytes() != content:
            raise TraceError(f"{name} is not what its trace says")
    return recording


def recorded(folder: Path) -> Recording:
    """What is kept in a folder: one life after the other."""
    calls: list[Call] = []
    for file in sorted(folder.glob("trace.*")):
        last = calls[-1].returned if calls else 0
        calls += [call._replace(entered=call.entered + last, returned=call.returned + last) for call in load(file)]
    return Recording(calls, *pickle.loads((folder / "before").read_bytes()))


def _work(laboratory: Laboratory, hospital: Hospital, amount: Amount, life: int) -> None:
    """Everything is sent, and most of it delivered: the end comes while the last of it is on its way."""
    protocols = [protocol for protocol in ("hl7", "astm") for _ in range(amount.analyzers)]
    errors: list[BaseException] = []
    before = len(hospital.got())

    def guarded(number: int, protocol: str) -> None:
        try:
            _analyzer(laboratory, f"{life}{number}", protocol, amount.specimens)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=one, daemon=True) for one in enumerate(protocols, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    wait_until(lambda: len(hospital.got()) > before + amount.messages / 2, 30, "deliveries")


def _slowly(message: bytes) -> str:
    """A hospital that takes its time, so that more than one message of a specimen waits in its lane."""
    time.sleep(0.02)
    return "AA"


def _analyzer(laboratory: Laboratory, name: str, protocol: str, specimens: int) -> None:
    """One connection: each specimen in three versions, measured later and later; every fourth specimen must be looked at."""
    with closing(MllpClient(laboratory.hl7) if protocol == "hl7" else AstmClient(laboratory.astm)) as client:
        for index, (specimen, value, stamp) in enumerate(_results(name, specimens), 1):
            message = f"{name}{index:05d}"
            for _ in range(20):  # a busy machine may be told to send again
                if isinstance(client, MllpClient):
                    done = b"MSA|AA" in client.send(oru(specimen, int(message), [("6690-2^WBC^LN", value, "10*9/L")], stamp))
                else:
                    _, *records = astm(specimen, [("WBC", value, "10*3/uL")], stamp)
                    done = client.send([f"H|\\^&|{message}||XN-1000^00-22", *records])
                if done:
                    break
                time.sleep(0.05)
            assert done
            if specimen.startswith(HELD) and index % 2:
                _release(laboratory, specimen, f"seen {message}")


def _results(name: str, specimens: int) -> Iterator[tuple[str, str, str]]:
    for index in range(specimens):
        for version in range(1, VERSIONS + 1):
            held = index % 4 == 3
            specimen = f"{HELD if held else 1}{name}{index:04d}"
            yield specimen, f"0.2{version}" if held else f"{version + 3}.50", f"2026112110{version:02d}00"


def _release(laboratory: Laboratory, specimen: str, reason: str) -> None:
    """A command over the control socket, and its answer."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(20)
        client.connect(str(laboratory.folder / "labbridge.sock"))
        release = {"command": "release", "specimen": specimen, "reason": reason, "told": "Dr. Li", "read_back": True}
        client.sendall(json.dumps(release).encode() + b"\n")
        assert client.recv(65536)
