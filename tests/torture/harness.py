"""Kill -9 at random moments under load: what was acknowledged must be in the journal and arrive, once and in order.

Eight analyzers (four MLLP connections, four LIS01) send for their own specimens three messages each, the same test
measured later and later; like real analyzers they send again whatever was not acknowledged. The daemon is killed and
started again in each round; the hospital lives on and remembers everything.
"""

import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbridge.store import Reader
from tests.support import AstmClient, Hospital, Laboratory, MllpClient, astm, oru, wait_until

VERSIONS = 3
FEW = 20  # messages that are acknowledged between two kills, at the least


@dataclass
class Score:
    """What the model knows, and what was found against it."""

    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    seconds_to_listen: list[float] = field(default_factory=list)
    kills: int = 0
    problems: list[str] = field(default_factory=list)


class Analyzer(threading.Thread):
    """One connection: specimens one after the other, three versions each, resent until acknowledged."""

    def __init__(self, name: str, protocol: str, laboratory: Laboratory, score: Score, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.prefix, self.protocol, self.laboratory, self.score, self.stop = name, protocol, laboratory, score, stop
        self.client: Any = None
        self.number = 0

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.number += 1
                specimen = f"{self.prefix}{self.number:07d}"
                for version in range(1, VERSIONS + 1):
                    if not self._until_acknowledged(specimen, version):
                        return
                    self.score.acknowledged.add((specimen, version))
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def _until_acknowledged(self, specimen: str, version: int) -> bool:
        stamp = f"2026112110{version:02d}00"
        deadline = None
        while True:
            if self.stop.is_set() and deadline is None:
                deadline = time.monotonic() + 5  # what is in flight may still be answered
            if deadline is not None and time.monotonic() > deadline:
                return False
            try:
                if self.client is None:
                    port = self.laboratory.hl7 if self.protocol == "hl7" else self.laboratory.astm
                    self.client = MllpClient(port) if self.protocol == "hl7" else AstmClient(port)
                if self._send(specimen, version, stamp):
                    return True
            except OSError:
                self._hang_up()
                time.sleep(0.02)

    def _send(self, specimen: str, version: int, stamp: str) -> bool:
        if self.protocol == "hl7":
            message = oru(specimen, version, [("6690-2^WBC^LN", f"{version}.50", "10*9/L")], stamp)
            return b"MSA|AA" in self.client.send(message)
        return bool(self.client.send(astm(specimen, [("WBC", f"{version}.50", "10*3/uL")], stamp)))


def torture(folder: Path, rounds: int, seed: int, url: str = "sqlite:///lab.db", say: Callable[[str], None] = print) -> Score:
    """Runs so many rounds and scores them; ``score.problems`` is empty when every promise held."""
    chance = random.Random(seed)
    score, stop = Score(), threading.Event()
    laboratory = Laboratory(folder, url, repeat="latest-measured", timeout="2s")
    hospital = Hospital(laboratory.his).start()
    laboratory.start()
    analyzers = [Analyzer(f"{number}", "hl7" if number <= 4 else "astm", laboratory, score, stop) for number in range(1, 9)]
    try:
        for analyzer in analyzers:
            analyzer.start()
        for number in range(1, rounds + 1):
            time.sleep(chance.uniform(0.05, 1.0))
            wait_until(lambda number=number: len(score.acknowledged) > FEW * number, 20, "there is a load")
            laboratory.kill()
            score.kills += 1
            score.seconds_to_listen.append(laboratory.start())
            if number % 10 == 0:
                say(f"round {number}: {len(score.acknowledged)} acknowledged, {len(hospital.got())} arrived")
        time.sleep(0.5)
        stop.set()
        for analyzer in analyzers:
            analyzer.join(30)
        wait_until(lambda: _drained(laboratory, url), 60, "the queue drains")
        _judge(laboratory, url, hospital, score)
    finally:
        stop.set()
        laboratory.stop()
        hospital.stop()
    return score


def _reader(laboratory: Laboratory, url: str) -> Reader:
    return Reader(url.replace("sqlite:///", f"sqlite:///{laboratory.folder}/"))


def _drained(laboratory: Laboratory, url: str = "sqlite:///lab.db") -> bool:
    with closing(_reader(laboratory, url)) as reader:
        return not reader.queued()


def _judge(laboratory: Laboratory, url: str, hospital: Hospital, score: Score) -> None:
    """Holds what arrived against what was acknowledged."""
    contents: dict[str, bytes] = {}
    control_ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    order: dict[str, list[int]] = defaultdict(list)
    for control_id, message in hospital.got():
        if contents.setdefault(control_id, message) != message:
            score.problems.append(f"{control_id} arrived with two contents")
        specimen, version = _which(message)
        if control_id not in control_ids[specimen, version]:
            control_ids[specimen, version].add(control_id)
            order[specimen].append(version)
    for key in score.acknowledged - set(control_ids):
        score.problems.append(f"acknowledged but never delivered: {key}")
    for key, ids in control_ids.items():
        if len(ids) > 1:
            score.problems.append(f"delivered twice under different ids: {key} {sorted(ids)}")
    for specimen, versions in order.items():
        if versions != sorted(versions):
            score.problems.append(f"out of order: {specimen} {versions}")
    with closing(_reader(laboratory, url)) as reader:
        for specimen in sorted({specimen for specimen, _ in score.acknowledged}):
            kept = b"".join(report.document for report in reader.trace(specimen).reports)
            for version in range(1, VERSIONS + 1):
                if (specimen, version) in score.acknowledged and b'"%d.50"' % version not in kept:
                    score.problems.append(f"acknowledged but not in the journal: {specimen} {version}")


def _which(message: bytes) -> tuple[str, int]:
    """The specimen and the version that a delivered message is about."""
    obr = re.search(rb"\rOBR\|[^|]*\|[^|]*\|([^|^\r]*)", message)
    obx = re.search(rb"\rOBX\|[^|]*\|NM\|[^|]*\|[^|]*\|(\d)\.50", message)
    assert obr is not None
    assert obx is not None, message
    return obr[1].decode(), int(obx[1])
