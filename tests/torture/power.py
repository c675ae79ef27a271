"""The power cut: one daemon is traced under load, then its files are rebuilt as a cut at any moment may have left them.

Image K of a seed is always the same for the same trace: its moment (the durable boundaries first, in a shuffled order,
then in the midst of any write of any file) and its dice hang on seed and K alone. Each image is opened by SQLite and
judged; of every tenth the store recovers and verifies itself before; on every hundredth the daemon itself starts, and the
hospital must get the rest.
"""

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from labbridge.store import Reader, Store, verify
from tests.support import Hospital, Laboratory, wait_until
from tests.torture import load, promises
from tests.torture.disk import Image, boundaries
from tests.torture.load import Recording
from tests.torture.promises import Promises

STORES, DAEMONS = 10, 100  # one in so many images
CHUNK = 50
SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Score:
    """What was tried and what was found; ``problems`` by the image's number."""

    images: int = 0
    boundaries: int = 0  # tried
    of_boundaries: int = 0  # there are
    stores: int = 0
    daemons: int = 0
    calls: int = 0
    acknowledged: int = 0  # messages and frames, in the trace
    seconds: float = 0.0
    problems: dict[int, list[str]] = field(default_factory=dict)

    def add(self, index: int, found: list[str], daemon: bool) -> None:
        """Takes down one image."""
        self.images += 1
        self.boundaries += index < self.of_boundaries
        self.stores += index % STORES == 0
        self.daemons += daemon
        if found:
            self.problems[index] = found

    def kinds(self) -> dict[str, int]:
        """How many images broke each promise."""
        return dict(Counter(kind for found in self.problems.values() for kind in {one.partition(":")[0] for one in found}))


class Cuts:
    """The images of one recording and one seed."""

    def __init__(self, recording: Recording, seed: int, daemons: bool = True) -> None:
        self.recording, self.seed, self.daemons = recording, seed, daemons
        self.calls = calls = recording.calls
        self.promises = promises.read(calls, recording.promised)
        self.order = boundaries(calls)
        random.Random(seed).shuffle(self.order)
        self.last = calls[-1].entered
        synced = {call.subject for call in calls if call.kind == "sync"}
        self.writes: dict[int, list[int]] = defaultdict(list)  # of each file that matters, where they begin
        for call in calls:
            if call.kind == "write" and call.subject in synced:
                self.writes[call.subject].append(call.entered)

    def at(self, index: int) -> int:
        """The moment of an image: a position in the trace."""
        if index < len(self.order):
            return self.order[index]
        dice = self._dice(index, "moment")
        return dice.choice(self.writes[dice.choice(sorted(self.writes))]) + 1

    def _dice(self, index: int, what: str) -> random.Random:
        return random.Random(f"{self.seed} {index} {what}")

    def images(self, indices: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """The images of these numbers, in the order of their moments."""
        disk = self.recording.disk()
        for index in sorted(indices, key=self.at):
            disk.advance(self.at(index))
            yield index, disk.image(self._dice(index, "image"))

    def check(self, indices: Iterable[int]) -> list[tuple[int, list[str], bool]]:
        """Judges these images: the number, what was found, whether the daemon ran."""
        judged = []
        with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None) as place:
            for index, image in self.images(indices):
                found, daemon = self._one(index, image, Path(place) / str(index))
                judged.append((index, found, daemon))
        return judged

    def _one(self, index: int, image: Image, folder: Path) -> tuple[list[str], bool]:
        promised = self.promises.before(self.at(index))
        store = self._put(index, image, folder)
        found = _recovered(store) if index % STORES == 0 else []
        found += promises.judge(store, promised)
        shutil.rmtree(folder)
        runs = self.daemons and index % DAEMONS == 0 and not found
        if runs:
            self._put(index, image, folder)
            found += _delivered(folder, promised)
            shutil.rmtree(folder)
        return found, runs

    def _put(self, index: int, image: Image, folder: Path) -> Path:
        """Writes an image; in every fourth, the index of the log is there too, and full of nonsense."""
        folder.mkdir()
        for name, content in image.items():
            (folder / Path(name).name).write_bytes(content)
        if index % 4 == 1:
            (folder / "lab.db-shm").write_bytes(self._dice(index, "shm").randbytes(32768))
        return folder / "lab.db"

    def run(self, count: int, processes: int = 1) -> Score:
        """Judges the first so many images."""
        score, began = Score(calls=len(self.calls), of_boundaries=len(self.order)), time.monotonic()
        score.acknowledged = len(self.promises.stored) + len(self.promises.frames)
        ordered = sorted(range(count), key=self.at)
        chunks = [ordered[start : start + CHUNK] for start in range(0, count, CHUNK)]
        if processes == 1:
            judged = [one for chunk in chunks for one in self.check(chunk)]
        else:
            with multiprocessing.get_context("fork").Pool(processes, _begin, (self,)) as pool:
                judged = [one for chunk in pool.imap_unordered(_check, chunks) for one in chunk]
        for index, found, daemon in sorted(judged):
            score.add(index, found, daemon)
        score.seconds = time.monotonic() - began
        return score


_shared: list[Cuts] = []  # a forked worker's, so that the trace is not sent to it


def _begin(cuts: Cuts) -> None:
    """What a worker begins with: the trace; and it ends when it is told to, without a word."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _shared.append(cuts)


def _check(indices: list[int]) -> list[tuple[int, list[str], bool]]:
    return _shared[0].check(indices)


def _recovered(path: Path) -> list[str]:
    """What goes wrong when the store opens an image, writes to it and verifies it."""
    store = Store(f"sqlite:///{path}")
    try:
        store.open()
        store.call(lambda tx: tx.message(direction="in", analyzer="xn-1", kind="stray", body=b"after the cut"))
        store.call(lambda tx: (tx.waiting_deliveries(), tx.spooled(), tx.held_reports()))
        store.close()
        with closing(Reader(f"sqlite:///{path}")) as reader:
            return [f"labbridge verify: {problem}" for problem in verify(reader).problems]
    except Exception as error:
        return [f"the store does not open: {type(error).__name__}: {error}"]
    finally:
        store.close()


def _delivered(folder: Path, promised: Promises) -> list[str]:
    """What goes wrong when the daemon starts on an image, and a hospital takes what it has."""
    laboratory = Laboratory(folder, **load.OUTCOME)
    with Hospital(laboratory.his) as hospital:
        try:
            laboratory.start()
            with closing(Reader(f"sqlite:///{folder}/lab.db")) as reader:
                wait_until(lambda: not reader.queued(), 30, "the queue drains")
            status = laboratory.stop()
        except AssertionError as error:
            return [f"the daemon does not recover: {error}"]
        finally:
            laboratory.kill()
        return promises.judge_arrivals(promised, hospital.got()) + ([f"the daemon ended with {status}"] if status else [])
